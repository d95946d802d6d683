"""Muon: momentum made orthogonal, for the matrices inside a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steepest.rules._newton_schulz import COEFFICIENTS, orthogonalised
from steepest.rules._ops import ema
from steepest.rules._rule import rule
from steepest.rules.modifiers import DECOUPLED

__all__ = ["muon"]


def _scale(rows: int, columns: int, adjust_lr_fn: str) -> float:
    if adjust_lr_fn == "original":
        return float(max(1.0, rows / columns) ** 0.5)
    if adjust_lr_fn == "match_rms_adamw":
        return float(0.2 * max(rows, columns) ** 0.5)
    if adjust_lr_fn == "rms_to_rms":
        return float((rows / columns) ** 0.5)
    return 1.0


def _coefficients(given: Any) -> tuple[Any, ...]:
    """A table by its name, or the three numbers of every step themselves."""
    return COEFFICIENTS[given] if isinstance(given, str) else (given,)


@rule(
    paper="https://kellerjordan.github.io/posts/muon/",
    kind="matrix",
    modifiers=(replace(DECOUPLED, hyperparameters={"weight_decay": 0.1}),),
    choices={
        "adjust_lr_fn": ("original", "match_rms_adamw", "rms_to_rms", "none"),
        "ns_coefficients": tuple(COEFFICIENTS),
    },
    auxiliary="adamw",
)
def muon(
    p: Any,
    g: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    momentum: float = 0.95,
    eps: float = 1e-7,
    ns_steps: float = 5.0,
    nesterov: bool = True,
    adjust_lr_fn: str = "original",
    ns_coefficients: str = "original",
    correct_bias: bool = False,
) -> tuple[Any, ...]:
    r"""Muon; NS: Newton-Schulz steps, for matrices of m rows and n columns.

    .. math::
        b_t = \mu b_{t-1} + (1-\mu) g_t, \quad
        \Delta_t = -\eta\, s(m, n) \operatorname{NS}(\mu b_t + (1-\mu) g_t)

    without Nesterov :math:`\operatorname{NS}(b_t)`. As the result does not depend on the length of
    what is orthogonalised, the buffer :math:`\mu b + g` of other implementations gives the same.

    * ``adjust_lr_fn``: s is :math:`\sqrt{\max(1, m/n)}` (``original``, Keller Jordan),
      :math:`0.2\sqrt{\max(m, n)}` (``match_rms_adamw``, Moonshot, arXiv:2502.16982),
      :math:`\sqrt{m/n}` (``rms_to_rms``, arXiv:2502.07529), or 1.
    * ``ns_coefficients``: a table in ``rules/_newton_schulz.py``, or the
      three numbers themselves.
    * ``correct_bias``: :math:`\mu b_t / (1-\mu^{t+1}) + (1-\mu) g_t / (1-\mu^t)` is what becomes
      orthogonal (optax), which leans on the gradient a little more in the first steps.

    torch.optim.Muon runs the Newton-Schulz steps in bfloat16; here they have the gradient's dtype.
    """
    momentum_buffer = ema(momentum_buffer, g, momentum)
    ahead = momentum_buffer
    if nesterov and correct_bias:
        now, next_ = 1 - momentum**t, 1 - momentum ** (t + 1)
        ahead = ema(momentum_buffer / next_, g / now, momentum)
    elif nesterov:
        ahead = ema(momentum_buffer, g, momentum)
    direction = orthogonalised(ahead, int(ns_steps), eps, _coefficients(ns_coefficients))
    rows, columns = g.shape[-2:]
    return -lr * _scale(rows, columns, adjust_lr_fn) * direction, momentum_buffer
