"""Adafactor: a second moment kept as its rows' and columns' means, and steps relative to p."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import (
    column_mean,
    ema,
    matrix_mean,
    maximum,
    mean,
    minimum,
    row_mean,
    sqrt,
)
from steepest.rules._rule import Slot, rule

__all__ = ["adafactor"]


@rule(
    paper="arXiv:1804.04235",
    kind="norms",
    slots={
        "row_var": Slot(per="row", only="matrix"),
        "col_var": Slot(per="column", only="matrix"),
        "variance": Slot(only="vector"),
        "exp_avg": Slot(when="beta1"),
    },
    choices={
        "decay": ("decoupled", "relative"),
        "eps_mode": ("floor", "added"),
        "rate": ("relative", "scaled", "plain"),
    },
)
def adafactor(
    p: Any,
    g: Any,
    row_var: Any,
    col_var: Any,
    variance: Any,
    exp_avg: Any,
    t: Any,
    *,
    lr: float = 1e-2,
    beta1: float = 0.0,
    beta2_decay: float = -0.8,
    eps1: float = 2.0**-23,
    eps2: float = 1e-3,
    d: float = 1.0,
    weight_decay: float = 0.0,
    decay: str = "decoupled",
    eps_mode: str = "floor",
    rate: str = "relative",
) -> tuple[Any, ...]:
    r"""Adafactor; R, C: the averages of the rows' and the columns' mean squares.

    .. math::
        \hat\beta_t = 1 - t^{\gamma}, \quad
        \hat V_t = \frac{R_t C_t}{\operatorname{mean}(R_t)}, \quad
        u_t = \frac{g_t}{\sqrt{\hat V_t}}, \quad
        \hat u_t = \frac{u_t}{\max(1, \operatorname{rms}(u_t)/d)}, \quad
        \Delta_t = -\max(\epsilon_2, \operatorname{rms}(p))\,\min(\eta, t^{-1/2})\, \hat u_t

    A vector keeps its whole second moment. For more than two axes the last two are factored.

    * ``eps_mode``: ``floor``, :math:`\hat V` is at least :math:`\epsilon_1^2` and mean(R) at least
      :math:`\epsilon_1`; ``added``, the paper's :math:`g^2 + \epsilon_1` with
      :math:`\epsilon_1 = 10^{-30}` (transformers, Keras, optax).
    * ``rate``: ``relative``, as above; ``scaled``, η instead of :math:`\min(\eta, t^{-1/2})`;
      ``plain``, η alone (transformers: ``scale_parameter`` and ``relative_step`` off).
    * ``decay``: ``decoupled`` with η (torch), ``relative`` with the whole factor of
      :math:`\hat u` (transformers).
    * ``beta1``: an average of the steps (paper, transformers); torch has none.

    torch's default of :math:`\epsilon_1` is the parameter's own machine epsilon; here it is that of
    float32 for every dtype.
    """
    new = t**beta2_decay
    square = g * g + eps1 if eps_mode == "added" else g * g
    if variance is None:
        row_var = (1 - new) * row_var + new * row_mean(square)
        col_var = (1 - new) * col_var + new * column_mean(square)
        level = matrix_mean(row_var)
        second = row_var * col_var / (maximum(level, eps1) if eps_mode == "floor" else level)
    else:
        variance = second = (1 - new) * variance + new * square
    u = g / sqrt(maximum(second, eps1 * eps1) if eps_mode == "floor" else second)
    alpha = lr if rate != "relative" else minimum(lr, t**-0.5)
    if rate != "plain":
        alpha = alpha * maximum(sqrt(mean(p * p)), eps2)
    u = alpha * u / maximum(sqrt(mean(u * u)) / d, 1.0)
    if exp_avg is not None:
        exp_avg = u = ema(exp_avg, u, beta1)
    shrink = (lr if decay == "decoupled" else alpha) * weight_decay
    return -u - shrink * p, row_var, col_var, variance, exp_avg
