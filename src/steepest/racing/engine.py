"""Which engine carries out a stage's runs: chosen once, written down, and kept when it is resumed.

``population`` trains many runs as one batched computation, here or in several processes at once,
``processes`` one run in each of several processes, ``solo`` one run after the other. All give the
same losses within rounding; only the same engine gives the same bits, so a resumed race goes on
with the one that it was begun with. The runs that are added within the tuning stage are carried out
as those before them; for the final stage, whose runs are others in length and number, the choice is
made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch

from steepest.errors import LedgerError, UnsupportedError, unknown_name
from steepest.racing.apart import Job, Worker, WorkerLostError, carry_out_apart
from steepest.racing.fit import in_groups, try_population
from steepest.racing.herd import gather_there
from steepest.racing.probe import Found, probe, using
from steepest.racing.record import Place
from steepest.racing.solo import carry_out
from steepest.racing.spec import RunPlan
from steepest.racing.together import build, carry_out_together

__all__ = ["Engine", "EngineName", "check_engine", "settle"]

EngineName = Literal["auto", "solo", "processes", "population"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How runs are carried out.

    Attributes:
        name: ``solo``, ``processes`` or ``population``.
        asked: What was asked for, ``auto`` for a choice by measurement.
        groups: Of populations: which runs train together. Runs in none train one by one.
        compiled: Of populations: whether the model runs through `torch.compile`.
        workers: How many processes; 1: this one.
        threads: That torch may use, in each process.
        reason: Why this one.
        wave: The runs that it is for: those that were added together.
        stage: Of these runs.
        size: Of populations, at most.
        together: Of populations: labels of the arms that can train in them.
    """

    name: str
    asked: str
    groups: tuple[tuple[str, ...], ...] = ()
    compiled: bool = False
    workers: int = 1
    threads: int
    reason: str
    wave: int = 0
    stage: str = "final"
    size: int = 1
    together: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the ledger."""
        groups = [list(group) for group in self.groups]
        return {**vars(self), "groups": groups, "together": list(self.together)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Engine:
        """What `to_dict` wrote."""
        groups = tuple(map(tuple, values["groups"]))
        return cls(**{**values, "groups": groups, "together": tuple(values["together"])})

    def again(self, waiting: Sequence[RunPlan]) -> Engine:
        """The same for further runs of the stage."""
        ids = [run.run_id for run in waiting if run.arm.label in self.together]
        groups = in_groups(ids, self.size, multiple=self.workers)
        return replace(self, wave=waiting[0].wave, groups=groups)

    def carry_out(self, place: Place, waiting: Sequence[RunPlan]) -> None:
        """Bring the runs that are not finished to their ends; `StoppedError` if asked to stop."""
        everything = {run.run_id: run for run in place.plan.runs}
        left = {run.run_id for run in waiting}
        groups = [
            [everything[run_id] for run_id in group]
            for group in self.groups
            if left.intersection(group)
        ]
        grouped = {run.run_id for group in groups for run in group}
        singly = [run for run in waiting if run.run_id not in grouped]
        if self.workers > 1:
            carry_out_apart(
                place,
                singly,
                workers=self.workers,
                threads=self.threads,
                jobs=[(group, _gathered(group)) for group in groups],
            )
            place.stop.obey()
            return
        with using(self.threads):
            for group in groups:
                singly += carry_out_together(
                    place,
                    group,
                    at_start=partial(build, place, compiled=self.compiled),
                    regroup=partial(_regroup, place, [run.run_id for run in group]),
                )
                place.stop.obey()
            for run in singly:
                carry_out(place, run)
                place.stop.obey()


def _gathered(group: Sequence[RunPlan]) -> Job:
    """Carries out a group, or the groups that have taken its place by now, in a worker."""

    def carry_out_there(place: Place, worker: Worker) -> Sequence[RunPlan]:
        runs = {run.run_id: run for run in group}
        left: list[RunPlan] = []
        for now in place.ledger.meta()["engine"]["groups"]:
            if set(now) <= set(runs):
                left += carry_out_together(
                    place,
                    [runs[run_id] for run_id in now],
                    at_start=partial(gather_there, worker, place.plan),
                    regroup=partial(_regroup, place, now),
                    passing=(WorkerLostError,),
                )
        return left

    return carry_out_there


def _regroup(place: Place, old: Sequence[str], new: Sequence[Sequence[str]]) -> None:
    """Other groups take the place of one; what is left of it is in them."""
    engine = place.ledger.meta()["engine"]
    groups: list[list[str]] = []
    for group in engine["groups"]:
        if not set(group) & set(old):
            groups.append(group)
        elif not any(set(g) & set(old) for g in groups):
            groups += [list(g) for g in new]
    place.ledger.put_meta({"engine": {**engine, "groups": groups}})


def check_engine(name: str) -> None:
    """Raise `InputError` unless there is such an engine."""
    if name not in get_args(EngineName):
        raise unknown_name("engine", name, get_args(EngineName))


def settle(
    place: Place, waiting: Sequence[RunPlan], asked: str | None, *, times: int = 1
) -> Engine:
    """The engine that the runs were begun with; for new ones, the one asked for or the fastest.

    Args:
        place: The race.
        waiting: The runs of one wave that are not finished.
        asked: None: the recorded one, else solo.
        times: How often as many runs are still to come in this stage, these included.

    Raises:
        LedgerError: If the race was begun with another one than is asked for.
        UnsupportedError: If the one asked for cannot carry out these runs.
    """
    recorded = place.ledger.meta().get("engine")
    wave, stage = waiting[0].wave, waiting[0].stage
    name = asked or "solo"
    if recorded is not None:
        engine = Engine.from_dict(recorded)
        if asked not in (None, "auto", engine.name, engine.asked):
            raise LedgerError(
                f"{place.ledger.folder} was begun with engine '{engine.name}' and {asked!r} is "
                "asked for now; the same engine gives the same bits, so go on without --engine, "
                "or use --fresh to begin again"
            )
        if engine.wave == wave:
            return engine
        if engine.stage == stage == "tuning":
            engine = engine.again(waiting)
            with place.ledger.transaction():
                place.ledger.put_meta({"engine": engine.to_dict()})
            return engine
        name = engine.asked
    check_engine(name)
    if name == "auto":
        what = "this race" if place.plan.spec.tuning is None else f"the {stage} stage"
        place.observer.note(f"Measuring which engine is the fastest for {what}")
        found = probe(place, waiting, times=times)
    else:
        found = _asked_for(place, waiting, name)
    best = found.best
    engine = Engine(
        name=best.engine,
        asked=name,
        groups=in_groups([run.run_id for run in found.together], best.size, multiple=best.workers),
        compiled=best.compiled,
        workers=best.workers,
        threads=best.threads,
        reason=found.reason,
        wave=wave,
        stage=stage,
        size=best.size,
        together=tuple(dict.fromkeys(run.arm.label for run in found.together)),
    )
    with place.ledger.transaction():
        place.ledger.put_meta({"engine": engine.to_dict()})
        if asked is not None or recorded is not None:
            place.ledger.put_event("engine", found.reason)
            for kind, text in found.events:
                place.ledger.put_event(kind, text)
    if asked is not None or recorded is not None:
        place.observer.note(found.reason)
    return engine


def _asked_for(place: Place, waiting: Sequence[RunPlan], name: str) -> Found:
    threads = torch.get_num_threads()
    if name == "processes":
        reason = place.handout.why_not()
        if reason is not None:
            raise UnsupportedError(f"engine 'processes' cannot carry out this race: {reason}")
        return Found.asked(name, workers=max(2, threads), threads=1)
    if name == "population":
        tried = try_population(place, waiting)
        if tried.size is None:
            reasons = "; ".join(text for _, text in tried.events)
            raise UnsupportedError(
                f"engine 'population' cannot carry out this race: {reasons}; use engine='auto'"
            )
        return Found.asked(
            name, size=tried.size, threads=threads, together=tried.together, events=tried.events
        )
    return Found.asked(name, threads=threads)
