"""A schedule for a user's own loop: as a `torch.optim.lr_scheduler.LambdaLR`."""

from __future__ import annotations

from functools import lru_cache

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from steepest.schedules import Schedule, parse

__all__ = ["to_lambda_lr"]


def to_lambda_lr(optimizer: Optimizer, schedule: Schedule | str, *, total: int) -> LambdaLR:
    """The schedule as torch's `LambdaLR`: call ``scheduler.step()`` after ``optimizer.step()``.

    The optimizer's learning rates are the base, that is, the highest; every parameter group keeps
    its own. ``scheduler.state_dict()`` holds the schedule as text and the length of the run beside
    the position, so loading it goes on mid-run exactly where it was, and with the schedule that
    was saved.

    Args:
        optimizer: Any `torch.optim.Optimizer`.
        schedule: A `Schedule`, or its text, such as ``"cosine(warmup=0.05)"``.
        total: Steps of the whole run.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    >>> scheduler = to_lambda_lr(optimizer, "linear()", total=4)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> optimizer.param_groups[0]["lr"]
    0.4
    """
    plan = parse(schedule) if isinstance(schedule, str) else schedule
    plan.check(total)
    return LambdaLR(optimizer, _Factor(plan.spec(), total))


class _Factor:
    """A callable object whose attributes are plain: LambdaLR saves and loads its ``__dict__``."""

    def __init__(self, spec: str, total: int) -> None:
        self.spec = spec
        self.total = total

    def __call__(self, step: int) -> float:
        return _parsed(self.spec)(step, self.total)


_parsed = lru_cache(maxsize=1024)(parse)
