"""ASGD: stochastic gradient descent whose iterates are averaged (Polyak & Juditsky)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.rules._ops import maximum
from steepest.rules._rule import Slot, rule
from steepest.rules.modifiers import L2

__all__ = ["asgd"]


def _average(_: Any, slots: Mapping[str, Any], __: Mapping[str, Any]) -> Any:
    return slots["ax"]


@rule(
    paper="https://doi.org/10.1137/0330046",
    slots={"eta": Slot(init="lr", per="tensor"), "mu": Slot(init=1.0, per="tensor")},
    modifiers=(L2,),
    average=_average,
)
def asgd(
    p: Any,
    g: Any,
    eta: Any,
    mu: Any,
    ax: Any,
    t: Any,
    *,
    lr: float = 1e-2,
    lambd: float = 1e-4,
    power: float = 0.75,
    t0: float = 1e6,
) -> tuple[Any, ...]:
    r"""Averaged SGD as torch.optim has it; the average stands in the slot ``ax``.

    .. math::
        \Delta_t = -\eta_t (g_t + \lambda p_t), \quad
        a_{t+1} = a_t + \mu_t (p_{t+1} - a_t), \quad
        \eta_{t+1} = \frac{\eta}{(1 + \lambda \eta t)^{\alpha}}, \quad
        \mu_{t+1} = \frac{1}{\max(1, t - t_0)}
    """
    step = -eta * (g + lambd * p)
    ax = ax + mu * (p + step - ax)
    eta = lr / (1 + lambd * lr * t) ** power
    mu = 1 / maximum(t - t0, 1.0)
    return step, eta, mu, ax
