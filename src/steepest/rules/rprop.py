"""Rprop: only the signs of the gradient, with a step size per element."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import maximum, minimum, sign, where
from steepest.rules._rule import Slot, rule

__all__ = ["rprop"]


@rule(
    paper="https://doi.org/10.1109/ICNN.1993.298623",
    slots={"step_size": Slot(init="lr")},
)
def rprop(
    p: Any,
    g: Any,
    prev: Any,
    step_size: Any,
    t: Any,
    *,
    lr: float = 1e-2,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    step_min: float = 1e-6,
    step_max: float = 50.0,
) -> tuple[Any, ...]:
    r"""Rprop without weight backtracking: after a change of sign the element rests one step.

    .. math::
        s_t = \operatorname{clip}\big(s_{t-1} \cdot
            \begin{cases} \eta^+ & g_t g_{t-1} > 0 \\ \eta^- & g_t g_{t-1} < 0 \\ 1 \end{cases},
            s_{\min}, s_{\max}\big), \qquad
        \Delta_t = -s_t \operatorname{sign}(g_t)

    with :math:`g_t \leftarrow 0` after a change of sign.
    """
    agreement = g * prev
    grown, shrunk = step_size * eta_plus, step_size * eta_minus
    step_size = where(agreement > 0, grown, where(agreement < 0, shrunk, step_size))
    step_size = minimum(maximum(step_size, step_min), step_max)
    g = where(agreement < 0, 0.0, g)
    return -step_size * sign(g), g, step_size
