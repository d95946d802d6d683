"""RAdam: Adam whose adaptive rate waits until its variance is tractable."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sqrt, where
from steepest.rules._rule import rule
from steepest.rules._second_moment import EPS_MODES, root
from steepest.rules.modifiers import DECAY

__all__ = ["radam", "rectification"]


def rectification(t: Any, beta2: Any, threshold: Any = 5.0) -> tuple[Any, Any]:
    """Whether the adaptive rate's variance is tractable yet, and the factor that rectifies it."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    tractable = rho > threshold
    scale = where(tractable, (rho_inf - 4) * (rho_inf - 2) * rho, 1.0)  # 0 at beta2 = 0.6
    return tractable, sqrt((rho - 4) * (rho - 2) * rho_inf / scale)


@rule(paper="arXiv:1908.03265", modifiers=(DECAY,), choices={"eps_mode": EPS_MODES})
def radam(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    threshold: float = 5.0,
    eps_mode: str = "hat",
) -> tuple[Any, ...]:
    r"""RAdam: un-normalised momentum until :math:`\rho_t > 5`, then Adam times :math:`r_t`.

    .. math::
        \rho_\infty = \frac{2}{1-\beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1-\beta_2^t}, \quad
        r_t = \sqrt{\frac{(\rho_t-4)(\rho_t-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho_t}},
        \quad
        \Delta_t = -\eta \hat m_t \begin{cases}
            r_t \sqrt{1-\beta_2^t} / (\sqrt{v_t} + \epsilon) & \rho_t > 5 \\ 1 \end{cases}

    with ε where torch has it, ``hat``; optax has it ``outside``. The paper's threshold is 4.
    """
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_sq = ema(exp_avg_sq, g * g, beta2)
    tractable, factor = rectification(t, beta2, threshold)
    adaptive = factor / root(exp_avg_sq, eps, eps_mode=eps_mode, correction=1 - beta2**t)
    m_hat = exp_avg / (1 - beta1**t)
    return -lr * m_hat * where(tractable, adaptive, 1.0), exp_avg, exp_avg_sq
