"""Signum: the sign of the momentum; without momentum it is signSGD."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import ema, sign
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import DECOUPLED

__all__ = ["signum"]


@rule(
    paper="arXiv:1802.04434",
    slots={"momentum_buffer": Slot(when="momentum")},
    modifiers=(DECOUPLED,),
)
def signum(
    p: Any,
    g: Any,
    momentum_buffer: Any,
    t: Any,
    *,
    lr: float = 1e-3,
    momentum: float = 0.9,
) -> tuple[Any, ...]:
    r"""Signum (algorithm 2 of the paper); its decay stands beside the sign.

    .. math::
        m_t = \mu m_{t-1} + (1-\mu) g_t, \qquad \Delta_t = -\eta \operatorname{sign}(m_t)
    """
    if momentum_buffer is None:
        return -lr * sign(g), None
    momentum_buffer = ema(momentum_buffer, g, momentum)
    return -lr * sign(momentum_buffer), momentum_buffer
