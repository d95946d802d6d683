"""Schedule-free SGD and AdamW: an average of the iterates instead of a falling rate.

The gradient is taken at ``y``, which is what stands in the parameter. ``z`` is the plain iterate, a
slot. ``x``, the average of the z, is what to evaluate: `Rule.averaged` recovers it from both. The
weights of the average are summed per tensor; the authors' package sums them per group, so that a
tensor whose gradient is missing for a step gets another average there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.errors import InputError
from steepest.rules._ops import ema, maximum, minimum, sqrt
from steepest.rules._rule import Slot, rule

__all__ = ["schedulefree_adamw", "schedulefree_sgd"]

_SLOTS = {
    "z": Slot(init="p"),
    "weight_sum": Slot(per="tensor"),
    "lr_max": Slot(per="tensor"),
}


def _x(y: Any, z: Any, beta: Any) -> Any:
    """The x of y = (1 - beta) z + beta x."""
    if isinstance(beta, (int, float)) and beta == 0:
        raise InputError(
            "schedule-free: with a coefficient of 0 the parameter is z itself, and the average "
            "cannot be recovered from it; choose momentum or beta1 in (0, 1)"
        )
    return y + (1 - 1 / beta) * (z - y)


def _sgd_average(p: Any, slots: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return _x(p, slots["z"], values["momentum"])


def _adamw_average(p: Any, slots: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return _x(p, slots["z"], values["beta1"])


def _moved(
    y: Any,
    u: Any,
    z: Any,
    weight_sum: Any,
    lr_max: Any,
    t: Any,
    *,
    lr: Any,
    beta: Any,
    r: Any,
    weight_lr_power: Any,
) -> tuple[Any, ...]:
    """One step along -u, for whatever u the inner optimizer has."""
    lr_max = maximum(lr_max, lr)
    weight = t**r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    c = weight / maximum(weight_sum, 1e-38)  # a rate of zero so far gives no weight at all
    step = c * (z - y) + lr * (beta * (1 - c) - 1) * u
    return step, z - lr * u, weight_sum, lr_max


@rule(paper="arXiv:2405.15682", slots=_SLOTS, average=_sgd_average)
def schedulefree_sgd(
    p: Any,
    g: Any,
    z: Any,
    weight_sum: Any,
    lr_max: Any,
    t: Any,
    *,
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    warmup_steps: float = 0.0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
) -> tuple[Any, ...]:
    r"""Schedule-free SGD; decay is an L2 penalty at y.

    .. math::
        u_t = g(y_t) + \lambda y_t, \quad
        z_{t+1} = z_t - \eta_t u_t, \quad
        x_{t+1} = (1-c_t) x_t + c_t z_{t+1}, \quad
        y_{t+1} = (1-\beta) z_{t+1} + \beta x_{t+1}, \quad
        c_t = \frac{w_t}{\sum_{i \le t} w_i}, \quad
        w_t = t^r (\max_{i \le t} \eta_i)^p

    with the rate η warming up linearly over ``warmup_steps``.
    """
    lr = lr * minimum(t / maximum(warmup_steps, 1.0), 1.0)
    return _moved(
        p,
        g + weight_decay * p,
        z,
        weight_sum,
        lr_max,
        t,
        lr=lr,
        beta=momentum,
        r=r,
        weight_lr_power=weight_lr_power,
    )


@rule(
    paper="arXiv:2405.15682",
    slots=_SLOTS,
    average=_adamw_average,
    choices={"correction": ("denominator", "rate")},
)
def schedulefree_adamw(
    p: Any,
    g: Any,
    z: Any,
    weight_sum: Any,
    lr_max: Any,
    exp_avg_sq: Any,
    t: Any,
    *,
    lr: float = 2.5e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: float = 0.0,
    r: float = 0.0,
    weight_lr_power: float = 2.0,
    correction: str = "denominator",
) -> tuple[Any, ...]:
    r"""Schedule-free AdamW: as `schedulefree_sgd`, with Adam's denominator under the gradient.

    .. math::
        v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \qquad
        u_t = \frac{g_t}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda y_t

    ``correction="rate"`` is algorithm 1 of the paper (and the package before version 1.3): the
    root of :math:`1-\beta_2^t` multiplies the rate, and with it the weights and the decay.
    """
    lr = lr * minimum(t / maximum(warmup_steps, 1.0), 1.0)
    exp_avg_sq = second = ema(exp_avg_sq, g * g, beta2)
    if correction == "rate":
        lr = lr * sqrt(1 - beta2**t)
    else:
        second = exp_avg_sq / (1 - beta2**t)
    u = g / (sqrt(second) + eps) + weight_decay * p
    step, *moved = _moved(
        p,
        u,
        z,
        weight_sum,
        lr_max,
        t,
        lr=lr,
        beta=beta1,
        r=r,
        weight_lr_power=weight_lr_power,
    )
    return step, *moved, exp_avg_sq
