"""RMSprop: the gradient over the root of its running mean square."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema
from steepest.rules._rule import Slot, rule
from steepest.rules._second_moment import root
from steepest.rules.modifiers import DECAY

__all__ = ["rmsprop"]


@rule(
    paper="https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
    slots={
        "square_avg": Slot(init="initial_accumulator_value"),
        "grad_avg": Slot(when="centered"),
        "momentum_buffer": Slot(when="momentum"),
    },
    modifiers=(DECAY,),
    choices={"eps_mode": ("outside", "inside"), "lr_place": ("step", "buffer")},
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
    initial_accumulator_value: float = 0.0,
    centered: bool = False,
    eps_mode: str = "outside",
    lr_place: str = "step",
) -> tuple[Any, ...]:
    r"""RMSprop; centred, it divides by the running standard deviation (Graves, arXiv:1308.0850).

    .. math::
        v_t = \alpha v_{t-1} + (1-\alpha) g_t^2, \quad
        \bar g_t = \alpha \bar g_{t-1} + (1-\alpha) g_t, \quad
        b_t = \mu b_{t-1} + \frac{g_t}{\sqrt{v_t - \bar g_t^2} + \epsilon}, \quad
        \Delta_t = -\eta b_t

    without :math:`\bar g_t` unless centred, and :math:`\mu = 0` without momentum.

    ``eps_mode="inside"`` has ε under the root (Keras, optax, TensorFlow, which began with
    :math:`v_0 = 1`). ``lr_place="buffer"`` has η inside the momentum, so that a change of the rate
    does not touch the steps that are already in it (Keras, optax, TensorFlow).
    """
    square_avg = ema(square_avg, g * g, alpha)
    variance = square_avg
    if centered:
        grad_avg = ema(grad_avg, g, alpha)
        variance = square_avg - grad_avg * grad_avg
    direction = g / root(variance, eps, eps_mode=eps_mode)
    if momentum_buffer is None:
        return -lr * direction, square_avg, grad_avg, None
    if lr_place == "buffer":
        momentum_buffer = momentum * momentum_buffer + lr * direction
        return -momentum_buffer, square_avg, grad_avg, momentum_buffer
    momentum_buffer = momentum * momentum_buffer + direction
    return -lr * momentum_buffer, square_avg, grad_avg, momentum_buffer
