"""What stands around every step: torch's hooks and its mark in a profile, paid for when wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.optim import optimizer as torch_optimizer
from torch.optim.optimizer import Optimizer

__all__ = ["hooked"]

F = TypeVar("F", bound=Callable[..., Any])


def hooked(step: F) -> F:
    """A `step` with torch's own wrapper around it, where something in it would be noticed.

    `torch.optim.Optimizer` wraps the `step` of every class once (unless it says that it is
    ``hooked``), to call the hooks before and after and to open a range for the profiler. The range
    alone costs 5 µs, a quarter of a small model's step; so it is opened only for a profiler that
    is there to see it.
    """
    wrapped = Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def with_hooks(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            torch.compiler.is_compiling()
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
        ):
            return wrapped(self, *args, **kwargs)
        return step(self, *args, **kwargs)

    with_hooks.hooked = True  # type: ignore[attr-defined]
    return with_hooks  # type: ignore[return-value]
