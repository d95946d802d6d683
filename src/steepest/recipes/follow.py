"""From the first step to the last, or to the first gate that is shut."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from steepest.errors import InputError, LedgerError
from steepest.racing.observer import Observer, StoppedError
from steepest.recipes.kitchen import Kitchen
from steepest.recipes.records import Record, Settings, State
from steepest.recipes.steps import STEPS
from steepest.recipes.trials import Pattern
from steepest.train.task import Task

__all__ = ["Watcher", "follow"]


class Watcher(Observer, Protocol):
    """Who watches a recipe: its races, and its steps."""

    def begins(self, step: int, seconds_left: float) -> None:
        """A step begins."""

    def found(self, record: Record) -> None:
        """A step is done, or was done before."""


def follow(
    task: Task,
    settings: Settings,
    folder: Path,
    *,
    start: int | None = None,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> State:
    """Do the steps in their order; stop where a gate is shut.

    Args:
        task: The task.
        settings: What was asked for.
        folder: Everything of this recipe lies in it; what is done there is not done again.
        start: Begin with this step and go on over gates before it that were shut; default: the
            first one that is not done and open.
        fresh: Delete what lies in the folder.
        watcher: Who looks on.

    Raises:
        InputError: If steps before ``start`` were never done.
        LedgerError: If another recipe lies in the folder.
        StoppedError: After Ctrl-C; the same call goes on.
    """
    if start is not None and start not in STEPS:
        raise InputError(f"a recipe has steps 1 to {len(STEPS)}, got --from {start}")
    pattern = Pattern.read(settings.arm)
    state = _open(folder, settings, fresh=fresh)
    done = next((n for n in STEPS if n not in state.records or not state.records[n].passed), 8)
    first = done if start is None else start
    missing = [n for n in range(1, first) if n not in state.records]
    if missing:
        raise InputError(
            f"step {first} needs what step {missing[0]} finds, and that was not done in {folder}; "
            f"begin with --from {missing[0]}"
        )
    kept = {
        n: r if r.passed else replace(r, forced=True) for n, r in state.records.items() if n < first
    }
    state = State(folder, settings, kept)
    if start is not None:
        for number in range(first, len(STEPS) + 1):
            for place in folder.glob(f"{number}-*"):
                shutil.rmtree(place)
    spent = sum(record.seconds for record in kept.values())
    deadline = time.perf_counter() + settings.minutes * 60 - spent
    for record in kept.values():
        _tell(watcher, record)
    for number in range(first, len(STEPS) + 1):
        begun = time.perf_counter()
        if watcher is not None:
            watcher.begins(number, deadline - begun)
        kitchen = Kitchen(
            task=task, pattern=pattern, folder=folder, batch_size=settings.batch_size,
            device=settings.device, seeds=settings.seeds, deadline=deadline, observer=watcher,
            before=state.records,
        )  # fmt: skip
        try:
            record = replace(STEPS[number](kitchen), seconds=time.perf_counter() - begun)
        except StoppedError as error:
            again = f": {settings.command}" if settings.command else ""
            raise StoppedError(
                f"stopped in step {number}; everything that was done is kept in {folder}. The same "
                f"command goes on{again}"
            ) from error
        state = state.with_record(record)
        _tell(watcher, record)
        if not record.passed:
            break
    return state


def _tell(watcher: Watcher | None, record: Record) -> None:
    if watcher is not None:
        watcher.found(record)


def _open(folder: Path, settings: Settings, *, fresh: bool) -> State:
    there = State.read(folder)
    if there is not None and fresh:
        for place in [*folder.glob("[1-7]-*")]:
            shutil.rmtree(place)
        there = None
    if there is None:
        return State(folder, settings, {})
    for name in ("task", "arm", "batch_size", "device"):
        old, new = getattr(there.settings, name), getattr(settings, name)
        if old != new:
            raise LedgerError(
                f"{folder} holds another recipe: its {name} is {old}, now it is {new}; use another "
                "--out, or --fresh to begin again"
            )
    return there
