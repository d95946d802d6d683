"""LARS: SGD with momentum whose rate is set per layer by the norms of weights and gradient."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import norm, where
from steepest.rules._rule import Slot, rule
from steepest.rules._trust import trust_ratio

__all__ = ["lars"]


@rule(
    paper="arXiv:1708.03888",
    kind="norms",
    slots={"momentum_buffer": Slot(when="momentum")},
    choices={
        "adapt": ("always", "decayed"),
        "lr_place": ("buffer", "step"),
        "ratio": ("separate", "joint"),
    },
)
def lars(
    p: Any,
    g: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    trust_coefficient: float = 1e-3,
    eps: float = 0.0,
    nesterov: bool = False,
    adapt: str = "always",
    lr_place: str = "buffer",
    ratio: str = "separate",
) -> tuple[Any, ...]:
    r"""LARS (algorithm 1); the decay is part of what is rescaled.

    .. math::
        \eta_t = \eta\, \kappa \frac{|p|}{|g_t| + \lambda |p| + \epsilon}, \quad
        b_t = \mu b_{t-1} + \eta_t (g_t + \lambda p), \quad
        \Delta_t = -b_t

    with the ratio 1 where a norm is 0. ``ratio="joint"`` divides by
    :math:`|g_t + \lambda p| + \epsilon` (optax), ``lr_place="step"`` keeps η out of the buffer, and
    ``adapt="decayed"`` has the ratio, κ included, only where λ > 0 (both as timm and apex).
    """
    decayed = g + weight_decay * p
    alive = norm(decayed) if ratio == "joint" else norm(g)
    size = alive if ratio == "joint" else alive + weight_decay * norm(p)
    trust = trust_ratio(norm(p), size + eps, scale=trust_coefficient, alive=alive)
    if adapt == "decayed":
        trust = where(weight_decay > 0, trust, 1.0)
    u = trust * decayed
    if lr_place == "buffer":
        u, lr = lr * u, 1.0
    if momentum_buffer is None:
        return -lr * u, None
    momentum_buffer = momentum * momentum_buffer + u
    return -lr * (u + momentum * momentum_buffer if nesterov else momentum_buffer), momentum_buffer
