"""Adagrad: a rate per element that falls with the squared gradients seen so far."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import sqrt
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECAY

__all__ = ["adagrad"]


@rule(
    paper="https://jmlr.org/papers/v12/duchi11a.html",
    slots={"sum": Slot(init="initial_accumulator_value")},
    modifiers=(DECAY,),
)
def adagrad(
    p: Any,
    g: Any,
    sum: Any,  # noqa: A002  (torch.optim's name for the slot)
    t: Any,
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> tuple[Any, ...]:
    r"""Adagrad with the decaying rate of torch.optim.

    .. math::
        s_t = s_{t-1} + g_t^2, \qquad
        \Delta_t = -\frac{\eta}{1 + (t-1)\,\eta_d} \frac{g_t}{\sqrt{s_t} + \epsilon}
    """
    sum = sum + g * g  # noqa: A001
    return -lr / (1 + (t - 1) * lr_decay) * g / (sqrt(sum) + eps), sum
