"""Adan: Nesterov's momentum without the extrapolated point, by the gradients' differences."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sqrt, where
from steepest.rules._rule import rule
from steepest.rules.modifiers import PROXIMAL

__all__ = ["adan"]


@rule(
    paper="arXiv:2208.06677",
    modifiers=(PROXIMAL,),
    choices={"difference": ("beta2", "one_minus_beta2")},
)
def adan(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    exp_avg_diff: Any,
    neg_pre_grad: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.98,
    beta2: float = 0.92,
    beta3: float = 0.99,
    eps: float = 1e-8,
    difference: str = "beta2",
) -> tuple[Any, ...]:
    r"""Adan (algorithm 1), with each β the weight of the old, as in the authors' code.

    .. math::
        d_t = g_t - g_{t-1}, \quad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) d_t, \quad
        n_t = \beta_3 n_{t-1} + (1-\beta_3) (g_t + \gamma d_t)^2, \quad
        \Delta_t = -\eta \frac{m_t / (1-\beta_1^t) + \gamma v_t / (1-\beta_2^t)}
                              {\sqrt{n_t / (1-\beta_3^t)} + \epsilon}

    with :math:`d_1 = 0`. The paper writes β for the weight of the *new*, so that its
    :math:`1-\beta_2` is :math:`\gamma = \beta_2` here. ``difference="one_minus_beta2"`` is optax's
    reading, which has :math:`\gamma = 1-\beta_2` after the other conversion.
    """
    gamma = beta2 if difference == "beta2" else 1 - beta2
    diff = where(t == 1, 0.0 * g, g + neg_pre_grad)
    ahead = g + gamma * diff
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_diff = ema(exp_avg_diff, diff, beta2)
    exp_avg_sq = ema(exp_avg_sq, ahead * ahead, beta3)
    momentum = exp_avg / (1 - beta1**t) + gamma / (1 - beta2**t) * exp_avg_diff
    step = -lr * momentum / (sqrt(exp_avg_sq / (1 - beta3**t)) + eps)
    return step, exp_avg, exp_avg_sq, exp_avg_diff, -g
