"""What was found on curves, as plain values and as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from steepest.diagnosing.curves import Curves
from steepest.numbers import amount

__all__ = ["KINDS", "TITLES", "Diagnosis", "Finding", "Group", "Kind", "RunDiagnosis", "Span"]

Kind: TypeAlias = Literal[
    "exploding",
    "never_learning",
    "slow_start",
    "plateau",
    "decayed_too_early",
    "still_improving",
    "overfitting",
    "underfitting",
    "noise",
]

TITLES: dict[Kind, str] = {
    "exploding": "The loss blows up",
    "never_learning": "It never learns",
    "slow_start": "Flat at first, then falling",
    "plateau": "A plateau at an unlowered rate",
    "decayed_too_early": "The rate was lowered too early",
    "still_improving": "Still improving at the end",
    "overfitting": "Overfitting",
    "underfitting": "No gap, and not good yet",
    "noise": "Very noisy",
}
KINDS: tuple[Kind, ...] = tuple(TITLES)


@dataclass(frozen=True)
class Span:
    """A stretch of a run on which a finding rests; a moment where both ends are equal.

    Attributes:
        low: Its begin, in the units of the curve.
        high: Its end.
        what: What happened there.
    """

    low: float
    high: float
    what: str


@dataclass(frozen=True)
class Finding:
    """One thing that a curve says.

    Attributes:
        kind: Its name.
        evidence: What was seen, with its numbers.
        advice: What to do about it.
        numbers: The measured values that decided, by name.
        spans: Where it was seen.
    """

    kind: Kind
    evidence: str
    advice: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()

    @property
    def title(self) -> str:
        """The finding in a few words."""
        return TITLES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "kind": self.kind,
            "title": self.title,
            "evidence": self.evidence,
            "advice": self.advice,
            "numbers": dict(self.numbers),
            "spans": [vars(span) for span in self.spans],
        }


@dataclass(frozen=True)
class RunDiagnosis:
    """What the curves of one run say.

    Attributes:
        curves: What was looked at.
        findings: What was found; empty: nothing to report.
        unchecked: Findings that could not be looked for, with the reason.
    """

    curves: Curves
    findings: tuple[Finding, ...]
    unchecked: Mapping[Kind, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The names of what was found."""
        return tuple(finding.kind for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.curves.name,
            "group": self.curves.group,
            "findings": [finding.to_dict() for finding in self.findings],
            "unchecked": dict(self.unchecked),
            "notes": list(self.curves.notes),
        }


@dataclass(frozen=True)
class Group:
    """What the runs of one arm have in common.

    Attributes:
        name: The arm; the run, where it stands alone.
        runs: Its runs.
    """

    name: str
    runs: tuple[RunDiagnosis, ...]

    @property
    def counts(self) -> dict[Kind, int]:
        """In how many of its runs each finding was made, the most frequent first."""
        seen = {kind: sum(kind in run.kinds for run in self.runs) for kind in KINDS}
        return {k: n for k, n in sorted(seen.items(), key=lambda item: -item[1]) if n}

    @property
    def shared(self) -> tuple[tuple[Finding, int], ...]:
        """Findings that at least half of the runs show, each as the first run says it.

        A finding on a single seed of many is more often chance than a fault.
        """
        found = []
        for kind, count in self.counts.items():
            if 2 * count >= len(self.runs):
                first = next(f for run in self.runs for f in run.findings if f.kind == kind)
                found.append((first, count))
        return tuple(found)

    def heard(self, count: int) -> str:
        """How many of the runs show something.

        >>> Group("adam()", (None,) * 6).heard(5)
        '5 of 6 runs'
        """
        return (
            amount(len(self.runs), "run")
            if count == len(self.runs)
            else (f"{count} of {amount(len(self.runs), 'run')}")
        )


@dataclass(frozen=True)
class Diagnosis:
    """What the curves in a file, a folder or an object say.

    Attributes:
        runs: Run by run.
    """

    runs: tuple[RunDiagnosis, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The runs by arm."""
        names = dict.fromkeys(run.curves.group or run.curves.name for run in self.runs)
        return tuple(
            Group(name, tuple(r for r in self.runs if (r.curves.group or r.curves.name) == name))
            for name in names
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all runs, in their order."""
        return tuple(finding for run in self.runs for finding in run.findings)

    @property
    def headline(self) -> str:
        """What is most to be known, in one sentence."""
        told = [(group, found) for group in self.groups for found in group.shared]
        if not told:
            rare = sum(bool(run.findings) for run in self.runs)
            also = f" ({amount(rare, 'run')} alone shows something)" if rare else ""
            return f"Nothing to report on {amount(len(self.runs), 'run')}{also}."
        parts = []
        for kind in KINDS:
            names = [group.name for group, (found, _) in told if found.kind == kind]
            if names:
                whose = "" if len(self.groups) == 1 else f" ({', '.join(names)})"
                parts.append(f"{TITLES[kind]}{whose}")
        return "; ".join(parts) + "."

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "headline": self.headline,
            "groups": [
                {"name": g.name, "runs": len(g.runs), "findings": dict(g.counts)}
                for g in self.groups
            ],
            "runs": [run.to_dict() for run in self.runs],
        }
