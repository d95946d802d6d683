"""Adagrad: a rate per element that falls with the squared gradients seen so far."""

from __future__ import annotations

from typing import Any

from steepest.rules._rule import Slot, rule
from steepest.rules._second_moment import root
from steepest.rules.modifiers import DECAY

__all__ = ["adagrad"]


@rule(
    paper="https://jmlr.org/papers/v12/duchi11a.html",
    slots={"sum": Slot(init="initial_accumulator_value")},
    modifiers=(DECAY,),
    choices={"eps_mode": ("outside", "inside")},
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
    eps_mode: str = "outside",
) -> tuple[Any, ...]:
    r"""Adagrad with the decaying rate of torch.optim.

    .. math::
        s_t = s_{t-1} + g_t^2, \qquad
        \Delta_t = -\frac{\eta}{1 + (t-1)\,\eta_d} \frac{g_t}{\sqrt{s_t} + \epsilon}

    ``eps_mode="inside"`` has ε under the root (Keras, optax).
    """
    sum = sum + g * g  # noqa: A001
    return -lr / (1 + (t - 1) * lr_decay) * g / root(sum, eps, eps_mode=eps_mode), sum
