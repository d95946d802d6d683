"""Carry out a plan: what is left of it, whoever began it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from steepest.racing import timing
from steepest.racing.database import now
from steepest.racing.engine import settle
from steepest.racing.environment import differences, environment
from steepest.racing.folder import sweep
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Observer, Pace, Silent, StoppedError, stop_requests
from steepest.racing.plan import Plan
from steepest.racing.record import Place
from steepest.racing.result import Result
from steepest.train.task import Task

__all__ = ["Observer", "Outcome", "Pace", "StoppedError", "execute"]


@dataclass(frozen=True)
class Outcome:
    """How the runs of a race ended.

    Attributes:
        statuses: How many runs are ``done``, ``diverged``, ``failed``.
        failures: Message by run.
    """

    statuses: Mapping[str, int]
    failures: Mapping[str, str] = field(default_factory=dict)


def execute(
    ledger: Ledger,
    plan: Plan,
    task: Task,
    *,
    observer: Observer | None = None,
    pace: Pace | None = None,
    engine: str | None = None,
) -> Outcome:
    """Do what is left of a plan.

    A run that diverges, or whose code raises, is recorded, and the race goes on. Runs that failed
    in an earlier execution are tried again.

    Args:
        ledger: Open for writing, with this plan in it; see `steepest.racing.folder.open_race`.
        plan: What to do.
        task: What to train.
        observer: Who wants to see how far it is.
        pace: How often the loop looks up.
        engine: How runs are carried out: ``auto``, ``solo``, ``processes`` or ``population``. A
            race that was begun keeps its engine. None: that one, else ``solo``.

    Raises:
        StoppedError: After Ctrl-C or a request to terminate; what was done is committed.
        LedgerError: If the folder cannot be written any more, and the last commit stands; or if
            the race was begun with another engine.
    """
    watcher = observer or Silent()
    speed = pace or Pace()
    done = {row["run_id"]: row["steps_done"] for row in ledger.runs()}
    finished = {row["run_id"] for row in ledger.runs() if row["status"] in ("done", "diverged")}
    watcher.started(plan, done)
    if len(finished) < len(plan.runs) or ledger.verdict() is None:
        _begin(ledger, plan, watcher)
    with stop_requests(ledger.folder) as stop:
        waiting = [planned for planned in plan.runs if planned.run_id not in finished]
        if waiting:
            place = Place(ledger, plan, task, watcher, speed, stop)
            settle(place, waiting, engine).carry_out(place, waiting)
        if speed.timing and not ledger.timings():
            watcher.note("Measuring what a step costs, the arms taking turns")
            _time(ledger, plan, task, seconds=speed.timing)
            stop.obey()
    if ledger.put_verdict(Result(ledger.folder).judge().to_dict()):
        with ledger.transaction():
            ledger.put_meta({"finished": now()})
    rows = ledger.runs()
    return Outcome(
        Counter(row["status"] for row in rows),
        {row["run_id"]: row["message"] for row in rows if row["status"] == "failed"},
    )


def _begin(ledger: Ledger, plan: Plan, watcher: Observer) -> None:
    """Tidy up after whoever was here before, and record what has changed since."""
    sweep(ledger)
    resumed = any(event["kind"] == "opened" for event in ledger.events())
    here = environment(plan.spec.device)
    changed = differences(ledger.meta()["environment"], here)
    if changed:
        text = (
            f"The machine is not what it was when the race began ({'; '.join(changed)}): runs may "
            "differ from uninterrupted ones in their last bits"
        )
        ledger.put_event("environment", text)
        watcher.note(text)
    ledger.put_event("opened", f"{'resumed' if resumed else 'begun'} by process {os.getpid()}")


def _time(ledger: Ledger, plan: Plan, task: Task, *, seconds: float) -> None:
    found = timing.measure(task, plan.spec, seconds=seconds)
    for number, rows in found.rows.items():
        ledger.put_timings(number, rows)
    for number, reason in found.left_out.items():
        label = plan.spec.arms[number].label
        ledger.put_event("no_timing", f"{label} could not be timed: {reason}")
