"""Which engine carries out a race's runs: chosen once, written down, and kept when it is resumed.

``population`` trains many runs as one batched computation, ``processes`` one run in each of several
processes, ``solo`` one run after the other. All give the same losses within rounding; only the same
engine gives the same bits, so a resumed race goes on with the one that it was begun with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from steepest.errors import LedgerError, UnsupportedError, unknown_name
from steepest.racing.apart import carry_out_apart, why_not_apart
from steepest.racing.fit import in_groups, try_population
from steepest.racing.plan import RunPlan
from steepest.racing.probe import Found, probe, using
from steepest.racing.record import Place
from steepest.racing.solo import carry_out
from steepest.racing.together import carry_out_together

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
        workers: Of processes: how many.
        threads: That torch may use, in each process.
        reason: Why this one.
    """

    name: str
    asked: str
    groups: tuple[tuple[str, ...], ...] = ()
    compiled: bool = False
    workers: int = 1
    threads: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the ledger."""
        return {**vars(self), "groups": [list(group) for group in self.groups]}

    def carry_out(self, place: Place, waiting: Sequence[RunPlan]) -> None:
        """Bring the runs that are not finished to their ends; `StoppedError` if asked to stop."""
        if self.name == "processes":
            carry_out_apart(place, waiting, workers=self.workers, threads=self.threads)
            place.stop.obey()
            return
        with using(self.threads):
            self._carry_out_here(place, waiting)

    def _carry_out_here(self, place: Place, waiting: Sequence[RunPlan]) -> None:
        left = {run.run_id: run for run in waiting}
        everything = {run.run_id: run for run in place.plan.runs}
        for group in self.groups:
            if not any(run_id in left for run_id in group):
                continue
            runs = [everything[run_id] for run_id in group]
            apart = carry_out_together(
                place,
                runs,
                compiled=self.compiled,
                regroup=lambda new, old=group: _regroup(place, old, new),  # type: ignore[misc]
            )
            for run_id in set(group) - {run.run_id for run in apart}:
                left.pop(run_id, None)
            place.stop.obey()
        for run in left.values():
            carry_out(place, run)
            place.stop.obey()


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


def settle(place: Place, waiting: Sequence[RunPlan], asked: str | None) -> Engine:
    """The engine that the race was begun with; for a new race, the one asked for or the fastest.

    Args:
        place: The race.
        waiting: The runs that are not finished.
        asked: None: the recorded one, else solo.

    Raises:
        LedgerError: If the race was begun with another one than is asked for.
        UnsupportedError: If the one asked for cannot carry out these runs.
    """
    recorded = place.ledger.meta().get("engine")
    if recorded is not None:
        engine = Engine(**{**recorded, "groups": tuple(map(tuple, recorded["groups"]))})
        if asked not in (None, "auto", engine.name, engine.asked):
            raise LedgerError(
                f"{place.ledger.folder} was begun with engine '{engine.name}' and {asked!r} is "
                "asked for now; the same engine gives the same bits, so go on without --engine, "
                "or use --fresh to begin again"
            )
        return engine
    begun = any(row["status"] != "pending" for row in place.ledger.runs())
    name = "solo" if begun else asked or "solo"  # before there were engines, all was solo
    check_engine(name)
    if name == "auto":
        place.observer.note("Measuring which engine is the fastest for this race")
        found = probe(place, waiting)
    else:
        found = _asked_for(place, waiting, name)
    best = found.best
    engine = Engine(
        name=best.engine,
        asked=name,
        groups=in_groups([run.run_id for run in found.together], best.size),
        compiled=best.compiled,
        workers=best.workers,
        threads=best.threads,
        reason=found.reason,
    )
    with place.ledger.transaction():
        place.ledger.put_meta({"engine": engine.to_dict()})
        if asked is not None:
            place.ledger.put_event("engine", found.reason)
            for kind, text in found.events:
                place.ledger.put_event(kind, text)
    if asked is not None:
        place.observer.note(found.reason)
    return engine


def _asked_for(place: Place, waiting: Sequence[RunPlan], name: str) -> Found:
    threads = torch.get_num_threads()
    if name == "processes":
        reason = why_not_apart(place.plan)
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
