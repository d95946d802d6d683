"""AdEMAMix: Adam with a second, very slow average of the gradients beside the fast one."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, exp, log, maximum, minimum, sqrt
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECOUPLED

__all__ = ["ademamix"]


@rule(
    paper="arXiv:2409.03137",
    slots={"exp_avg_fast": Slot(when="beta1")},
    modifiers=(DECOUPLED,),
)
def ademamix(
    p: Any,
    g: Any,
    exp_avg_fast: Any,
    exp_avg_slow: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    beta3: float = 0.9999,
    alpha_slow: float = 2.0,
    alpha_warmup: float = 0.0,
    beta3_warmup: float = 0.0,
    eps: float = 1e-8,
) -> tuple[Any, ...]:
    r"""AdEMAMix; the slow average is not corrected for its start at zero.

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad
        s_t = \beta_3(t)\, s_{t-1} + (1-\beta_3(t)) g_t, \quad
        \Delta_t = -\eta \frac{m_t / (1-\beta_1^t) + \alpha(t)\, s_t}
                              {\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    With :math:`\tau = \min(t/T, 1)` the weight warms up as :math:`\alpha(t) = \tau\alpha`, and the
    coefficient from :math:`\beta_1`, with the inverse of its logarithm linear in τ:
    :math:`1/\ln \beta_3(t) = (1-\tau)/\ln \beta_1 + \tau/\ln \beta_3`. A warmup of 0 steps is none.
    """
    alpha = alpha_slow * minimum(t / maximum(alpha_warmup, 1.0), 1.0)
    warm = minimum(t / maximum(beta3_warmup, 1.0), 1.0)
    beta_slow = exp(1 / ((1 - warm) / log(beta1) + warm / log(beta3)))
    fast = g
    if exp_avg_fast is not None:
        exp_avg_fast = ema(exp_avg_fast, g, beta1)
        fast = exp_avg_fast / (1 - beta1**t)
    exp_avg_slow = ema(exp_avg_slow, g, beta_slow)
    exp_avg_sq = ema(exp_avg_sq, g * g, beta2)
    step = -lr * (fast + alpha * exp_avg_slow) / (sqrt(exp_avg_sq / (1 - beta2**t)) + eps)
    return step, exp_avg_fast, exp_avg_slow, exp_avg_sq
