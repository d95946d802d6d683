"""Real training runs with injected faults, and healthy ones, for `diagnose_accuracy.py`.

Every run is trained by the population engine. What is wrong with it is known because it was put
there: ``faults`` are the findings that must be reported, ``allowed`` those that the same
injection may cause as well (a rate near the edge of stability also makes a plateau), which count
neither as hits nor as false alarms. Both were written down before any rate of errors was looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.diagnosing.curves import Curves, Series
from steepest.racing.arm import parse
from steepest.tasks.mnist import mnist_mlp
from steepest.train.population import Member, Population
from steepest.train.task import Task

EVALUATIONS = 25


@dataclass(frozen=True)
class Problem:
    """Data, and a network that can learn them.

    Attributes:
        name: Its name.
        train: Inputs and targets.
        val: Held-out ones.
        widths: Of the layers, input and output included.
        loss: What is minimised.
        adam: A good rate for Adam.
        sgd: A good rate for SGD with momentum 0.9.
        steps: Enough for a schedule to finish its work.
    """

    name: str
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    widths: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    adam: float
    sgd: float
    steps: int


@dataclass(frozen=True)
class Condition:
    """One way to train, and what is wrong with it.

    Attributes:
        name: What is done.
        faults: Findings that must be reported; none: a healthy run.
        arm: From the problem to an arm's text.
        allowed: Findings that may be reported too.
        batch: Examples per step.
        length: Steps, as a part of the problem's.
        build: From the problem to another model; None: the problem's.
        examples: Training examples that are kept; None: all.
        flipped: Part of the training targets that are drawn anew.
    """

    name: str
    faults: tuple[str, ...]
    arm: Callable[[Problem], str]
    allowed: tuple[str, ...] = ()
    batch: int = 64
    length: float = 1.0
    build: Callable[[Problem], nn.Module] | None = None
    examples: int | None = None
    flipped: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run that was trained.

    Attributes:
        problem: Its problem.
        condition: How it was trained.
        curves: What was recorded.
    """

    problem: str
    condition: Condition
    curves: Curves


# --- networks ---------------------------------------------------------------------------------


