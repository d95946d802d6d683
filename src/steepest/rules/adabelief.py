"""AdaBelief: Adam that divides by how far the gradient lies from its own average."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, maximum, where
from steepest.rules._rule import Slot, rule
from steepest.rules._second_moment import root
from steepest.rules.modifiers import DECOUPLED
from steepest.rules.radam import rectification

__all__ = ["adabelief"]


@rule(
    paper="arXiv:2010.07468",
    slots={"max_exp_avg_var": Slot(when="amsgrad")},
    modifiers=(DECOUPLED,),
)
def adabelief(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_var: Any,
    max_exp_avg_var: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-16,
    amsgrad: bool = False,
    rectify: bool = False,
) -> tuple[Any, ...]:
    r"""AdaBelief; ε is added in the average, where it adds up, and once more outside of the root.

    .. math::
        s_t = \beta_2 s_{t-1} + (1-\beta_2) (g_t - m_t)^2 + \epsilon, \qquad
        \Delta_t = -\eta \frac{m_t / (1-\beta_1^t)}{\sqrt{s_t / (1-\beta_2^t)} + \epsilon}

    ``rectify`` (the default of the authors' package, not of the paper) multiplies by the factor
    of RAdam, and has ε as RAdam has it.
    """
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_var = variance = ema(exp_avg_var, (g - exp_avg) * (g - exp_avg), beta2) + eps
    if amsgrad:
        max_exp_avg_var = variance = maximum(max_exp_avg_var, exp_avg_var)
    m_hat = exp_avg / (1 - beta1**t)
    if rectify:
        tractable, factor = rectification(t, beta2)
        adaptive = factor / root(variance, eps, eps_mode="hat", correction=1 - beta2**t)
        step = -lr * m_hat * where(tractable, adaptive, 1.0)
    else:
        step = -lr * m_hat / root(variance, eps, eps_mode="outside", correction=1 - beta2**t)
    return step, exp_avg, exp_avg_var, max_exp_avg_var
