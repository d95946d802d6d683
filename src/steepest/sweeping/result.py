"""What a sweep asked for, how it was measured, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steepest.errors import InputError
from steepest.numbers import amount, significant
from steepest.sweeping.analysis import Findings, Floats

__all__ = ["HIGH", "LOW", "Sweep", "SweepSpec"]

LOW, HIGH = 1e-6, 10.0
"""The rates that are swept if nobody says which: what has ever been used, and a little more."""


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """What was asked for.

    Attributes:
        task: The task's name, or the model's class for live objects.
        arm: The optimizer's text.
        low: The lowest rate.
        high: The highest rate.
        rates: How many rates, evenly spread over the logarithm.
        seeds: The seeds.
        steps: Steps of every run.
        batch_size: Examples per step; None: what the loader makes.
        device: Where it was trained.
        level: Of the intervals.
    """

    task: str
    arm: str
    low: float
    high: float
    rates: int
    seeds: tuple[int, ...]
    steps: int
    batch_size: int | None
    device: str
    level: float

    def __post_init__(self) -> None:
        """Refuse what cannot be swept."""
        for name, value in (("low", self.low), ("high", self.high)):
            number: Any = value
            good = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not good or not 0 < number < math.inf:
                raise InputError(
                    f"the {name} end of the learning rates must be a number > 0, got {number!r}"
                )
        if self.low >= self.high:
            raise InputError(
                f"the range of learning rates {significant(self.low)}..{significant(self.high)} is "
                "empty; write the smaller end first"
            )
        for name, least, why in (
            ("rates", 5, "fewer show no slope"),
            ("steps", 5, "fewer show nothing"),
        ):
            count: Any = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise InputError(f"{name} must be a whole number >= {least} ({why}), got {count!r}")
        if not self.seeds:
            raise InputError("a sweep needs at least one seed, got none")
        if not 0 < self.level < 1:
            raise InputError(f"level must lie between 0 and 1, got {self.level}")

    @property
    def grid(self) -> Floats:
        """The rates."""
        return np.geomspace(self.low, self.high, self.rates)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """The outcome of a range test.

    Attributes:
        spec: What was asked for.
        findings: What it says.
        kind: ``held``: every run has one rate; ``growing``: the rate grows within a run.
        reason: Why it was measured so.
        seconds: How long it took.
        steps_done: Run-steps, those of refining among them.
        folder: Where it lies; None for a sweep of a live model, which writes nothing.
        command: What repeats it, where it was typed.
        events: What happened on the way that a reader should know.
    """

    spec: SweepSpec
    findings: Findings = field(repr=False)
    kind: Literal["held", "growing"]
    reason: str
    seconds: float
    steps_done: int
    folder: Path | None = None
    command: str = ""
    events: tuple[str, ...] = ()

    @property
    def suggestion(self) -> float | None:
        """The rate to begin with; None where nothing was learned at any rate."""
        return self.findings.suggestion.value

    @property
    def edge(self) -> float | None:
        """The rate above which training is not stable; None where it was not met."""
        return self.findings.edge.value

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        found = self.findings.suggestion
        if found.value is None:
            return f"No rate to suggest for {self.spec.arm} on {self.spec.task}"
        words = {
            "clear": "Begin with",
            "rough": "Begin with about",
            "vague": "Begin with something like",
        }
        return f"{words[found.sure]} lr = {rounded(found.value)} for {self.spec.arm}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, and how sure it is."""
        found, edge, level = self.findings.suggestion, self.findings.edge, self.spec.level
        share = f"{significant(100 * level)} %"
        says = []
        if found.value is not None:
            factor = found.high / found.low
            says.append(
                f"There the loss after {amount(self.spec.steps, 'step')} falls the fastest per "
                f"decade of the rate; the {share} interval is {rounded(found.low)} to "
                f"{rounded(found.high)}, a factor of {significant(factor, 2)}: "
                + {
                    "clear": "that is clear.",
                    "rough": "a rough figure, good enough to search around it.",
                    "vague": "vague; more seeds or more steps make it sharper.",
                }[found.sure]
            )
        if self.findings.lowest is not None and self.kind == "held":
            says.append(
                f"After {amount(self.spec.steps, 'step')} the loss is the lowest at "
                f"{rounded(self.findings.lowest)}; what is worth searching lies between the two."
            )
        if edge.value is not None:
            upper = "most " if self.kind == "growing" else ""
            says.append(
                f"Training stops being stable at {upper}{significant(edge.value)} ({share} "
                f"interval {significant(edge.low)} to {significant(edge.high)})."
            )
        how = (
            f"{amount(self.spec.rates, 'rate')} × {amount(len(self.spec.seeds), 'seed')}, "
            "each held constant from the same start"
            if self.kind == "held"
            else f"{amount(len(self.spec.seeds), 'run')} whose rate grows from step to step"
        )
        says.append(f"Measured by {how}; {self.reason}.")
        return tuple(says)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        findings = self.findings
        found, edge = findings.suggestion, findings.edge
        return {
            "folder": None if self.folder is None else str(self.folder),
            "task": self.spec.task,
            "arm": self.spec.arm,
            "headline": self.headline,
            "kind": self.kind,
            "reason": self.reason,
            "suggestion": {
                "lr": found.value,
                "low": _number(found.low),
                "high": _number(found.high),
                "sure": found.sure,
                "reason": found.reason,
            },
            "edge": {
                "lr": edge.value,
                "low": _number(edge.low),
                "high": _number(edge.high),
                "said": edge.said,
                "per_seed": [_number(value) for value in edge.per_seed],
            },
            "lowest": findings.lowest,
            "level": findings.level,
            "notes": list(findings.notes),
            "events": list(self.events),
            "rates": findings.rates.tolist(),
            "losses": [[_number(v) for v in row] for row in findings.ends.tolist()],
            "start": findings.start.tolist(),
            "unstable": findings.unstable.tolist(),
            "steps": self.spec.steps,
            "seeds": list(self.spec.seeds),
            "seconds": self.seconds,
        }


def rounded(lr: float) -> str:
    """A rate as a person would write it: two digits, no false precision.

    >>> rounded(0.0031234), rounded(0.1), rounded(1.23e-5)
    ('0.0031', '0.1', '1.2e-5')
    """
    if lr >= 1e-4:
        return significant(lr, 2)
    mantissa, exponent = f"{lr:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
