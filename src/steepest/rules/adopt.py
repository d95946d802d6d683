"""ADOPT: Adam whose gradient is divided by the second moment of the steps before it."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, maximum, minimum, sqrt, where
from steepest.rules._rule import rule
from steepest.rules.modifiers import DECAY

__all__ = ["adopt"]


@rule(paper="arXiv:2411.02853", modifiers=(DECAY,))
def adopt(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.9999,
    eps: float = 1e-6,
    clip_exponent: float = 0.25,
    clip: bool = True,
) -> tuple[Any, ...]:
    r"""ADOPT; the first step only measures: :math:`v_1 = g_1^2`, :math:`\Delta_1 = 0`.

    .. math::
        u_t = \frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)}, \quad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) \operatorname{clip}(u_t, \pm (t-1)^{1/4}), \quad
        \Delta_t = -\eta\, m_t, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2

    ``clip_exponent`` is the 1/4; timm has 0.333. ``clip=False`` is algorithm 1, without the
    clipping of algorithm 2. An L2 penalty is the default of the authors' code; a decoupled decay
    acts in the first step too, where that code has none.
    """
    first = t == 1
    normed = g / maximum(sqrt(exp_avg_sq), eps)
    if clip:
        limit = (t - 1) ** clip_exponent
        normed = minimum(maximum(normed, -limit), limit)
    exp_avg = where(first, exp_avg, ema(exp_avg, normed, beta1))
    exp_avg_sq = where(first, g * g, ema(exp_avg_sq, g * g, beta2))
    return -lr * exp_avg, exp_avg, exp_avg_sq
