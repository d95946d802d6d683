"""Carry out a range test on a task: plan, measure, refine the edge, conclude."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from steepest.errors import InputError, TaskError
from steepest.racing.plan import read_seeds
from steepest.sweeping.analysis import Findings, Floats, analyse, bracket
from steepest.sweeping.classical import analyse_growing, growing_rates
from steepest.sweeping.measure import Progress, arm_of, grow, hold, why_not_batched
from steepest.sweeping.result import HIGH, LOW, Sweep, SweepSpec
from steepest.train.task import Task

__all__ = ["read_range", "sweep_task"]

_FINE = 13  # rates between the two around the edge
_GROWING = 200  # least steps of a growing run


def sweep_task(
    task: Task,
    arm: Any,
    *,
    lr: tuple[float, float] | None = None,
    rates: int = 36,
    seeds: int | Sequence[int] = 4,
    steps: int = 100,
    batch_size: int | None = None,
    device: str = "cpu",
    classical: bool = False,
    level: float = 0.95,
    progress: Progress = lambda done, total: None,
) -> Sweep:
    """Find the learning rates between standing still and blowing up; see `steepest.sweep`."""
    chosen, written = arm_of(arm)
    if lr is not None and written is not None:
        raise InputError(
            f"the range of learning rates was given twice: {written} in the arm and {lr} beside it"
        )
    low, high = lr or written or (LOW, HIGH)
    spec = SweepSpec(
        task=task.name,
        arm=chosen.label,
        low=low,
        high=high,
        rates=rates,
        seeds=read_seeds(seeds),
        steps=steps,
        batch_size=batch_size or task.batch_size,
        device=device,
        level=level,
    )
    begin = time.perf_counter()
    reason = None
    if not classical:
        reason = why_not_batched(task, chosen, batch_size=batch_size, device=device)
    schedule = "" if chosen.schedule is None else f"; its schedule {chosen.schedule} is left out"
    if classical or reason is not None:
        why = "as was asked for" if reason is None else f"the runs cannot be batched: {reason}"
        grown = growing_rates(low, high, max(steps, _GROWING))
        losses = grow(
            task, chosen, grown, spec.seeds, batch_size=batch_size, device=device, progress=progress
        )
        findings = analyse_growing(grown, losses, level=level)
        done = int(np.isfinite(losses).sum())
        return _sweep(spec, findings, "growing", f"{why}{schedule}", begin, done)

    def held(wanted: Floats) -> Floats:
        return hold(
            task,
            chosen,
            wanted,
            spec.seeds,
            steps=steps,
            batch_size=batch_size,
            device=device,
            progress=progress,
        )

    coarse = held(spec.grid)
    start = coarse[0, :, 0]
    if not np.isfinite(start).all():
        raise TaskError(
            f"task '{task.name}': its loss is not finite before the first step, whatever the rate; "
            "look at the data and at the loss"
        )
    findings = analyse(spec.grid, coarse, start, level=level)
    count = coarse.size
    around = bracket(spec.grid, findings.unstable)
    if around is not None:
        fine_rates = np.geomspace(*around, _FINE + 2)[1:-1]
        fine = held(fine_rates)
        count += fine.size
        findings = analyse(
            spec.grid, coarse, start, fine_rates=fine_rates, fine_losses=fine, level=level
        )
    why = f"{count:,} run-steps as populations{schedule}"
    return _sweep(spec, findings, "held", why, begin, count)


def _sweep(
    spec: SweepSpec, findings: Findings, kind: Any, reason: str, begin: float, steps_done: int
) -> Sweep:
    return Sweep(
        spec=spec,
        findings=findings,
        kind=kind,
        reason=reason,
        seconds=time.perf_counter() - begin,
        steps_done=steps_done,
    )


def read_range(text: str) -> tuple[float, float]:
    """``1e-5..1`` as two rates.

    >>> read_range("1e-5..1")
    (1e-05, 1.0)
    >>> read_range("1..")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: learning rates are written low..high, such as 1e-5..1; got '1..'
    """
    low, dots, high = text.partition("..")
    try:
        found = float(low), float(high)
    except ValueError:
        dots = ""
        found = (0.0, 0.0)
    if not dots:
        raise InputError(f"learning rates are written low..high, such as 1e-5..1; got '{text}'")
    return found
