"""Adam, AMSGrad, and AdamW, which is Adam with its decay decoupled."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, maximum
from steepest.rules._rule import Slot, rule
from steepest.rules._second_moment import EPS_MODES, root
from steepest.rules.modifiers import DECAY

__all__ = ["adam", "adamw"]


@rule(
    paper="arXiv:1412.6980",
    slots={"max_exp_avg_sq": Slot(when="amsgrad")},
    modifiers=(DECAY,),
    choices={"eps_mode": EPS_MODES, "max_of": ("moment", "corrected")},
)
def adam(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    max_exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    amsgrad: bool = False,
    eps_mode: str = "outside",
    max_of: str = "moment",
) -> tuple[Any, ...]:
    r"""Adam; with ``amsgrad`` the largest second moment so far (Reddi et al., ICLR 2018).

    .. math::
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad
        \Delta_t = -\eta \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    ``eps_mode`` says where ε stands (Keras: ``hat``). ``max_of`` says what AMSGrad takes the
    largest of: the second moment, or that moment after its bias correction (optax).
    """
    correction = 1 - beta2**t
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_sq = second = ema(exp_avg_sq, g * g, beta2)
    if amsgrad and max_of == "corrected":
        max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq / correction)
        second = max_exp_avg_sq * correction
    elif amsgrad:
        max_exp_avg_sq = second = maximum(max_exp_avg_sq, exp_avg_sq)
    m_hat = exp_avg / (1 - beta1**t)
    step = -lr * m_hat / root(second, eps, eps_mode=eps_mode, correction=correction)
    return step, exp_avg, exp_avg_sq, max_exp_avg_sq


adamw = adam.variant(
    "adamw",
    paper="arXiv:1711.05101",
    summary="Adam with decoupled weight decay.",
    weight_decay=1e-2,
    decay="decoupled",
)
