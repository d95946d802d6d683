"""Stochastic gradient descent with momentum and Nesterov's momentum."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import where
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECAY

__all__ = ["sgd"]


@rule(
    paper="http://proceedings.mlr.press/v28/sutskever13.html",
    slots={"momentum_buffer": Slot(when="momentum")},
    modifiers=(DECAY,),
    choices={"lr_place": ("step", "buffer")},
)
def sgd(
    p: Any,
    g: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    lr_place: str = "step",
) -> tuple[Any, ...]:
    r"""SGD, with momentum as torch has it: the rate multiplies the buffer, not the gradient in it.

    .. math::
        b_1 = g_1, \quad b_t = \mu\, b_{t-1} + (1 - \tau)\, g_t, \quad
        \Delta_t = -\eta \begin{cases} g_t + \mu b_t & \text{Nesterov} \\ b_t \end{cases}

    ``lr_place="buffer"`` has η inside the momentum, so that a change of the rate does not touch the
    steps that are already in it (Sutskever et al., Keras).
    """
    if momentum_buffer is None:
        return -lr * g, None
    if lr_place == "buffer":
        g, lr = lr * g, 1.0
    momentum_buffer = where(t == 1, g, momentum * momentum_buffer + (1 - dampening) * g)
    direction = g + momentum * momentum_buffer if nesterov else momentum_buffer
    return -lr * direction, momentum_buffer
