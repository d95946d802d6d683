"""A model's knowledge for another task: its head replaced, its features kept, its layers tuned.

The *head* is the layer, found by its name, that turns features into answers. Everything before it
is the *backbone*.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steepest.errors import DataError, InputError, LedgerError, UnsupportedError
from steepest.train import checkpoint
from steepest.train.batchnorm import freeze_batch_norm
from steepest.train.checkpoint import RunState
from steepest.train.data import map_tensors, tensors_of
from steepest.train.randomness import isolated
from steepest.train.solo import model_state
from steepest.train.task import call_model, hash_tensors

__all__ = [
    "Features",
    "Tail",
    "find_head",
    "freeze_backbone",
    "layer_rates",
    "load_backbone",
    "read_weights",
    "replace_head",
    "tail_of",
]

_SAME = 1e-4


def find_head(model: nn.Module, name: str | None = None) -> str:
    """The name of the head: the one given, if the model has it, or its last linear layer.

    Raises:
        InputError: For a name that is no module of the model, with the nearest ones.

    >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    '2'
    >>> find_head(nn.Sequential(nn.Linear(4, 8)), "head")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: the model has no module 'head'; nearest: 0 (Linear)
    """
    modules: dict[str, nn.Module] = {n: module for n, module in model.named_modules() if n}
    if name is None:
        linear: list[str] = [n for n, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise InputError(
                "the model has no linear layer that could be its head; name the head: one of "
                f"{', '.join(list(modules)[-5:]) or 'nothing, it has no modules'}"
            )
        return linear[-1]
    if name in modules:
        if not any(True for _ in modules[name].parameters()):
            raise InputError(
                f"'{name}' ({type(modules[name]).__name__}) has no parameters, so it is no head"
            )
        return name
    owners = {n: m for n, m in modules.items() if any(True for _ in m.parameters())}
    near = difflib.get_close_matches(name, owners, n=3, cutoff=0.4)
    near += [n for n in list(owners)[::-1] if n not in near][: 3 - len(near)]
    shown = ", ".join(f"{n} ({type(owners[n]).__name__})" for n in near)
    raise InputError(f"the model has no module '{name}'; nearest: {shown or 'it has none at all'}")


def replace_head(model: nn.Module, name: str, head: nn.Module | int) -> nn.Module:
    """Put a fresh head in the place of a model's own.

    Args:
        model: Changed in place.
        name: Of the head, such as ``fc`` or ``classifier.1``.
        head: The new one; or a number of classes, for a linear layer or a 1x1 convolution like the
            old one, initialised by torch from its global generator.

    Returns:
        The model.

    >>> model = replace_head(nn.Sequential(nn.Flatten(), nn.Linear(8, 10)), "1", 5)
    >>> model[1]
    Linear(in_features=8, out_features=5, bias=True)
    """
    name = find_head(model, name)
    old = model.get_submodule(name)
    if isinstance(head, nn.Module):
        new = head
    elif isinstance(head, bool) or head < 1:
        raise InputError(f"a head needs at least one class, got {head!r}")
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, head, bias=old.bias is not None)
    elif isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        new = nn.Conv2d(old.in_channels, head, 1, bias=old.bias is not None)
    else:
        raise InputError(
            f"'{name}' is a {type(old).__name__}; a head is made from a number of classes only in "
            "place of a Linear layer or a 1x1 convolution. Give the new module itself"
        )
    example = next(old.parameters())
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, new.to(example.device, example.dtype))
    return model


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of what ``torch.save`` wrote; code never runs.

    Raises:
        DataError: If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            found: Any = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise DataError(
            f"the weights {path} cannot be read ({type(error).__name__}: {first}); a state_dict in "
            "a .safetensors file, or in one written by torch.save, is expected"
        ) from error
    for key in ("state_dict", "model"):  # what training scripts wrap it in
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise DataError(
            f"{path} holds {type(found).__name__}, not a state_dict of names and tensors"
        )
    return {str(name): tensor for name, tensor in found.items()}


@torch.no_grad()
def load_backbone(model: nn.Module, weights: Mapping[str, Tensor], *, head: str) -> nn.Module:
    """Write weights into everything but the head.

    Raises:
        InputError: If the weights are not those of this backbone: a name or a shape differs.

    >>> old, new = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 9)), nn.Sequential(
    ...     nn.Linear(2, 3), nn.Linear(3, 4))
    >>> load_backbone(new, old.state_dict(), head="1")[0].weight.equal(old[0].weight)
    True
    """
    own = {name: tensor for name, tensor in model_state(model) if not _under(name, head)}
    given = {name: tensor for name, tensor in weights.items() if not _under(name, head)}
    tracked = {name for name in own if name.endswith("num_batches_tracked")}
    known = dict(model.state_dict())
    missing = [name for name in own if name not in given and name not in tracked]
    strange = [name for name in given if name not in known]
    if missing or strange:
        lacking = f"they lack {_some(missing)}" if missing else ""
        more = f"the model does not have {_some(strange)}" if strange else ""
        raise InputError(
            "the weights are not those of this model's backbone (everything but "
            f"'{head}'): {'; '.join(filter(None, (lacking, more)))}"
        )
    for name, tensor in own.items():
        if name not in given:
            continue
        if given[name].shape != tensor.shape:
            raise InputError(
                f"'{name}' has shape {tuple(given[name].shape)} in the weights and "
                f"{tuple(tensor.shape)} in the model; only the head '{head}' may differ"
            )
        tensor.copy_(given[name])
    return model


def _under(name: str, head: str) -> bool:
    return name == head or name.startswith(f"{head}.")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def freeze_backbone(model: nn.Module, head: str) -> nn.Module:
    """Train the head only: no other parameter asks for a gradient, and batch norm stands still.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    >>> [n for n, p in freeze_backbone(model, "2").named_parameters() if p.requires_grad]
    ['2.weight', '2.bias']
    """
    find_head(model, head)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_under(name, head))
    freeze_batch_norm(model)
    return model


def layer_rates(model: nn.Module, *, head: str, least: float = 0.1) -> dict[str, float]:
    r"""What every trained parameter's learning rate is multiplied by: less towards the input.

    Early layers know what most tasks share, so they should move least (Howard & Ruder,
    arXiv:1801.06146, section 3.2). Stages are the model's children in their order, lists and
    sequences opened once; stage l of L before the head has :math:`\rho^{(L-l)/L}` with :math:`\rho`
    = ``least`` at l = 0, and the head has 1, whatever the depth.

    Args:
        model: Its children must stand in the order in which data flow through them.
        head: Its name.
        least: The multiplier of the first stage, in (0, 1]; 1 gives every layer the same rate.

    >>> model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    >>> {name: round(rate, 4) for name, rate in layer_rates(model, head="2", least=0.01).items()}
    {'0.weight': 0.01, '1.weight': 0.1, '2.weight': 1.0}
    """
    if not 0 < least <= 1:
        raise InputError(f"least must be greater than 0 and at most 1, got {least!r}")
    find_head(model, head)
    stages: list[str] = []
    for name, child in model.named_children():
        inside = isinstance(child, (nn.Sequential, nn.ModuleList))
        stages += [f"{name}.{n}" for n, _ in child.named_children()] if inside else [name]
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    body = [s for s in stages if any(_under(n, s) and not _under(n, head) for n in trained)]
    rates = {}
    for name in trained:
        number = next((i for i, stage in enumerate(body) if _under(name, stage)), 0)
        depth = (len(body) - number) / max(len(body), 1)
        rates[name] = 1.0 if _under(name, head) else least**depth
    return rates


def with_rates(
    factory: Callable[[Iterable[Any]], torch.optim.Optimizer], rates: Sequence[float], lr: float
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """A factory whose optimizers have a parameter group per distinct rate.

    Args:
        factory: Makes an optimizer from parameter groups.
        rates: Multipliers, in the order of the parameters that will be handed over.
        lr: What they multiply.
    """

    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        groups: dict[float, list[nn.Parameter]] = {}
        for rate, parameter in zip(rates, parameters, strict=True):
            groups.setdefault(rate, []).append(parameter)
        return factory([{"params": own, "lr": lr * rate} for rate, own in groups.items()])

    return make


class Tail(nn.Module):
    """A head with what the model does to its outputs, fed with features."""

    def __init__(self, head: nn.Module, after: str) -> None:
        super().__init__()
        self.head = head
        self.after = after

    def forward(self, features: Tensor) -> Tensor:
        """What the whole model would answer."""
        outputs: Tensor = self.head(features)
        if self.after == "log_softmax":
            return outputs.log_softmax(1)
        return outputs.softmax(1) if self.after == "softmax" else outputs


@torch.no_grad()
def tail_of(model: nn.Module, head: str, x: Any) -> str:
    """What the model does after its head: ``nothing``, ``log_softmax`` or ``softmax``.

    Raises:
        UnsupportedError: For anything else: the head cannot be trained without the model then.
    """
    seen: dict[str, Any] = {}
    module = model.get_submodule(head)
    hook = module.register_forward_hook(lambda m, a, out: seen.update(inputs=a, outputs=out))
    was = model.training
    try:
        outputs = call_model(model.eval(), x)
    finally:
        hook.remove()
        model.train(was)
    reason = ""
    if "outputs" not in seen:
        reason = "the model did not use it"
    elif len(seen["inputs"]) != 1 or not isinstance(seen["inputs"][0], Tensor):
        reason = "it takes more than one tensor"
    elif isinstance(outputs, Tensor) and isinstance(seen["outputs"], Tensor):
        own = seen["outputs"]
        ways = {"nothing": own, "log_softmax": own.log_softmax(1), "softmax": own.softmax(1)}
        for after, expected in ways.items():
            if expected.shape == outputs.shape and torch.allclose(
                expected, outputs, atol=_SAME, rtol=_SAME
            ):
                return after
        reason = "the model changes its outputs by something else than a softmax"
    else:
        reason = "it or the model gives something else than a tensor"
    raise UnsupportedError(
        f"the head '{head}' cannot be trained on features alone: {reason}; name a layer whose "
        "output is the model's answer"
    )


@dataclass(frozen=True)
class Features:
    """What a backbone makes of examples, kept on the disk.

    The file is named by a hash of the backbone's weights, the head's name and every byte of the
    examples, so another model or other data never find it.

    Attributes:
        folder: Where files are kept; made if it does not exist.
    """

    folder: Path

    def of(
        self, model: nn.Module, batches: Iterable[Any], *, head: str, device: torch.device
    ) -> Tensor:
        """The inputs of the head for all examples, ``[N, ...]``, on the CPU, in eval mode.

        Args:
            model: In any mode; it is left as it was.
            batches: Inputs as the model takes them.
            head: Its name.
            device: Where the model is.

        Raises:
            InputError: If there is no example.
        """
        batches = list(batches)
        tensors = [t for batch in batches for t in tensors_of(batch)]
        if not tensors:
            raise InputError("there is no example to compute features of")
        body = {name: t for name, t in model_state(model) if not _under(name, head)}
        key = hash_tensors({f"{head}/{name}": t for name, t in body.items()} | {
            f"x{number}": tensor for number, tensor in enumerate(tensors)
        })[:32]  # fmt: skip
        path = self.folder / f"{key}.safetensors"
        if path.exists():
            try:
                return checkpoint.load(path).tensors["features"]
            except LedgerError:
                path.unlink()  # damaged: it is computed again
        found = _compute(model, batches, head, device)
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, RunState({"features": found}, {}))
        return found


def _compute(model: nn.Module, batches: Sequence[Any], head: str, device: torch.device) -> Tensor:
    parts: list[Tensor] = []

    class Enough(Exception):  # noqa: N818 – not an error: the rest need not be computed
        """The head was reached."""

    def take(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        parts.append(inputs[0].detach().cpu())
        raise Enough

    hook = model.get_submodule(head).register_forward_pre_hook(take)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad(), isolated(device):
            for batch in batches:
                try:
                    call_model(model, map_tensors(lambda t: t.to(device), batch))
                except Enough:
                    continue
                raise UnsupportedError(f"the model never used its head '{head}'")
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode
    return torch.cat(parts).contiguous()


def head_model(model: nn.Module, head: str, after: str) -> Tail:
    """The head of a model as a model of its own, with copies of its weights."""
    return Tail(copy.deepcopy(model.get_submodule(head)), after)
