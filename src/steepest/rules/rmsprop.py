"""RMSprop: the gradient over the root of its running mean square."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sqrt
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECAY

__all__ = ["rmsprop"]


@rule(
    paper="https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
    slots={"grad_avg": Slot(when="centered"), "momentum_buffer": Slot(when="momentum")},
    modifiers=(DECAY,),
)
def rmsprop(
    p: Any,
    g: Any,
    square_avg: Any,
    grad_avg: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
) -> tuple[Any, ...]:
    r"""RMSprop; centred, it divides by the running standard deviation (Graves, arXiv:1308.0850).

    .. math::
        v_t = \alpha v_{t-1} + (1-\alpha) g_t^2, \quad
        \bar g_t = \alpha \bar g_{t-1} + (1-\alpha) g_t, \quad
        b_t = \mu b_{t-1} + \frac{g_t}{\sqrt{v_t - \bar g_t^2} + \epsilon}, \quad
        \Delta_t = -\eta b_t

    without :math:`\bar g_t` unless centred, and :math:`\mu = 0` without momentum.
    """
    square_avg = ema(square_avg, g * g, alpha)
    variance = square_avg
    if centered:
        grad_avg = ema(grad_avg, g, alpha)
        variance = square_avg - grad_avg * grad_avg
    direction = g / (sqrt(variance) + eps)
    if momentum_buffer is not None:
        direction = momentum_buffer = momentum * momentum_buffer + direction
    return -lr * direction, square_avg, grad_avg, momentum_buffer
