"""Find the reading of a rule that goes where an optimizer goes, scenario by scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from steepest.auditing.changes import changes
from steepest.auditing.distance import Tolerances, distance, fits, tolerances
from steepest.auditing.findings import Finding, Row
from steepest.auditing.names import Names
from steepest.auditing.scenarios import Array, Play
from steepest.auditing.subject import Recording, RefusedError, Subject
from steepest.auditing.walk import Change, Reading, Values, walk
from steepest.rules import Rule

__all__ = ["Search"]


@dataclass
class Search:
    """What is left of all readings after the scenarios so far, and what none of them explains.

    Attributes:
        rule: The rule.
        subject: The optimizer.
        names: Its arguments.
        base: The rule's values at the optimizer's defaults.
        options: The options among them.
        readings: What still fits; the first one is the nearest to the rule's own.
        changes: What had to be changed so far.
        findings: What was found.
        rows: Every scenario so far.
        precision: The lowest precision that was needed inside.
    """

    rule: Rule
    subject: Subject
    names: Names
    base: Values
    options: Mapping[str, Any]
    readings: list[Reading]
    findings: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    precision: str = ""
    _told: dict[int, int] = field(default_factory=dict)
    _met: list[tuple[Play, Recording, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.precision = str(self.subject.dtype).removeprefix("torch.")

    @property
    def reading(self) -> Reading:
        """The nearest that fits."""
        return self.readings[0]

    def meet(self, plan: Play) -> None:
        """Go through a scenario."""
        name = plan.scenario.name
        if plan.scenario.missing and not any(r.per_group for r in self.readings):
            self.readings += [replace(r, per_group=True) for r in self.readings]
        try:
            recording = self.subject.record(plan, self.names)
        except RefusedError as error:
            self.rows.append(Row(name, math.nan, None, math.nan, f"refused: {error}"))
            return
        except Exception as error:  # noqa: BLE001  (a stranger's code)
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            self.rows.append(Row(name, math.nan, None, math.nan, message))
            self.findings.append(Finding(name, f"raises {message}", name, math.nan, None, True))
            return
        allowed = tolerances(self.rule, plan, self.base, self.reading, dtype=self.subject.dtype)
        tolerance = self._met_with(plan, recording, allowed)
        if tolerance is None:
            tolerance = self._failed(plan, recording, allowed)
        else:
            self._met.append((plan, recording, tolerance))
        off = distance(self.rule, plan, self.base, self.reading, recording, tolerance)
        self.rows.append(Row(name, off.off, off.since, tolerance))

    def meet_average(self) -> None:
        """Compare what it hands out for evaluation, where it has a mode for that."""
        if self.rule.average is None or not self._met:
            return
        plan, recording, tolerance = self._met[-1]
        if recording.averages is None:
            return
        *_, (tensors, slots) = walk(self.rule, plan, self.base, self.reading)
        given = [{**self.base, **plan.values[g], **self.reading.values} for g in plan.groups]
        apart = [
            float(np.abs(self.rule.averaged(p, s, v) - x).max())
            for p, s, v, x in zip(tensors, slots, given, recording.averages, strict=True)
        ]
        off = max(apart) / recording.way
        since = len(plan.grads) if off > tolerance else None
        self.rows.append(Row("evaluation mode", off, since, tolerance))
        if since is not None:
            text = "its parameters are not the average"
            self.findings.append(Finding("average", text, "evaluation mode", off, since, False))

    def _fitting(
        self, plan: Play, recording: Recording, tolerance: float, tried: Sequence[Reading]
    ) -> list[Reading]:
        return [r for r in tried if fits(self.rule, plan, self.base, r, recording, tolerance)]

    def _met_with(self, plan: Play, recording: Recording, allowed: Tolerances) -> float | None:
        """The tolerance at which some reading fits, or one with one more change."""
        names = list(allowed.levels)
        (_, tolerance), *lower = list(allowed.levels.items())[names.index(self.precision) :]
        fitting = self._fitting(plan, recording, tolerance, self.readings)
        if fitting:
            self.readings = fitting
            return tolerance
        if not recording.way > 0:
            return None
        if self._explained(plan, recording, tolerance):
            return tolerance
        for level, wider in lower:
            fitting = self._fitting(plan, recording, wider, self.readings)
            if fitting:
                self.readings = self._nearest(plan, recording, fitting)
                self.precision = level
                return wider
        for _, wider in lower[:1]:
            if self._explained(plan, recording, wider):
                return wider
        return None

    def _nearest(self, plan: Play, recording: Recording, fitting: list[Reading]) -> list[Reading]:
        """The nearest ones first, where rounding hides small differences."""
        far = {
            id(r): distance(self.rule, plan, self.base, r, recording, math.inf).off for r in fitting
        }
        least = min(far.values())
        return sorted(fitting, key=lambda r: far[id(r)] > 2 * least)

    def _explained(self, plan: Play, recording: Recording, tolerance: float) -> bool:
        """Whether one more change makes a reading fit here, and leaves what was met before."""
        before = self.reading
        possible = changes(self.rule, self.names, plan.scenario, self.base, self.options)
        if not self._met:
            possible += self._lengths(plan, recording)
        explained: list[Reading] = []
        for change in possible:
            changed = [
                replace(r, changes=(*r.changes, change))
                for r in self.readings
                if r.per_group or not change.per_group
            ]
            fitting = self._fitting(plan, recording, tolerance, changed)[:64]
            for met, path, within in self._met:
                fitting = self._fitting(met, path, within, fitting)
            explained += fitting
        if not explained:
            return False
        off = distance(self.rule, plan, self.base, before, recording, tolerance)
        self.findings.append(
            Finding("", "", plan.scenario.name, off.off, off.since, explained=True)
        )
        self._told[len(self.findings) - 1] = len(before.changes)
        self.readings = explained
        return True

    def close(self) -> list[Finding]:
        """All findings, told by the changes of the reading that is nearest at the end."""
        changes = self.reading.changes
        for at, depth in self._told.items():
            finding, change = self.findings[at], changes[depth]
            self.findings[at] = replace(finding, term=change.term, text=change.text)
        return self.findings

    def _lengths(self, plan: Play, recording: Recording) -> list[Change]:
        """Steps that are all longer or shorter by one factor."""
        (first, _), *_ = walk(self.rule, plan, self.base, self.reading)
        ours = first[0] - plan.start[0]
        theirs = recording.path[0][0] - plan.start[0]
        if not np.all(ours) or not np.all(np.isfinite(theirs / ours)):
            return []
        factor = float(np.median(theirs / ours))

        def scaled(p: Array, step: Array, _: Values, __: Any) -> Array:
            return p + factor * step

        return [Change("length", f"every step is {factor:g} times as long", landed=scaled)]

    def _failed(self, plan: Play, recording: Recording, allowed: Tolerances) -> float:
        """Nothing explains it: say where the memory is still the rule's."""
        tolerance = allowed.levels[self.precision]
        tried = self.readings[:256]
        wrong = {id(r): self._wrong(plan, r, recording, tolerance) for r in tried}
        offs = {
            id(r): distance(self.rule, plan, self.base, r, recording, tolerance).off for r in tried
        }
        near = min(tried, key=lambda r: (len(wrong[id(r)]), offs[id(r)]))
        clearly = offs[id(near)] < 0.5 * offs[id(tried[0])]
        if not clearly and len(wrong[id(near)]) == len(wrong[id(tried[0])]):
            near = tried[0]
        self.readings = [near, *(r for r in self.readings if r is not near)]
        off = distance(self.rule, plan, self.base, near, recording, tolerance)
        if any(not finding.explained for finding in self.findings) and self._met:
            text = "neither a dialect nor a known mistake explains it"
        else:
            text = self._memory(plan, off.since)
        if len(wrong[id(near)]) < len(plan.start):
            text += f"; only in tensors like {', '.join(wrong[id(near)])}"
        if not recording.way > 0:
            text = "nothing moves"
        if self._met or not self.findings:
            self.findings.append(
                Finding(plan.scenario.name, text, plan.scenario.name, off.off, off.since, False)
            )
        return tolerance

    def _wrong(
        self, plan: Play, reading: Reading, recording: Recording, tolerance: float
    ) -> list[str]:
        """The shapes of the tensors that deviate."""
        off = [0.0] * len(plan.start)
        with np.errstate(all="ignore"):
            for (ours, _), theirs in zip(
                walk(self.rule, plan, self.base, reading), recording.path, strict=True
            ):
                apart = [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)]
                off = [float(np.fmax(o, a)) for o, a in zip(off, apart, strict=True)]
        return [
            str(p.shape)
            for p, far in zip(plan.start, off, strict=True)
            if not far <= tolerance * recording.way
        ]

    def _memory(self, plan: Play, since: int | None) -> str:
        """Which slots of the rule are found in the optimizer's state where it begins to deviate."""
        unknown = "neither a dialect nor a known mistake explains it"
        if since is None:
            return unknown
        recording = self.subject.record(plan, self.names, stop=since)
        slots: list[dict[str, Any]] = []
        for step, (_, now) in enumerate(walk(self.rule, plan, self.base, self.reading), 1):
            slots = now
            if step == since:
                break
        right: list[str] = []
        absent: list[str] = []
        for name, slot in self.rule.slots.items():
            if slot.per != "element" or not all(isinstance(s.get(name), np.ndarray) for s in slots):
                continue
            found = all(
                any(_same(own[name], x) for x in theirs.values())
                for own, theirs in zip(slots, recording.states, strict=True)
            )
            (right if found else absent).append(name)
        told = [f"its state holds the rule's {', '.join(right)}"] if right else []
        told += [f"not the rule's {', '.join(absent)}"] if absent else []
        return "; ".join((unknown, *told))


def _same(a: Array, b: Array) -> bool:
    size = float(np.abs(a).max(initial=0.0))
    return a.shape == b.shape and min(
        float(np.abs(a - b).max(initial=0.0)), float(np.abs(a + b).max(initial=0.0))
    ) <= 1e-6 * max(size, 1e-30)
