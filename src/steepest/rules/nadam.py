"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sqrt
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECAY

__all__ = ["nadam"]


@rule(
    paper="https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
    slots={"mu_product": Slot(init=1.0, per="tensor")},
    modifiers=(DECAY,),
    choices={"momentum_schedule": ("warming", "constant", "mlcommons")},
)
def nadam(
    p: Any,
    g: Any,
    mu_product: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 2e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    momentum_schedule: str = "warming",
) -> tuple[Any, ...]:
    r"""NAdam with the warming momentum :math:`\mu_t = \beta_1 (1 - \tfrac12 0.96^{t\psi})`.

    .. math::
        \hat m_t = \frac{\mu_{t+1} m_t}{1 - \prod_{i \le t+1} \mu_i}
                 + \frac{(1-\mu_t) g_t}{1 - \prod_{i \le t} \mu_i}, \qquad
        \Delta_t = -\eta \frac{\hat m_t}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    ``momentum_schedule="constant"`` has :math:`\mu_t = \beta_1` (optax); ``mlcommons`` has it too
    and divides both terms by :math:`1 - \beta_1^t` (NAdamW of AlgoPerf and timm). Keras's Nadam is
    the warming one with ψ = ``momentum_decay`` = 1, which is warm after some hundred steps.
    """
    mu = mu_next = beta1
    if momentum_schedule == "warming":
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_sq = ema(exp_avg_sq, g * g, beta2)
    later = mu_product if momentum_schedule == "mlcommons" else mu_product * mu_next
    m_hat = mu_next / (1 - later) * exp_avg + (1 - mu) / (1 - mu_product) * g
    v_hat = exp_avg_sq / (1 - beta2**t)
    return -lr * m_hat / (sqrt(v_hat) + eps), mu_product, exp_avg, exp_avg_sq
