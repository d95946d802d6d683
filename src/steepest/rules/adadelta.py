"""Adadelta: steps in the units of the parameter."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sqrt
from steepest.rules._rule import rule
from steepest.rules.modifiers import DECAY

__all__ = ["adadelta"]


@rule(paper="arXiv:1212.5701", modifiers=(DECAY,))
def adadelta(
    p: Any,
    g: Any,
    square_avg: Any,
    acc_delta: Any,
    t: Any,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
) -> tuple[Any, ...]:
    r"""Adadelta; the paper's algorithm has η = 1.

    .. math::
        v_t = \rho v_{t-1} + (1-\rho) g_t^2, \quad
        \delta_t = \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\, g_t, \quad
        u_t = \rho u_{t-1} + (1-\rho)\, \delta_t^2, \quad
        \Delta_t = -\eta\, \delta_t
    """
    square_avg = ema(square_avg, g * g, rho)
    delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * g
    return -lr * delta, square_avg, ema(acc_delta, delta * delta, rho)
