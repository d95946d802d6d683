"""Carry out a range test on a task: settle it, measure what has no row yet, read it back."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from steepest.errors import InputError, TaskError
from steepest.racing.arm import Arm
from steepest.racing.environment import environment
from steepest.racing.journal import Journal, opened
from steepest.racing.observer import Stop, stop_requests
from steepest.racing.plan import read_seeds
from steepest.sweeping.folder import KIND, Kind, Unit, kind_of, read_sweep, run_steps, to_do
from steepest.sweeping.measure import Progress, arm_of, at_rate, grow, hold, why_not_batched
from steepest.sweeping.result import HIGH, LOW, Sweep, SweepSpec
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["read_range", "sweep_task"]


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
    out: str | Path | None = None,
    fresh: bool = False,
    task_spec: str | None = None,
    command: str = "",
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
    SoloRun(  # what cannot be is found out here, before there is a folder
        task, optimizer=at_rate(chosen, low), schedule=None, seed=spec.seeds[0], steps=steps,
        batch_size=batch_size, device=device,
    )  # fmt: skip
    asked = {
        "kind": KIND,
        **asdict(spec),
        "low": float(low),
        "high": float(high),
        "classical": bool(classical),
        "task_spec": task_spec,
        "arm_text": chosen.text,
        "arm_source": chosen.source,
        "schedule": None if chosen.schedule is None else chosen.schedule.spec(),
        "fingerprint": task.fingerprint(),
    }
    folder = _default_folder(asked, chosen) if out is None else Path(out)
    meta = {"command": command, "environment": environment(device)}
    with opened(folder, asked, meta=meta, fresh=fresh) as journal:
        last_words = journal.stopped(
            "the seeds that are finished are kept", ", the one that was under way begins again"
        )
        with stop_requests(last_words) as stop:
            _carry_out(
                journal, stop, task, chosen, spec, classical=classical, batch_size=batch_size,
                progress=progress,
            )  # fmt: skip
    return read_sweep(folder)


def _default_folder(asked: Mapping[str, Any], arm: Arm) -> Path:
    """Named by everything that is asked for; the same asked for again finds what is done."""
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.+=-]+", "-", f"{asked['task']}-sweep-{arm.name}").strip("-.")[:80]
    return Path("runs") / f"{name}-{digest}"


def _carry_out(
    journal: Journal,
    stop: Stop,
    task: Task,
    arm: Arm,
    spec: SweepSpec,
    *,
    classical: bool,
    batch_size: int | None,
    progress: Progress,
) -> None:
    """Measure what has no row yet."""
    kind = kind_of(journal.events)
    if kind is None:
        kind = _decide(journal, task, arm, spec, classical=classical, batch_size=batch_size)
    while waiting := to_do(spec, kind, journal.rows):
        stop.obey()
        unit, total = waiting[0], run_steps(spec, kind, journal.rows)
        before = total - sum(each.run_steps for each in waiting)

        def told(done: int, unit: Unit = unit, before: int = before, total: int = total) -> None:
            progress(before + done, total)
            if done < unit.run_steps:
                stop.obey()

        begin = time.perf_counter()
        if unit.name == "growing":
            losses = grow(
                task, arm, unit.rates, unit.seed, batch_size=batch_size, device=spec.device,
                progress=told,
            )[None]  # fmt: skip
        else:
            losses = hold(
                task, arm, unit.rates, unit.seed, steps=spec.steps, batch_size=batch_size,
                device=spec.device, progress=told,
                note=lambda text: journal.tell("out_of_memory", text),
            )  # fmt: skip
        if not np.isfinite(losses[0, 0]):
            raise TaskError(
                f"task '{task.name}': its loss is not finite before the first step, whatever the "
                "rate; look at the data and at the loss"
            )
        journal.add(unit.row(losses, time.perf_counter() - begin))


def _decide(
    journal: Journal,
    task: Task,
    arm: Arm,
    spec: SweepSpec,
    *,
    classical: bool,
    batch_size: int | None,
) -> Kind:
    """How it is measured, once and for all: a sweep that goes on does not ask again."""
    if arm.schedule is not None:
        journal.tell("schedule", f"its schedule {arm.schedule.spec()} is left out")
    if classical:
        journal.tell("growing", "as was asked for")
        return "growing"
    reason = why_not_batched(task, arm, batch_size=batch_size, device=spec.device)
    if reason is not None:
        journal.tell("growing", f"the runs cannot be batched: {reason}")
        return "growing"
    journal.tell("held", "the runs of a seed train as one population")
    return "held"


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
