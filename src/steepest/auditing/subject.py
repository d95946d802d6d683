"""Drive a stranger's optimizer through a scenario, and write down where it goes."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.auditing.names import Names
from steepest.auditing.scenarios import Array, Play

__all__ = ["Recording", "RefusedError", "Subject", "undisturbed"]


class RefusedError(Exception):
    """The optimizer cannot be made with these arguments, and says so."""


@dataclass(frozen=True)
class Recording:
    """Where an optimizer went.

    Attributes:
        path: After every step, every tensor, in float64.
        way: The longest way that any element has gone from its start.
        states: After the last step, for every tensor its state's tensors of the same shape.
        averages: After the last step, the tensors in evaluation mode; None without modes.
    """

    path: list[list[Array]]
    way: float
    states: list[dict[str, Array]]
    averages: list[Array] | None


@contextlib.contextmanager
def undisturbed(dtype: torch.dtype) -> Iterator[None]:
    """Single numbers in that dtype too; the caller's generator, defaults and streams untouched."""
    default, threads = torch.get_default_dtype(), torch.get_num_threads()
    quiet = contextlib.redirect_stdout(io.StringIO())
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), quiet:
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(1)  # tensors of a dozen elements are slower with more
            yield
        finally:
            torch.set_default_dtype(default)
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        factory: A class or function: parameters and arguments to an optimizer.
        given: Arguments that have been set by hand.
        dtype: Of the parameters.
    """

    factory: Callable[..., torch.optim.Optimizer]
    given: Mapping[str, Any]
    dtype: torch.dtype

    def tensors(self, start: Sequence[Array]) -> list[torch.nn.Parameter]:
        """Fresh parameters."""
        return [torch.nn.Parameter(torch.tensor(p, dtype=self.dtype)) for p in start]

    def make(self, params: list[torch.nn.Parameter], plan: Play, names: Names) -> Any:
        """A fresh instance for a scenario."""
        shared, *others = [names.arguments(values) for values in plan.values]
        if plan.scenario.maximize:
            shared["maximize"] = True
        if plan.scenario.tensor:
            shared["lr"] = torch.tensor(shared["lr"])
        arguments = {k: v for k, v in shared.items() if k in names.settable}
        groups: Any = params
        if others:
            groups = [
                {"params": [p for p, g in zip(params, plan.groups, strict=True) if g == at], **own}
                for at, own in enumerate([{}, *others])
            ]
        optimizer = self.factory(groups, **{**self.given, **arguments})
        per_group = (shared, *others) if others else [shared] * len(optimizer.param_groups)
        for group, own in zip(optimizer.param_groups, per_group, strict=True):
            group.update({k: v for k, v in own.items() if k not in names.settable})
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    def record(self, plan: Play, names: Names, *, stop: int | None = None) -> Recording:
        """Take the steps of a scenario; whatever the optimizer raises goes through."""
        params = self.tensors(plan.start)
        with undisturbed(self.dtype):
            try:
                optimizer = self.make(params, plan, names)
            except (NotImplementedError, ValueError) as error:
                raise RefusedError(str(error).splitlines()[0]) from error
            rate = names.places["lr"][0] if "lr" in names else "lr"
            base = [group.get(rate) for group in optimizer.param_groups]
            base = [b.item() if isinstance(b, Tensor) else b for b in base]
            path = []
            for step, grads in enumerate(plan.grads[:stop]):
                if step == plan.reload:
                    params = [torch.nn.Parameter(p.detach().clone()) for p in params]
                    fresh = self.make(params, plan, names)
                    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                    optimizer = fresh
                for group, own in zip(optimizer.param_groups, base, strict=True):
                    if isinstance(group[rate], Tensor):
                        group[rate].fill_(own * plan.rates[step])
                    elif plan.scenario.changing:
                        group[rate] = own * plan.rates[step]
                for p, g in zip(params, grads, strict=True):
                    p.grad = None if g is None else torch.tensor(g, dtype=self.dtype)
                optimizer.step()
                path.append([_array(p) for p in params])
            states = [_state(optimizer, p) for p in params]
            averages = _averages(optimizer, params)
        way = max(
            float(np.abs(x - p).max())
            for tensors in path
            for x, p in zip(tensors, plan.start, strict=True)
        )
        return Recording(path, way, states, averages)


def _array(x: Tensor) -> Array:
    return x.detach().double().numpy(force=True).copy()


def _state(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Array]:
    held = optimizer.state.get(p, {})
    return {
        str(name): _array(x)
        for name, x in held.items()
        if isinstance(x, Tensor) and x.shape == p.shape and x.is_floating_point()
    }


def _averages(optimizer: Any, params: Sequence[Tensor]) -> list[Array] | None:
    if not (hasattr(optimizer, "train") and hasattr(optimizer, "eval")):
        return None
    optimizer.eval()
    return [_array(p) for p in params]
