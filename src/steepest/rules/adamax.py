"""Adamax: Adam in the infinity norm."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, maximum
from steepest.rules._rule import rule
from steepest.rules.modifiers import DECAY

__all__ = ["adamax"]


@rule(
    paper="arXiv:1412.6980",
    modifiers=(DECAY,),
    choices={"eps_mode": ("maximum", "outside")},
)
def adamax(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_inf: Any,
    t: Any,
    *,
    lr: float = 2e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    eps_mode: str = "maximum",
) -> tuple[Any, ...]:
    r"""Adamax (section 7.1 of the paper), with torch's ε inside the maximum.

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad
        u_t = \max(\beta_2 u_{t-1}, |g_t| + \epsilon), \quad
        \Delta_t = -\frac{\eta}{1-\beta_1^t} \frac{m_t}{u_t}

    ``eps_mode="outside"`` has :math:`u_t + \epsilon` in the denominator instead (Keras).
    """
    exp_avg = ema(exp_avg, g, beta1)
    if eps_mode == "outside":
        exp_inf = maximum(beta2 * exp_inf, abs(g))
        return -lr / (1 - beta1**t) * exp_avg / (exp_inf + eps), exp_avg, exp_inf
    exp_inf = maximum(beta2 * exp_inf, abs(g) + eps)
    return -lr / (1 - beta1**t) * exp_avg / exp_inf, exp_avg, exp_inf
