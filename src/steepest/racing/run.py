"""Carry out a plan: what is left of it, whoever began it."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from steepest.racing import timing
from steepest.racing.database import now
from steepest.racing.engine import settle
from steepest.racing.environment import differences, environment
from steepest.racing.folder import sweep
from steepest.racing.ledger import Ledger
from steepest.racing.objects import Handout
from steepest.racing.observer import Observer, Pace, Silent, StoppedError, stop_requests, stopped
from steepest.racing.record import Place
from steepest.racing.result import Result
from steepest.racing.spec import Plan, RunPlan
from steepest.racing.stages import following, grown, waves_like_it
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
    """Do what is left of a plan: the tuning stage, the final stage, the timing pass, the verdict.

    A run that diverges, or whose code raises, is recorded, and the race goes on. Runs that failed
    in an earlier execution are tried again, unless something was decided from that.

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
    plan = grown(plan, ledger)
    waiting = _waiting(ledger, plan, retry=True)
    watcher.started(plan, {row["run_id"]: row["steps_done"] for row in ledger.runs()})
    if waiting or ledger.verdict() is None:
        _begin(ledger, plan, watcher)
    spec = plan.spec
    handout = Handout(plan.task_spec, task, spec.arms, train_on=spec.train_on)
    with closing(handout), stop_requests(stopped(ledger.folder)) as stop:
        while True:
            for _, wave in itertools.groupby(waiting, key=lambda run: run.wave):
                runs = list(wave)
                place = Place(ledger, plan, task, watcher, speed, stop, handout)
                settle(place, runs, engine, times=waves_like_it(plan.spec, runs)).carry_out(
                    place, runs
                )
            addition = following(plan.spec, ledger)
            if addition is None:
                break
            ledger.add(addition)
            plan = grown(plan, ledger)
            watcher.added(plan)
            for _, text in addition.events:
                watcher.note(text)
            waiting = _waiting(ledger, plan)
        if speed.timing and not ledger.timings():
            watcher.note("Measuring what a step costs, the arms taking turns")
            _time(ledger, plan, task, seconds=speed.timing)
            stop.obey()
    _decide(ledger)
    rows = ledger.runs()
    return Outcome(
        Counter(row["status"] for row in rows),
        {row["run_id"]: row["message"] for row in rows if row["status"] == "failed"},
    )


def _waiting(ledger: Ledger, plan: Plan, *, retry: bool = False) -> list[RunPlan]:
    """The runs that are not finished, in the order of their execution.

    Args:
        ledger: The race.
        plan: With all of its runs.
        retry: Also those that failed, as long as nothing was decided from that: in the tuning
            stage those of the last wave, in the final stage all of it.
    """
    rows = {row["run_id"]: row for row in ledger.runs()}
    last = plan.runs[-1]
    again = {
        run.run_id
        for run in plan.runs
        if rows[run.run_id]["status"] == "failed"
        and run.stage == last.stage
        and (run.stage == "final" or run.wave == last.wave)
    }
    return [
        run
        for run in plan.runs
        if rows[run.run_id]["status"] in ("pending", "running") or (retry and run.run_id in again)
    ]


def _decide(ledger: Ledger) -> None:
    """Make the verdict, and record it with the look that it was, if they are new."""
    result = Result(ledger.folder)
    verdict = result.judge()
    looks = ledger.looks()
    with ledger.transaction():
        if verdict.pairs and (not looks or set(looks[-1]) != set(verdict.seeds)):
            ledger.put_look(verdict.seeds)
        if ledger.put_verdict(verdict.to_dict()):
            ledger.put_meta({"finished": now()})


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
    final = [run for run in plan.runs if run.stage == "final" and run.role != "defaults"]
    chosen = {run.arm.label: run.arm for run in final}
    arms = [chosen[arm.label] for arm in plan.spec.arms]
    found = timing.measure(task, plan.spec, arms=arms, seconds=seconds)
    for number, rows in found.rows.items():
        ledger.put_timings(number, rows)
    for number, reason in found.left_out.items():
        label = plan.spec.arms[number].label
        ledger.put_event("no_timing", f"{label} could not be timed: {reason}")
