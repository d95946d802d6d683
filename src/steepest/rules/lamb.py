"""LAMB: Adam whose step is as long as the layer's weights tell it to be."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, minimum, norm, sqrt, where
from steepest.rules._rule import rule
from steepest.rules._trust import trust_ratio

__all__ = ["lamb"]


@rule(
    paper="arXiv:1904.00962",
    kind="norms",
    choices={"adapt": ("always", "decayed")},
)
def lamb(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 1e-2,
    adapt: str = "always",
    trust_clip: bool = False,
) -> tuple[Any, ...]:
    r"""LAMB (algorithm 2, with φ the identity); the decay is part of what is rescaled.

    .. math::
        r_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda p, \qquad
        \Delta_t = -\eta \frac{|p|}{|r_t|}\, r_t

    with the ratio 1 where one of the norms is 0. ``trust_clip`` keeps it at 1 at most (LAMBC).
    ``adapt="decayed"`` has it only where λ > 0 (timm, whose default also clips the global norm of
    the gradients at 1: ``clip_global_norm(lamb)``).
    """
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_sq = ema(exp_avg_sq, g * g, beta2)
    m_hat = exp_avg / (1 - beta1**t)
    v_hat = exp_avg_sq / (1 - beta2**t)
    r = m_hat / (sqrt(v_hat) + eps) + weight_decay * p
    trust = trust_ratio(norm(p), norm(r))
    if trust_clip:
        trust = minimum(trust, 1.0)
    if adapt == "decayed":
        trust = where(weight_decay > 0, trust, 1.0)
    return -lr * trust * r, exp_avg, exp_avg_sq
