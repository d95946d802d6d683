"""Shampoo: the gradient between the roots of its own second moments, left and right."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import eigh, ema, maximum, transpose
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECAY

__all__ = ["shampoo"]


def _inverse_root(x: Any, power: Any, eps: Any) -> Any:
    r""":math:`(x + \epsilon I)^{-1/q}` of symmetric, positive semi-definite matrices."""
    values, vectors = eigh(x)
    roots = (maximum(values, 0.0) + eps) ** (-1 / power)
    return (vectors * roots[..., None, :]) @ transpose(vectors)


@rule(
    paper="arXiv:1802.09568",
    kind="matrix",
    slots={
        "precond_0": Slot(per="left"),
        "precond_1": Slot(per="right"),
        "inv_precond_0": Slot(per="left"),
        "inv_precond_1": Slot(per="right"),
        "momentum_buffer": Slot(when="momentum"),
    },
    modifiers=(DECAY,),
    auxiliary="adagrad",
)
def shampoo(
    p: Any,
    g: Any,
    precond_0: Any,
    precond_1: Any,
    inv_precond_0: Any,
    inv_precond_1: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1e-1,
    momentum: float = 0.0,
    eps: float = 1e-4,
    root: float = 4.0,
    update_freq: float = 1.0,
) -> tuple[Any, ...]:
    r"""Shampoo (algorithm 1), for matrices.

    .. math::
        L_t = L_{t-1} + g_t g_t^T, \quad
        R_t = R_{t-1} + g_t^T g_t, \quad
        \Delta_t = -\eta\, (L_t + \epsilon I)^{-1/4}\, g_t\, (R_t + \epsilon I)^{-1/4}

    The roots are taken at the first of every ``update_freq`` steps. ``root=2`` has -1/2 for -1/4
    (torch_optimizer's reading, and the exponent that Distributed Shampoo lets one choose). Momentum
    is an average of the gradients on the way to the product; the sums see the gradient itself.
    """
    precond_0 = precond_0 + g @ transpose(g)
    precond_1 = precond_1 + transpose(g) @ g
    if (int(t) - 1) % int(update_freq) == 0:
        inv_precond_0 = _inverse_root(precond_0, root, eps)
        inv_precond_1 = _inverse_root(precond_1, root, eps)
    if momentum_buffer is not None:
        g = momentum_buffer = ema(momentum_buffer, g, momentum)
    step = -lr * (inv_precond_0 @ g @ inv_precond_1)
    return step, precond_0, precond_1, inv_precond_0, inv_precond_1, momentum_buffer
