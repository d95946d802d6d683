"""Where each hyperparameter may lie: one table for faces, arms, spaces and error messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from steepest.errors import InputError

__all__ = ["DOMAINS", "Domain"]


@dataclass(frozen=True)
class Domain:
    """An interval, the name that error messages use, and the scale on which it is searched.

    Attributes:
        label: What the number is called in words.
        low: Smallest value.
        high: Largest value.
        open_low: The smallest value itself is not allowed.
        open_high: The largest value itself is not allowed.
        scale: How a range of it is customarily searched: ``log``, ``linear``, or
            ``one_minus_log`` (the logarithm of 1 - x, for averages' coefficients).
        advice: What to do instead, for a value that is outside.
    """

    label: str
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    scale: Literal["log", "linear", "one_minus_log"] = "linear"
    advice: str = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below  # NaN is in no interval

    def describe(self) -> str:
        """The interval in words.

        >>> DOMAINS["beta1"].describe()
        'in [0, 1)'
        >>> DOMAINS["lr"].describe()
        '>= 0'
        """
        if self.high == math.inf:
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{self.low:g}, {self.high:g}{right}"

    def check(self, name: str, value: Any, *, owner: str) -> None:
        """Raise `InputError` unless ``value`` is a number of this domain.

        Tensors and arrays (a learning rate on the device, one value per member) pass: reading
        them would wait for the device.
        """
        if hasattr(value, "dtype"):
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(
                f"{owner}: {name} must be a number {self.describe()}, "
                f"got {value!r} ({type(value).__name__})"
            )
        if value not in self:
            advice = f"; {self.advice}" if self.advice else ""
            raise InputError(f"{owner}: {name} must be {self.describe()}, got {value!r}{advice}")


def _average(label: str) -> Domain:
    return Domain(label, 0.0, 1.0, open_high=True, scale="one_minus_log")


DOMAINS: dict[str, Domain] = {
    "lr": Domain("learning rate", scale="log", advice="to maximise pass maximize=True"),
    "eps": Domain("epsilon", scale="log"),
    "weight_decay": Domain("weight decay", scale="log"),
    "beta1": _average("coefficient of the first moment"),
    "beta2": _average("coefficient of the second moment"),
    "momentum": Domain("momentum", scale="one_minus_log"),
    "dampening": Domain("dampening of the momentum", low=-math.inf),
    "alpha": Domain("smoothing constant", scale="one_minus_log"),
    "rho": Domain("coefficient of the averages", 0.0, 1.0, scale="one_minus_log"),
    "lr_decay": Domain("learning rate decay", scale="log"),
    "initial_accumulator_value": Domain("start of the accumulator"),
    "momentum_decay": Domain("decay of the momentum", scale="log"),
    "lambd": Domain("decay term of ASGD", scale="log", low=-math.inf),
    "power": Domain("exponent of ASGD's learning rate", low=-math.inf),
    "t0": Domain("step at which averaging starts", low=-math.inf),
    "eta_minus": Domain("factor after a change of sign", 0.0, 1.0, open_low=True, open_high=True),
    "eta_plus": Domain("factor without a change of sign", 1.0, open_low=True),
    "beta3": Domain(
        "coefficient of the slowest average", 0.0, 1.0, open_high=True, scale="one_minus_log"
    ),
    "alpha_slow": Domain("weight of the slow average", scale="log"),
    "alpha_warmup": Domain("steps over which that weight warms up"),
    "beta3_warmup": Domain("steps over which that coefficient warms up"),
    "warmup_steps": Domain("steps over which the rate warms up"),
    "r": Domain("exponent of the step in the average's weights", low=-math.inf),
    "weight_lr_power": Domain("exponent of the rate in the average's weights", low=-math.inf),
    "trust_coefficient": Domain("factor of the ratio of norms", scale="log"),
    "beta2_decay": Domain("exponent of the second moment's weight", low=-math.inf, high=0.0),
    "eps1": Domain("epsilon of the second moment", scale="log"),
    "eps2": Domain("smallest size of a parameter", scale="log"),
    "d": Domain("largest root mean square of an update", 1.0),
    "d0": Domain("first estimate of the distance", scale="log", open_low=True),
    "d_coef": Domain("factor of the distance", scale="log", open_low=True),
    "growth_rate": Domain("largest growth of the distance per step", 1.0),
    "shampoo_beta": _average("coefficient of the preconditioners' averages"),
    "precondition_frequency": Domain("steps between two preconditioners", 1.0),
    "update_freq": Domain("steps between two preconditioners", 1.0),
    "root": Domain("which root of the preconditioners is taken", open_low=True),
    "ns_steps": Domain("Newton-Schulz steps", 1.0, 99.0),
    "clip_exponent": Domain("exponent of the step in ADOPT's clipping"),
    "threshold": Domain("length of the average from which on the rate adapts", 4.0),
    "max_value": Domain("largest element of a gradient", scale="log", open_low=True),
    "max_norm": Domain("largest norm of one tensor's gradient", scale="log", open_low=True),
    "max_global_norm": Domain("largest norm of all gradients", scale="log", open_low=True),
    "step_min": Domain("smallest step", scale="log"),
    "step_max": Domain("largest step", scale="log"),
}
