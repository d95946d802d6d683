"""Lion: the sign of an interpolated momentum, found by program search."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sign
from steepest.rules._rule import rule
from steepest.rules.modifiers import DECOUPLED

__all__ = ["lion"]


@rule(paper="arXiv:2302.06675", modifiers=(DECOUPLED,))
def lion(
    p: Any,
    g: Any,
    exp_avg: Any,
    t: Any,
    *,
    lr: float = 1e-4,
    beta1: float = 0.9,
    beta2: float = 0.99,
) -> tuple[Any, ...]:
    r"""Lion (algorithm 2 of the paper): every element moves by η, whatever its gradient's size.

    .. math::
        \Delta_t = -\eta \operatorname{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t), \qquad
        m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t
    """
    return -lr * sign(ema(exp_avg, g, beta1)), ema(exp_avg, g, beta2)
