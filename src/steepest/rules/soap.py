"""SOAP: Adam in the eigenbasis of Shampoo's second moments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steepest.rules._ops import descending, eigh, ema, orthonormal, sort_columns, sqrt, transpose
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECOUPLED

__all__ = ["soap"]


def _basis(moment: Any) -> Any:
    """The eigenvectors, the largest eigenvalue's first."""
    values, vectors = eigh(moment)
    return sort_columns(vectors, descending(values), -1)


def _turned(moment: Any, basis: Any) -> tuple[Any, Any]:
    """One step of the power iteration, and the order in which the old basis went into it."""
    towards = moment @ basis
    order = descending((basis * towards).sum(-2))
    return orthonormal(sort_columns(towards, order, -1)), order


@rule(
    paper="arXiv:2409.11321",
    kind="matrix",
    slots={
        "GG_0": Slot(per="left"),
        "GG_1": Slot(per="right"),
        "Q_0": Slot(per="left"),
        "Q_1": Slot(per="right"),
    },
    modifiers=(replace(DECOUPLED, hyperparameters={"weight_decay": 1e-2}),),
    auxiliary="adamw",
)
def soap(
    p: Any,
    g: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    GG_0: Any,
    GG_1: Any,
    Q_0: Any,
    Q_1: Any,
    t: Any,
    *,
    lr: float = 3e-3,
    beta1: float = 0.95,
    beta2: float = 0.95,
    shampoo_beta: float = 0.95,
    eps: float = 1e-8,
    precondition_frequency: float = 10.0,
    correct_bias: bool = True,
) -> tuple[Any, ...]:
    r"""SOAP (algorithm 3), for matrices; the first step only measures and moves nothing.

    .. math::
        \tilde g_t = Q_L^T g_t Q_R, \quad
        \tilde m_t = Q_L^T m_t Q_R, \quad
        v_t = \beta_2 v_{t-1} + (1-\beta_2)\, \tilde g_t^2, \quad
        \Delta_t = -\eta\, Q_L \frac{\tilde m_t / (1-\beta_1^{t-1})}
                                   {\sqrt{v_t / (1-\beta_2^{t-1})} + \hat\epsilon}\, Q_R^T

    .. math::
        L_t = \beta_s L_{t-1} + (1-\beta_s)\, g_t g_t^T, \quad
        R_t = \beta_s R_{t-1} + (1-\beta_s)\, g_t^T g_t

    :math:`Q_L, Q_R` are the eigenvectors of L and R after the first step; then, every
    ``precondition_frequency`` steps, :math:`Q \leftarrow \operatorname{qr}(LQ)` with the columns in
    the order of their eigenvalues. ``correct_bias`` has ε where the authors have it, ``hat``.
    """
    GG_0 = ema(GG_0, g @ transpose(g), shampoo_beta)
    GG_1 = ema(GG_1, transpose(g) @ g, shampoo_beta)
    taken = int(t) - 1
    if taken == 0:
        return 0.0 * g, exp_avg, exp_avg_sq, GG_0, GG_1, _basis(GG_0), _basis(GG_1)

    projected = transpose(Q_0) @ g @ Q_1
    exp_avg = ema(exp_avg, g, beta1)
    exp_avg_sq = ema(exp_avg_sq, projected * projected, beta2)
    rate = lr
    if correct_bias:
        rate = lr * sqrt(1 - beta2**taken) / (1 - beta1**taken)
    direction = (transpose(Q_0) @ exp_avg @ Q_1) / (sqrt(exp_avg_sq) + eps)
    step = -rate * (Q_0 @ direction @ transpose(Q_1))

    if taken % int(precondition_frequency) == 0:
        Q_0, rows = _turned(GG_0, Q_0)
        Q_1, columns = _turned(GG_1, Q_1)
        exp_avg_sq = sort_columns(sort_columns(exp_avg_sq, rows, -2), columns, -1)
    return step, exp_avg, exp_avg_sq, GG_0, GG_1, Q_0, Q_1
