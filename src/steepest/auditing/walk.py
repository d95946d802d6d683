"""The formula under a scenario, as one reads it: with options, and with something changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steepest.auditing.scenarios import Array, Play
from steepest.rules import Rule
from steepest.testing.follow import start

__all__ = ["At", "Change", "Reading", "Slots", "Values", "walk"]

Values = Mapping[str, Any]
Slots = list[dict[str, Any]]


@dataclass(frozen=True)
class At:
    """Where a walk is when a change is asked.

    Attributes:
        step: The step from 0.
        t: The rule's own number of this step.
        ndim: The tensor's axes.
        first: The values at the first step.
        leader: The values of the first group.
        before: The values of the step before.
        up: The optimizer is told to maximize.
    """

    step: int
    t: int
    ndim: int
    first: Values
    leader: Values
    before: Values
    up: bool


@dataclass(frozen=True)
class Change:
    """One way to get a formula wrong, as something done around it: no formula stands twice.

    Attributes:
        term: Which term of the formula it is about.
        text: What the optimizer does instead, as the end of a sentence.
        values: The values that the rule is handed.
        time: The number of the step that it is handed.
        slots: What its memory holds when it is handed over.
        gradient: ``(p, g, values, at) -> g``.
        seen: ``(p, values, at) -> p``: the parameter before the rule sees it.
        landed: ``(p, step, values, at) -> p``: the parameter after the step.
        lost: What a fresh instance does not get: slots, ``t``.
        zeros: A missing gradient is one of zeros.
        per_group: Only for readings that count steps per group.
        ascent: False: the sign of ``maximize`` has no effect.
    """

    term: str
    text: str
    values: Callable[[Values, At], Values] | None = None
    time: Callable[[int, At], Any] | None = None
    slots: Callable[[dict[str, Any], At], dict[str, Any]] | None = None
    gradient: Callable[[Any, Any, Values, At], Any] | None = None
    seen: Callable[[Any, Values, At], Any] | None = None
    landed: Callable[[Any, Any, Values, At], Any] | None = None
    lost: tuple[str, ...] = ()
    zeros: bool = False
    per_group: bool = False
    ascent: bool = True


@dataclass(frozen=True)
class Reading:
    """One reading of a rule's name.

    Attributes:
        values: Options and numbers of the rule that the optimizer has no argument for.
        per_group: Steps are counted for a whole group, as schedules and sums of weights are.
        changes: What is done around the formula.
    """

    values: Values = field(default_factory=dict)
    per_group: bool = False
    changes: tuple[Change, ...] = ()


class _Shared(int):
    """A step number of a whole group, which is the first one only for a tensor that begins."""

    own: int

    def __new__(cls, t: int, own: int) -> _Shared:
        """``own`` is the tensor's own number."""
        made = super().__new__(cls, t)
        made.own = own
        return made

    def __eq__(self, other: object) -> bool:
        return self.own == 1 if other == 1 else int(self) == other

    def __hash__(self) -> int:
        return hash(int(self))


def walk(
    rule: Rule, plan: Play, base: Values, reading: Reading, *, dtype: Any = np.float64
) -> Iterator[tuple[list[Array], Slots]]:
    """After every step: the tensors, and their slots.

    Args:
        rule: The rule.
        plan: The scenario.
        base: The rule's values at the optimizer's defaults.
        reading: How the rule's name is read.
        dtype: What it is computed in.
    """
    current: list[Any] = [p.astype(dtype) for p in plan.start]
    slots: Slots = [{} for _ in current]
    times = [0] * len(current)
    clocks = [0] * len(plan.values)
    common: dict[str, Any] = {}
    shared = {name for name, slot in rule.slots.items() if slot.per == "all"}
    counted = [name for name, slot in rule.slots.items() if slot.per == "tensor"]
    lost = {name for change in reading.changes for name in change.lost}
    zeros = any(change.zeros for change in reading.changes)
    up = plan.scenario.maximize and all(change.ascent for change in reading.changes)

    def at_rate(group: int, step: int) -> dict[str, Any]:
        own = {**rule.hyperparameters, **rule.options, **base}
        own.update(plan.values[group], **reading.values)
        own["lr"] = own["lr"] * plan.rates[step]
        return own

    def prepared(i: int, g: Any, step: int, given: dict[str, Any]) -> Any:
        group = plan.groups[i]
        t = clocks[group] if reading.per_group else times[i]
        at = At(
            step=step,
            t=t,
            ndim=current[i].ndim,
            first=at_rate(group, 0),
            leader=at_rate(0, step),
            before=at_rate(group, max(step - 1, 0)),
            up=plan.scenario.maximize,
        )
        values: Values = given
        p, held = current[i], {**slots[i], **common}
        time: Any = _Shared(t, times[i]) if reading.per_group else t
        for change in reading.changes:
            g = g if change.gradient is None else change.gradient(p, g, given, at)
        for change in reading.changes:
            values = values if change.values is None else change.values(values, at)
            p = p if change.seen is None else change.seen(p, given, at)
            time = time if change.time is None else change.time(time, at)
            held = held if change.slots is None else change.slots(held, at)
        return at, p, (p, g, *(held[n] for n in rule.slots), time), values

    for step, grads in enumerate(plan.grads):
        if step == plan.reload:
            for i, group in enumerate(plan.groups):
                fresh = start(rule, current[i], at_rate(group, step)) if slots[i] else {}
                slots[i].update({k: v for k, v in fresh.items() if k in lost})
                common.update({k: v for k, v in fresh.items() if k in lost & shared})
            if "t" in lost:
                times, clocks = [0] * len(times), [0] * len(clocks)
        handed = [
            np.zeros(current[i].shape) if g is None and zeros else g for i, g in enumerate(grads)
        ]
        live = [i for i, g in enumerate(handed) if g is not None]
        for group in {plan.groups[i] for i in live}:
            clocks[group] += 1
        given = [at_rate(group, step) for group in plan.groups]
        idle = [i for i in range(len(current)) if i not in live]
        for i in (*live, *(idle if reading.per_group and counted else ())):
            if not slots[i]:
                slots[i] = start(rule, current[i], given[i])
        calls = {}
        for i in live:
            times[i] += 1
            g = np.asarray(handed[i], dtype)
            calls[i] = prepared(i, -g if up else g, step, given[i])
        totals: dict[str, Any] = {}
        if rule.has_totals:
            parts = [rule.partial_sums(*args, **values) for _, _, args, values in calls.values()]
            totals = {"totals": tuple(sum(column) for column in zip(*parts, strict=True))}
        for i, (at, p, args, values) in calls.items():
            moved, *new = rule(*args, **values, **totals)
            current[i] = p + moved
            for change in reading.changes:
                if change.landed is not None:
                    current[i] = change.landed(p, moved, given[i], at)
            slots[i] = dict(zip(rule.slots, new, strict=True))
            common = {name: slots[i][name] for name in shared}
        if reading.per_group and counted and not rule.has_totals:
            for i in idle:
                _, _, args, values = prepared(i, np.zeros(current[i].shape), step, given[i])
                _, *new = rule(*args, **values)
                kept = dict(zip(rule.slots, new, strict=True))
                slots[i].update({name: kept[name] for name in counted})
        yield list(current), slots