def mlp(widths: tuple[int, ...], *, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(a, b)] + ([act()] if number < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def small_start(problem: Problem) -> nn.Module:
    """Weights near zero in a deep net: the saddle at the origin holds it for a while."""
    hidden = max(problem.widths[1:-1])
    model = mlp((problem.widths[0], *[hidden] * 4, problem.widths[-1]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1 if parameter.dim() > 1 else 0.0)
    return model


def sigmoid_stack(problem: Problem) -> nn.Module:
    """Sigmoids, four deep, with torch's initialisation: signals hardly pass."""
    hidden = max(problem.widths[1:-1])
    return mlp((problem.widths[0], *[hidden] * 3, problem.widths[-1]), act=nn.Sigmoid)


def dead_relus(problem: Problem) -> nn.Module:
    """Biases so low that no unit ever fires; only the last bias learns."""
    model = mlp(problem.widths)
    with torch.no_grad():
        for layer in list(model)[1:-1]:
            if isinstance(layer, nn.Linear):
                layer.bias.sub_(100.0)
    return model


def linear(problem: Problem) -> nn.Module:
    """No hidden layer."""
    return mlp((problem.widths[0], problem.widths[-1]))


def bottleneck(problem: Problem) -> nn.Module:
    """Two hidden units."""
    return mlp((problem.widths[0], 2, problem.widths[-1]), act=nn.Tanh)


# --- problems ---------------------------------------------------------------------------------


def digits(size: int, hidden: int) -> Problem:
    """MNIST, pixels averaged in blocks of 2 x 2."""
    task = mnist_mlp()
    (x, y), (u, v) = task.train, task.val  # type: ignore[misc]
    halve = nn.AvgPool2d(2)
    return Problem(
        f"digits-{hidden}", (halve(x[:size]), y[:size]), (halve(u[:2000]), v[:2000]),
        (196, hidden, 10), F.cross_entropy, 6e-3, 0.05, 800,
    )  # fmt: skip


def teacher(inputs: int, classes: int, seed: int) -> Problem:
    """Labels from a random network that is narrower than the one that learns them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(22_000, inputs, generator=g)
    hidden = torch.relu(x @ torch.randn(inputs, 8, generator=g) / inputs**0.5 * 2)
    scores = hidden @ torch.randn(8, classes, generator=g)
    y = (scores - scores.mean(0)).argmax(1)
    return Problem(
        f"teacher-{inputs}-{classes}", (x[:20_000], y[:20_000]), (x[20_000:], y[20_000:]),
        (inputs, 64, classes), F.cross_entropy, 1e-2, 0.05, 1000,
    )  # fmt: skip


def rings(seed: int) -> Problem:
    """Three classes by the radius in four dimensions."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(22_000, 4, generator=g)
    radius = x.norm(dim=1)
    y = (radius > 1.55).long() + (radius > 2.2).long()
    return Problem(
        "rings", (x[:20_000], y[:20_000]), (x[20_000:], y[20_000:]), (4, 64, 64, 3),
        F.cross_entropy, 5e-3, 0.05, 1000,
    )  # fmt: skip


def waves(seed: int) -> Problem:
    """A squared error: a smooth function of six numbers, and a little noise."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(22_000, 6, generator=g)
    y = torch.sin(1.5 * x[:, :1] * x[:, 1:2]) + x[:, 2:3].abs() - 0.8 + 0.5 * x[:, 3:4].cos()
    y = y + 0.05 * torch.randn(len(y), 1, generator=g)
    y = (y - y.mean()) / y.std()
    return Problem(
        "waves", (x[:20_000], y[:20_000]), (x[20_000:], y[20_000:]), (6, 64, 64, 1),
        F.mse_loss, 5e-3, 0.02, 1000,
    )  # fmt: skip


# --- conditions -------------------------------------------------------------------------------


def momentum(rate: float, after: str = "") -> str:
    """An arm with momentum."""
    return f"sgd(lr={rate:g}, momentum=0.9)" + (f" + {after}" if after else "")


def adam(rate: float, after: str = "") -> str:
    """An arm with Adam."""
    return f"adam(lr={rate:g})" + (f" + {after}" if after else "")


STUCK = ("never_learning",)
CONDITIONS = (
    Condition("healthy: Adam, cosine", (), lambda p: adam(p.adam, "cosine()")),
    Condition("healthy: Adam, cosine with warmup", (),
              lambda p: adam(p.adam, "cosine(warmup=0.1)")),
    Condition("healthy: Adam, linear decay", (), lambda p: adam(p.adam, "linear()")),
    Condition("healthy: SGD, cosine", (), lambda p: momentum(p.sgd, "cosine()")),
    Condition("healthy: SGD, decay by steps late", (),
              lambda p: momentum(p.sgd, "step(milestones=[0.65, 0.88], gamma=0.2)")),
    Condition("healthy: SGD, decay by steps", (),
              lambda p: momentum(p.sgd, "step(milestones=[0.5, 0.8], gamma=0.1)")),
    Condition("healthy: SGD, warmup, stable, decay", (), lambda p: momentum(p.sgd, "wsd()")),
    Condition("SGD, rate 300 times too high", ("exploding",), lambda p: f"sgd(lr={300 * p.sgd:g})",
              allowed=("noise", *STUCK)),
    Condition("momentum, rate 100 times too high", ("exploding",), lambda p: momentum(100 * p.sgd),
              allowed=("noise", *STUCK)),
    Condition("Adam, rate 1,000 times too high", ("exploding",), lambda p: adam(1000 * p.adam),
              allowed=("noise", *STUCK)),
    Condition("rate of 1e-9", STUCK, lambda p: momentum(1e-9)),
    Condition("dead ReLUs", STUCK, lambda p: adam(p.adam, "cosine()"), build=dead_relus),
    Condition("weights near zero, five deep", ("slow_start",), lambda p: adam(0.1 * p.adam),
              build=small_start, allowed=("still_improving", "underfitting", "plateau")),
    Condition("sigmoids, four deep", ("slow_start",), lambda p: adam(p.adam, "cosine()"),
              build=sigmoid_stack, allowed=("still_improving", "underfitting", "plateau")),
    Condition("Adam, rate too high and never lowered", ("plateau",), lambda p: adam(8 * p.adam),
              batch=32, length=1.5, allowed=("noise", "underfitting")),
    Condition("SGD, rate too high and never lowered", ("plateau",),
              lambda p: f"sgd(lr={12 * p.sgd:g})", batch=16, length=1.5,
              allowed=("noise", "underfitting")),
    Condition("rate × 0.01 after 6 %", ("decayed_too_early",),
              lambda p: momentum(p.sgd, "step(milestones=[0.06], gamma=0.01)"),
              allowed=("underfitting",)),
    Condition("exponential decay, done after 10 %", ("decayed_too_early",),
              lambda p: momentum(0.5 * p.sgd, "exponential(gamma=0.98)"),
              allowed=("underfitting",)),
    Condition("SGD, rate 30 times too low", ("still_improving",), lambda p: momentum(p.sgd / 30)),
    Condition("stopped after 15 %", ("still_improving",), lambda p: adam(0.5 * p.adam),
              length=0.15),
    Condition("250 examples", ("overfitting",), lambda p: adam(p.adam), examples=250, batch=32),
    Condition("300 examples, a third mislabelled", ("overfitting",),
              lambda p: adam(p.adam, "cosine()"), examples=300, flipped=0.33, batch=32),
    Condition("no hidden layer", ("underfitting",), lambda p: adam(2 * p.adam, "cosine()"),
              build=linear, batch=128, allowed=STUCK),
    Condition("two hidden units", ("underfitting",), lambda p: adam(2 * p.adam, "cosine()"),
              build=bottleneck, batch=128, allowed=STUCK),
    Condition("batches of 1", ("noise",), lambda p: f"sgd(lr={p.sgd / 2:g})", batch=1,
              allowed=("plateau", "underfitting", "still_improving")),
    Condition("batches of 2, Adam", ("noise",), lambda p: adam(p.adam), batch=2,
              allowed=("plateau", "underfitting", "still_improving")),
)  # fmt: skip


# --- training ---------------------------------------------------------------------------------


def task_of(problem: Problem, condition: Condition) -> Task:
    """The problem as a task, with what the condition changes."""
    x, y = (part[: condition.examples] for part in problem.train)
    if condition.flipped:
        g = torch.Generator().manual_seed(7)
        where = torch.randperm(len(y), generator=g)[: int(condition.flipped * len(y))]
        y = y.clone()
        y[where] = y[where[torch.randperm(len(where), generator=g)]] + (
            0 if y.dtype == torch.int64 else 1.0
        )
    build = condition.build or (lambda p: mlp(p.widths))
    return Task(
        name=problem.name, model=lambda: build(problem), loss=problem.loss, train=(x, y),
        val=problem.val, batch_size=condition.batch, eval_batch_size=2000,
    )  # fmt: skip


def train(problem: Problem, condition: Condition, seeds: range) -> Iterator[Run]:
    """One population: this condition over all seeds."""
    arm = parse(condition.arm(problem))
    steps = max(100, round(condition.length * problem.steps))
    members = [Member(arm.factory(), arm.schedule, seed) for seed in seeds]
    population = Population(task_of(problem, condition), members, steps=steps)
    losses: list[list[float]] = [[] for _ in seeds]
    rates: list[list[float]] = [[] for _ in seeds]
    seen: list[list[tuple[int, float]]] = [[] for _ in seeds]
    marks = np.unique(np.linspace(0, steps, EVALUATIONS + 1).round().astype(int))[1:]
    for mark in marks:
        for place, chunk in enumerate(population.advance(int(mark) - population.position)):
            losses[place] += chunk.loss.tolist()
            rates[place] += chunk.lr.tolist()
        for place, numbers in enumerate(population.evaluate("val")):
            if numbers is not None:
                seen[place].append((int(mark), numbers["loss"]))
        if not population.alive:
            break
    for place, seed in enumerate(seeds):
        at = np.arange(1, len(losses[place]) + 1)
        where, values = zip(*seen[place], strict=True) if seen[place] else ((), ())
        yield Run(
            problem.name,
            condition,
            Curves(
                name=f"{problem.name}, {condition.name}, seed {seed}",
                train_loss=Series(at, losses[place]),
                val_loss=Series(where, values) if seen[place] else None,
                lr=Series(at, rates[place]),
                diverged=population.diverged_at[place] is not None,
            ),
        )
