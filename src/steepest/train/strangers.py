"""Optimizers that want more than ``step()``: the loss once more, or to be told what is shown.

*The loss once more.* L-BFGS and sharpness-aware steps evaluate the model again within a step; they
get a closure, and every asking meets the batch and the noise of that step.

*What is shown.* A schedule-free optimizer trains one set of weights and answers with another; it
has ``train()`` and ``eval()`` to go from one to the other. Going there and back rounds twice, so an
evaluation would change the training; here the trained weights are kept meanwhile and put back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from steepest.optim.facade import Facade

__all__ = ["asks_again", "show_trained", "showing_answer"]

_INSISTS: dict[type, bool] = {}


def asks_again(
    optimizer: torch.optim.Optimizer,
    factory: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
) -> bool:
    """Whether ``step`` needs a closure that evaluates the loss again.

    That is plain where the argument cannot be left out (`torch.optim.LBFGS`). Where it has a
    default that is then refused (SAM), it is found out on a tiny parameter.

    Args:
        optimizer: The one in question.
        factory: What made it, for making one that may be tried.
    """
    kind = type(optimizer)
    parameters = list(inspect.signature(kind.step).parameters.values())[1:]
    closure = next((p for p in parameters if p.name == "closure"), None)
    if closure is None or isinstance(optimizer, Facade):
        return False
    if closure.default is closure.empty:
        return True
    if kind.__module__.startswith("torch.optim."):
        return False
    if kind not in _INSISTS:
        _INSISTS[kind] = not _steps(factory, with_closure=False) and _steps(
            factory, with_closure=True
        )
    return _INSISTS[kind]


def _steps(factory: Callable[[Any], torch.optim.Optimizer], *, with_closure: bool) -> bool:
    """Whether a fresh optimizer does a step on a 2 x 2 parameter."""
    p = nn.Parameter(torch.ones(2, 2))

    def closure() -> Tensor:
        p.grad = torch.ones(2, 2)
        return torch.ones(())

    try:
        optimizer = factory([p])
        show_trained(optimizer)
        closure()
        optimizer.step(closure) if with_closure else optimizer.step()  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  a stranger's code; its first real step says what is wrong
        return False
    return True


def _has_two_sets(optimizer: torch.optim.Optimizer) -> bool:
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


def show_trained(optimizer: Any) -> None:
    """Let the parameters be those that are trained."""
    if _has_two_sets(optimizer):
        optimizer.train()


@contextmanager
def showing_answer(optimizer: Any) -> Iterator[None]:
    """Let the parameters be the optimizer's answer meanwhile; afterwards to the bit as before."""
    if not _has_two_sets(optimizer):
        yield
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for p, kept in zip(parameters, before, strict=True):
                p.copy_(kept)
