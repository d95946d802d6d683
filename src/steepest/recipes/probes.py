"""What can be known of a task before it is trained: its first loss, inputs, gradients.

B examples, C classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from steepest.numbers import significant
from steepest.train.data import map_tensors, sample, tensors_of
from steepest.train.randomness import isolated
from steepest.train.task import Metric, Task, build_model

__all__ = [
    "Expected",
    "Facts",
    "expected_loss",
    "facts",
    "initial_losses",
    "tiny_task",
    "without_dropout",
]

EXAMPLES = 1000
TINY = 20


@dataclass(frozen=True)
class Expected:
    """What the loss should be at the start.

    Attributes:
        value: The loss of a model that knows nothing; NaN if nobody knows.
        words: Why.
        classes: C, for a softmax over classes; else None.
        constant: The loss of the best prediction that does not look at the inputs: the entropy of
            the classes' frequencies, the variance of a regression's targets. What falls below it
            has learned something from them. NaN if nobody knows.
    """

    value: float
    words: str
    classes: int | None = None
    constant: float = math.nan


@dataclass(frozen=True)
class Facts:
    """What stands in the way, in sentences.

    Attributes:
        inputs: About the inputs.
        frozen: Parameters that are not trained.
        head_frozen: The last layer is among them.
        silent: Parameters that are trained and get no gradient at all.
        dead: Share of units (rows of weights) without a gradient, over all layers but the last.
        dropout: The largest probability of any dropout.
    """

    inputs: tuple[str, ...]
    frozen: tuple[str, ...]
    head_frozen: bool
    silent: tuple[str, ...]
    dead: float
    dropout: float


def batch_of(task: Task, n: int = EXAMPLES) -> tuple[Any, Any]:
    """Training examples spread over the data."""
    return sample(task.train, n, where=f"task '{task.name}': train")


def initial_losses(task: Task, seeds: range) -> list[float]:
    """The loss before any step, in eval mode, of models from several seeds."""
    batch = batch_of(task)
    found = []
    with isolated(torch.device("cpu")), torch.no_grad():
        for seed in seeds:
            model = build_model(task, seed).eval()
            found.append(float(task.compute_loss(model, batch)[0]))
    return found


def expected_loss(task: Task) -> Expected:
    """The loss of a prediction that knows nothing: given by the task, or by theory."""
    found = _by_theory(task)
    given = task.expected_initial_loss
    if given is None:
        return found
    scale = given / found.value if found.value > 0 else math.nan
    return Expected(given, "as the task says", found.classes, scale * found.constant)


def _by_theory(task: Task) -> Expected:
    x, y = batch_of(task)
    with isolated(torch.device("cpu")), torch.no_grad():
        outputs = task.compute_loss(build_model(task, 0).eval(), (x, y))[1]
        if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
            return Expected(math.nan, "its outputs or targets are no single tensor")
        if not y.is_floating_point() and outputs.dim() == y.dim() + 1:
            classes = outputs.shape[1]
            shares = torch.bincount(y.flatten().long().clamp(min=0)).double() / y.numel()
            entropy = float(-(shares * shares.clamp(min=1e-12).log()).sum())
            words = f"log {classes}, a softmax over {classes} classes"
            return Expected(math.log(classes), words, classes, entropy)
        if y.is_floating_point() and outputs.shape == y.shape:
            if bool(((y == 0) | (y == 1)).all()):
                p = y.mean().clamp(1e-12, 1 - 1e-7)
                entropy = float(-(p * p.log() + (1 - p) * (1 - p).log()))
                return Expected(math.log(2), "log 2, yes or no", None, entropy)
            constant = float(task.loss(y.mean(0, keepdim=True).expand_as(y), y))
            return Expected(constant, "that of the targets' mean", None, constant)
    return Expected(math.nan, "its outputs and targets have no form that theory speaks of")


def facts(task: Task) -> Facts:
    """Look for what keeps a model from learning; one batch forward and backward."""
    x, y = batch_of(task)
    with isolated(torch.device("cpu")):
        model = build_model(task, 0)
        dropout = max((m.p for m in model.modules() if isinstance(m, _DropoutNd)), default=0.0)
        loss, _ = task.compute_loss(without_dropout_in(model), (x, y))
        torch.autograd.backward(loss)
    named = list(model.named_parameters())
    head = _last_layer(named)
    weights = [p for n, p in named if p.dim() > 1 and p.requires_grad and n not in head]
    rows = [_quiet_rows(p) for p in weights]
    units = sum(len(r) for r in rows)
    return Facts(
        inputs=_input_facts(x),
        frozen=tuple(name for name, p in named if not p.requires_grad),
        head_frozen=bool(head) and not any(p.requires_grad for n, p in named if n in head),
        silent=tuple(
            name for name, p in named
            if p.requires_grad and (p.grad is None or not bool(p.grad.any()))
        ),
        dead=sum(int(r.sum()) for r in rows) / units if units else 0.0,
        dropout=float(dropout),
    )  # fmt: skip


def _quiet_rows(parameter: Tensor) -> Tensor:
    """Which rows of a weight get no gradient."""
    if parameter.grad is None:
        return torch.ones(len(parameter), dtype=torch.bool)
    return ~parameter.grad.flatten(1).any(dim=1)


def _last_layer(named: list[tuple[str, nn.Parameter]]) -> set[str]:
    """The parameters of the module that was declared last."""
    if not named:
        return set()
    place = named[-1][0].rpartition(".")[0]
    return {name for name, _ in named if name.rpartition(".")[0] == place}


def _input_facts(x: Any) -> tuple[str, ...]:
    told = []
    for tensor in tensors_of(x):
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not bool(torch.isfinite(tensor).all()):
            told.append("some inputs are not finite")
            continue
        values = tensor.double()
        mean, deviation = float(values.mean()), float(values.std())
        across = float(values.flatten(1).std(0).max()) if len(values) > 1 else 0.0
        if across == 0:
            told.append("all inputs are equal: every example looks the same to the model")
        elif deviation > 10 or deviation < 0.01 or abs(mean) > 5 * deviation:
            told.append(
                f"the inputs are not normalised: mean {significant(mean)}, deviation "
                f"{significant(deviation)}; subtract the mean and divide by the deviation"
            )
    return tuple(told)


def without_dropout_in(model: nn.Module) -> nn.Module:
    """The same model with every dropout switched off."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return model


def _make_without_dropout(factory: Callable[[], nn.Module]) -> nn.Module:
    return without_dropout_in(factory())


def without_dropout(factory: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A model factory whose models have no dropout."""
    return functools.partial(_make_without_dropout, factory)


def hits(outputs: Tensor, targets: Tensor) -> float:
    """The share of examples whose largest output is at the target."""
    return float((outputs.argmax(dim=1) == targets).double().mean())


def tiny_task(task: Task, expected: Expected) -> Task:
    """The task on a few examples, all in one batch, without dropout."""
    x, y = (map_tensors(torch.clone, part) for part in batch_of(task, TINY))
    return Task(
        name=f"{task.name}-tiny",
        model=without_dropout(task.model),
        loss=task.loss,
        train=(x, y),
        val=(x, y),
        metrics={"accuracy": Metric(hits)} if expected.classes else {},
        batch_size=len(tensors_of(x)[0]),
    )
