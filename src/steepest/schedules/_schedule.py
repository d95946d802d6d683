"""What a schedule is, and the decorator that makes one out of a formula."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from steepest.errors import InputError, unknown_name
from steepest.schedules._arguments import Value, check_together, checked

__all__ = ["FORMULAS", "MAKERS", "Multiplier", "Run", "Schedule", "half_wave", "names", "schedule"]

Multiplier = Callable[[int], float]


@dataclass(frozen=True)
class Schedule:
    """A schedule with its arguments: ``schedule(step, total)`` is the multiplier.

    Made by the functions of this module or by `parse`; equal when it does the same.

    Attributes:
        text: The canonical text, see `spec`; schedules are equal when their texts are.
        name: One of `names`.
        arguments: All of its arguments, defaults included.

    >>> from steepest.schedules import linear
    >>> linear()(25, 100)
    0.75
    >>> linear(final=0.1)
    Schedule('linear(final=0.1)')
    """

    text: str
    name: str = field(compare=False)
    arguments: tuple[tuple[str, Value], ...] = field(compare=False)

    def __call__(self, step: int, total: int) -> float:
        """The multiplier of the base learning rate at this step of a run of ``total`` steps."""
        if step < 0:
            raise InputError(f"{self.text}: steps are counted from 0, got step {step}")
        return _bound(self, total)(min(step, total))

    def check(self, total: int) -> None:
        """Raise `InputError` unless a run of ``total`` steps can follow this schedule."""
        _bound(self, total)

    def spec(self) -> str:
        """The canonical text: arguments that differ from their defaults; `parse` reads it.

        >>> from steepest.schedules import parse
        >>> parse(" step( gamma=0.1, milestones=[0.5, 0.75], warmup=0)").spec()
        'step(milestones=[0.5, 0.75])'
        """
        return self.text

    def __repr__(self) -> str:
        return f"Schedule('{self.text}')"


@dataclass(frozen=True)
class Run:
    """What a formula is told: the run's length, where its warmup ends, and who it is."""

    total: int
    warmup: int
    owner: str

    @property
    def rest(self) -> int:
        return self.total - self.warmup

    def progress(self, step: int) -> float:
        """From 0 at the end of the warmup to 1 at the end of the run."""
        return (step - self.warmup) / self.rest

    def steps(self, value: float) -> int:
        """A length in whole steps; fractions are parts of the run, rounded up."""
        return _steps(value, self.total)

    def length(self, name: str, value: float) -> float:
        """A length of time in steps: whole numbers are steps, fractions are parts of the rest."""
        steps = value if isinstance(value, int) else value * self.rest
        if steps > self.rest:
            raise InputError(
                f"{self.owner}: {name} of {steps:g} steps is longer than what the run has for it, "
                f"{self.rest} of {self.total} steps; give fewer steps or a fraction"
            )
        if steps < 1:
            raise InputError(
                f"{self.owner}: {name} comes to {steps:g} of {self.rest} steps, less than one; "
                "give more, or train longer"
            )
        return steps


FORMULAS: dict[str, Callable[..., Multiplier]] = {}
MAKERS: dict[str, Callable[..., Schedule]] = {}


def schedule(formula: Callable[..., Multiplier]) -> Callable[..., Schedule]:
    """Register a formula; what stands in the module is the function that makes its Schedule."""
    name = formula.__name__
    FORMULAS[name] = formula
    known = inspect.signature(formula).parameters
    warmup = inspect.Parameter("warmup", inspect.Parameter.KEYWORD_ONLY, default=0)
    signature = inspect.Signature([*list(known.values())[1:], warmup])

    def make(**arguments: Any) -> Schedule:
        defaults = _defaults(name)
        for argument in arguments:
            if argument not in defaults:
                raise unknown_name(f"argument of {name}", argument, defaults)
        values = {
            k: checked(name, k, arguments.get(k, default), default)
            for k, default in defaults.items()
        }
        check_together(name, values)
        # repr tells 1 (step) from 1.0 (the whole run), == does not
        given = [f"{k}={_text(v)}" for k, v in values.items() if repr(v) != repr(defaults[k])]
        return Schedule(f"{name}({', '.join(given)})", name, tuple(values.items()))

    make.__name__ = make.__qualname__ = name
    make.__module__ = formula.__module__
    make.__doc__ = formula.__doc__
    make.__signature__ = signature.replace(return_annotation=Schedule)  # type: ignore[attr-defined]
    MAKERS[name] = make
    return make


def names() -> tuple[str, ...]:
    """All schedules.

    >>> from steepest import schedules
    >>> schedules.names()[:4]
    ('constant', 'step', 'linear', 'cosine')
    """
    return tuple(FORMULAS)


def _defaults(name: str) -> dict[str, Value]:
    known = inspect.signature(FORMULAS[name]).parameters.values()
    return {**{p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}, "warmup": 0}


def _steps(value: float, total: int) -> int:
    """A length in whole steps; fractions are rounded up, as Hugging Face does."""
    return value if isinstance(value, int) else math.ceil(value * total - 1e-9)


def half_wave(x: float, final: float) -> float:
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(repr(v) for v in value)}]"
    return value if isinstance(value, str) else repr(value)


@lru_cache(maxsize=1024)
def _bound(schedule: Schedule, total: int) -> Multiplier:
    """The multiplier for runs of this length; once per length, since it is asked in every step."""
    owner = schedule.text
    if total < 1:
        raise InputError(f"{owner}: a run has at least one step, got total={total}")
    arguments: dict[str, Any] = dict(schedule.arguments)
    warmup = _steps(arguments.pop("warmup"), total)
    if warmup >= total:
        raise InputError(
            f"{owner}: a warmup of {warmup} steps leaves nothing of a run of {total} steps; "
            "give fewer steps or a fraction such as warmup=0.05"
        )
    formula = FORMULAS[schedule.name](Run(total, warmup, owner), **arguments)
    if not warmup:
        return formula
    start = formula(warmup)
    return lambda s: start * s / warmup if s < warmup else formula(s)
