"""What may be given to a schedule: one table for Python, arms and error messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from steepest.errors import InputError, unknown_name

__all__ = ["Value", "check_together", "checked"]

Value = int | float | str | tuple[int | float, ...] | None

_CHOICES: dict[str, tuple[str, ...]] = {
    "anneal": ("cos", "linear"),
    "mode": ("triangular", "triangular2", "exp_range"),
    "shape": ("linear", "cosine", "sqrt"),
}

# argument: (in words, test); numbers only
_DOMAINS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "final": ("between 0 and 1", lambda v: 0 <= v <= 1),
    "low": ("between 0 and 1", lambda v: 0 <= v <= 1),
    "gamma": ("> 0 and at most 1", lambda v: 0 < v <= 1),
    "power": ("> 0", lambda v: 0 < v < math.inf),
    "pct_start": ("between 0 and 1, both excluded", lambda v: 0 < v < 1),
    "div_factor": (">= 1", lambda v: 1 <= v < math.inf),
    "final_div_factor": (">= 1", lambda v: 1 <= v < math.inf),
    "rise": ("> 0 and at most 1", lambda v: 0 < v <= 1),
    "mult": (">= 1", lambda v: 1 <= v < math.inf),
    "timescale": (">= 1 step", lambda v: v >= 1 and v == int(v)),
}

_LENGTHS = ("warmup", "every", "period", "decay")


def checked(name: str, argument: str, value: Any, default: Value) -> Value:
    """The value in its canonical form, or `InputError`."""
    if value is None and default is None:
        return None
    if argument == "milestones":
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise InputError(
                f"{name}: milestones must be a list such as [0.5, 0.75] or [1000, 1500], "
                f"got {value!r}"
            )
        return tuple(sorted(_length(name, "milestones", item) for item in value))
    if argument in _CHOICES:
        if value not in _CHOICES[argument]:
            raise unknown_name(f"{argument} of {name}", str(value), _CHOICES[argument])
        return str(value)
    if argument in _LENGTHS:
        return _length(name, argument, value)
    words, test = _DOMAINS[argument]
    if not _is_number(value) or not test(value):
        raise InputError(f"{name}: {argument} must be a number {words}, got {value!r}")
    return int(value) if argument == "timescale" else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _length(name: str, argument: str, value: Any) -> int | float:
    smallest = 0 if argument == "warmup" else 1
    if not _is_number(value) or not (
        value >= smallest if isinstance(value, int) else smallest == value or 0 < value < 1
    ):
        raise InputError(
            f"{name}: {argument} must be a whole number of steps >= {smallest} or a fraction of "
            f"the run between 0 and 1, got {value!r}"
        )
    return 0 if value == 0 else value


def check_together(name: str, values: dict[str, Value]) -> None:
    for one, other in (("every", "milestones"), ("final", "gamma")):
        if values.get(one) is not None and values.get(other) is not None and name != "cyclic":
            raise InputError(f"{name}: give {one} or {other}, not both")
    if name == "exponential" and values["final"] == 0:
        raise InputError("exponential: final must be > 0, got 0; an exponential never gets there")
