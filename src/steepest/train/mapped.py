"""The model of a task, run for many members at once with `torch.func.vmap`.

    M      members
    B      examples in a batch
    T_M    a parameter or buffer of all members, stacked along a new first dimension

Here stand the settings of torch under which that can be done, in training and in evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap  # type: ignore[attr-defined,unused-ignore]
from torch.nn.attention import SDPBackend, sdpa_kernel

from steepest.train.precision import Precision
from steepest.train.randomness import isolated
from steepest.train.task import Task

__all__ = ["Mapped", "quiet", "without_shortcut"]


class Mapped:
    """A model and its loss as a function of parameters and buffers.

    Args:
        task: Whose loss.
        model: It lends its code; its own tensors are not used.
        precision: In which it computes, and where.
    """

    def __init__(self, task: Task, model: nn.Module, precision: Precision) -> None:
        self.task = task
        self.model = model
        self.precision = precision
        self.device = precision.device

    def losses(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Any, y: Any
    ) -> Tensor:
        """``[M]``, of every member's own batch ``[M, B, ...]``."""

        def one(params: Any, buffers: Any, x: Any, y: Any) -> Tensor:
            return self._call(params, buffers, x, y)[0]

        result: Tensor = vmap(one)(params, buffers, x, y)
        return result

    def compiled(self) -> Callable[..., Tensor]:
        """`losses` through `torch.compile`."""
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        compiled: Callable[..., Tensor] = torch.compile(self.losses, mode=mode, dynamic=False)
        return compiled

    def answers(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Any, y: Any
    ) -> tuple[Tensor, Any]:
        """Losses ``[M]`` and outputs ``[M, B, ...]`` on one batch ``[B, ...]`` for all members."""

        def one(params: Any, buffers: Any) -> tuple[Tensor, Any]:
            return self._call(params, buffers, x, y)

        result: tuple[Tensor, Any] = vmap(one)(params, buffers)
        return result

    def _call(self, params: Any, buffers: Any, x: Any, y: Any) -> tuple[Tensor, Any]:
        """One member's loss and outputs."""

        def model(*args: Any, **kwargs: Any) -> Any:
            return functional_call(self.model, (params, buffers), args, kwargs)

        return self.precision.compute_loss(self.task, cast("nn.Module", model), (x, y))

    @contextmanager
    def training(self) -> Iterator[None]:
        """In the run's precision; on a CPU with attention as products of matrices, since torch has
        no batching rule for its own.
        """
        with ExitStack() as stack:
            stack.enter_context(isolated(self.device))
            stack.enter_context(self.precision.held())
            stack.enter_context(quiet())
            if self.device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            # a rate or a loss beyond float32 is recorded as infinite
            stack.enter_context(np.errstate(over="ignore"))
            self.model.train()
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode in the run's precision, without gradients."""
        with without_shortcut():
            self.model.eval()
            try:
                with self.precision.held(), torch.no_grad(), quiet():
                    yield
            finally:
                self.model.train()


@contextmanager
def quiet() -> Iterator[None]:
    """`vmap` warns where an operation has no batching rule and runs in a loop: slow, not wrong,
    and the race finds out how slow by measuring.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


@contextmanager
def without_shortcut() -> Iterator[None]:
    """Turn off the shortcut of attention layers in eval mode, which knows no `vmap`."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
