"""Prodigy: Adam that estimates its own learning rate from how far it has come."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, maximum, minimum, sqrt, total, where
from steepest.rules._rule import Slot, rule

__all__ = ["prodigy"]


def _rate(d: Any, t: Any, *, lr: Any, beta1: Any, beta2: Any, use_bias_correction: bool) -> Any:
    correction = sqrt(1 - beta2**t) / (1 - beta1**t) if use_bias_correction else 1.0
    return d * lr * correction


def _beta3(beta3: Any, beta2: Any) -> Any:
    return where(beta3 > 0, beta3, sqrt(beta2))


def _sums(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    s: Any,
    p0: Any,
    d: Any,
    d_max: Any,
    d_numerator: Any,
    t: Any,
    *,
    lr: Any,
    beta1: Any,
    beta2: Any,
    beta3: Any,
    weight_decay: Any,
    decay: str,
    d0: Any,
    use_bias_correction: bool,
    safeguard_warmup: bool,
) -> tuple[Any, ...]:
    """The numerator's and the denominator's share of one tensor."""
    if decay == "l2":
        g = g + weight_decay * p
    rate = _rate(d, t, lr=lr, beta1=beta1, beta2=beta2, use_bias_correction=use_bias_correction)
    s = _beta3(beta3, beta2) * s + d / d0 * (d if safeguard_warmup else rate) * g
    return d / d0 * rate * total(g * (p0 - p)), total(abs(s))


@rule(
    paper="arXiv:2306.06101",
    kind="norms",
    slots={
        "exp_avg": Slot(when="beta1"),
        "p0": Slot(init="p"),
        "d": Slot(init="d0", per="all"),
        "d_max": Slot(init="d0", per="all"),
        "d_numerator": Slot(per="all"),
    },
    choices={"decay": ("decoupled", "l2")},
    sums=_sums,
)
def prodigy(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    s: Any,
    p0: Any,
    d: Any,
    d_max: Any,
    d_numerator: Any,
    t: Any,
    *,
    totals: tuple[Any, Any],
    lr: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    beta3: float = 0.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay: str = "decoupled",
    d0: float = 1e-6,
    d_coef: float = 1.0,
    growth_rate: float = float("inf"),
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
) -> tuple[Any, ...]:
    r"""Prodigy (algorithm 4), as the authors' code has it; η stays 1 and d is the rate.

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1)\, d_t g_t, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2)\, d_t^2 g_t^2, \quad
        \Delta_t = -\eta\, d_t \frac{m_t}{\sqrt{v_t} + d_{t+1} \epsilon}

    .. math::
        r_t = \beta_3 r_{t-1} + \tfrac{\eta d_t^2}{d_0} \langle g_t, p_0 - p_t \rangle, \quad
        s_t = \beta_3 s_{t-1} + \tfrac{\eta d_t^2}{d_0} g_t, \quad
        d_{t+1} = \max\left(d_t, c\, \frac{r_t}{|s_t|_1}\right)

    with the scalar product and the 1-norm over *all* parameters. ``beta3=0`` means
    :math:`\sqrt{\beta_2}`. The paper's ε has :math:`d_t`; the code's, followed here, the new d.
    """
    if decay == "l2":
        g = g + weight_decay * p
    rate = _rate(d, t, lr=lr, beta1=beta1, beta2=beta2, use_bias_correction=use_bias_correction)
    slow = _beta3(beta3, beta2)
    numerator, denominator = totals
    d_numerator = slow * d_numerator + numerator
    alive = denominator > 0
    d_hat = where(alive, d_coef * d_numerator / where(alive, denominator, 1.0), d)
    d_max = maximum(d_max, d_hat)
    d_next = minimum(d_max, where(d == d0, maximum(d, d_hat), d) * growth_rate)

    s = slow * s + d / d0 * (d if safeguard_warmup else rate) * g
    exp_avg_sq = ema(exp_avg_sq, d * d * g * g, beta2)
    direction = d * g
    if exp_avg is not None:
        exp_avg = direction = ema(exp_avg, d * g, beta1)
    step = -rate * direction / (sqrt(exp_avg_sq) + d_next * eps)
    if decay == "decoupled":
        step = step - rate * weight_decay * p
    return step, exp_avg, exp_avg_sq, s, p0, d_next, d_max, d_numerator
