"""Run a rule, or an oracle, over several tensors and many steps, in float64 NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steepest.rules import Rule
from steepest.testing.oracles_modern import Oracle, values_of

__all__ = ["Trajectory", "follow", "follow_oracle", "start"]

Trajectory = list[list[Any]]
"""After every step, every tensor."""


def follow(
    rule: Rule,
    params: Sequence[Any],
    grads: Sequence[Sequence[Any]],
    values: Sequence[Mapping[str, Any]],
) -> tuple[Trajectory, list[dict[str, Any]]]:
    """What a rule does with these gradients: the plainest engine there can be.

    Args:
        rule: The rule.
        params: The tensors at the start.
        grads: For every step, the gradient of every tensor, None where it has none.
        values: For every step, the hyperparameters and options that are not at their default.

    Returns:
        The tensors after every step, and their slots at the end.

    >>> from steepest import rules
    >>> path, _ = follow(rules.get("sgd"), [np.ones(1)], [[np.ones(1)]] * 2, [{"lr": 0.25}] * 2)
    >>> [float(tensors[0][0]) for tensors in path]
    [0.75, 0.5]
    """
    current = list(params)
    slots: list[dict[str, Any]] = [{} for _ in params]
    times = [0] * len(current)
    shared = {name for name, slot in rule.slots.items() if slot.per == "all"}
    common: dict[str, Any] = {}
    path: Trajectory = []
    for step_grads, given in zip(grads, values, strict=True):
        live = [i for i, g in enumerate(step_grads) if g is not None]
        full = {**rule.hyperparameters, **rule.options, **given}
        for i in live:
            times[i] += 1
            if times[i] == 1:
                slots[i] = start(rule, current[i], full)
            slots[i].update(common)
        arguments = {
            i: (current[i], step_grads[i], *(slots[i][n] for n in rule.slots), times[i])
            for i in live
        }
        totals: dict[str, Any] = {}
        if rule.has_totals:
            parts = [rule.partial_sums(*arguments[i], **given) for i in live]
            totals = {"totals": tuple(sum(column) for column in zip(*parts, strict=True))}
        for i in live:
            step, *new = rule(*arguments[i], **given, **totals)
            current[i] = current[i] + step
            slots[i] = dict(zip(rule.slots, new, strict=True))
            common = {name: slots[i][name] for name in shared}
        path.append(list(current))
    return path, slots


def start(rule: Rule, p: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The slots of one tensor before its first step, by name, in NumPy; None where inactive."""
    active = rule.active_slots(values, ndim=p.ndim)
    slots: dict[str, Any] = {}
    for name, slot in rule.slots.items():
        if name not in active:
            slots[name] = None
        elif slot.init == "p":
            slots[name] = p.copy()
        else:
            number = values[slot.init] if isinstance(slot.init, str) else slot.init
            whole = slot.per not in ("tensor", "all")
            slots[name] = np.full(slot.shape(p.shape), number, p.dtype) if whole else number
    return slots


def follow_oracle(
    oracle: Oracle,
    rule: Rule,
    params: Sequence[Any],
    grads: Sequence[Sequence[Any]],
    values: Sequence[Mapping[str, Any]],
) -> Trajectory:
    """What an oracle says about the same gradients; arguments as `follow`."""
    current = list(params)
    memory: list[dict[str, Any]] = [{} for _ in params]
    times = [0] * len(current)
    path: Trajectory = []
    for step_grads, given in zip(grads, values, strict=True):
        h = values_of(rule, **given)
        for i, g in enumerate(step_grads):
            if g is not None:
                times[i] += 1
                current[i] = oracle(current[i], g, times[i], memory[i], h)
        path.append(list(current))
    return path
