"""Carry out a study's runs, in groups that keep step; what is on its way survives Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from steepest.errors import InputError, LedgerError
from steepest.racing.journal import CHECKPOINT, Journal
from steepest.racing.observer import Stop, stop_requests
from steepest.studies.setting import Setting, Watcher
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState, pack, unpack
from steepest.train.group import Group, how_to_train
from steepest.train.memory import is_out_of_memory
from steepest.train.population import Member

__all__ = ["Work", "carry_out"]

_COMMIT = 20.0  # seconds between two checkpoints
_LOOK = 0.5  # seconds between two looks at the progress


class Work(Protocol):
    """What a study does with a group of runs while they are trained."""

    def next_stop(self, position: int) -> int:
        """The next position at which `look` wants to be called."""

    def look(self, group: Group) -> None:
        """Look at the runs where they are now."""

    def rows(self, group: Group) -> list[dict[str, Any]]:
        """One per seed, when the runs are at their ends."""

    def state(self) -> Any:
        """What `restore` needs, as nested plain values and tensors."""

    def restore(self, state: Any) -> None:
        """Go to where a state was taken."""


@dataclass
class _Place:
    """What all groups of a study have in common."""

    journal: Journal
    setting: Setting
    members: Callable[[int], Sequence[Member]]
    work: Callable[[Sequence[int]], Work]
    watcher: Watcher
    stop: Stop
    done: int
    total: int


def carry_out(
    journal: Journal,
    setting: Setting,
    *,
    members: Callable[[int], Sequence[Member]],
    work: Callable[[Sequence[int]], Work],
    watcher: Watcher,
) -> None:
    """Train the runs of all seeds that have no row yet.

    Args:
        journal: Open for writing.
        setting: What is trained.
        members: The runs of a seed; equally many for every seed.
        work: Made for the seeds of a group, before they are trained.
        watcher: Who wants to see how far it is.

    Raises:
        StoppedError: After Ctrl-C; repeating the study goes on.
    """
    finished = {row["seed"] for row in journal.rows}
    waiting = [seed for seed in setting.seeds if seed not in finished]
    if not waiting:
        return
    each = len(members(waiting[0]))
    size, together, why = how_to_train(
        setting.task,
        [member for seed in waiting for member in members(seed)],
        steps=setting.steps,
        batch_size=setting.batch_size,
        device=setting.device,
    )
    journal.tell("engine", f"Trained in {why}" if together else f"Trained {why}")
    with stop_requests(journal.stopped("everything that was done is kept")) as stop:
        place = _Place(
            journal, setting, members, work, watcher, stop,
            done=len(finished) * each * setting.steps,
            total=len(setting.seeds) * each * setting.steps,
        )  # fmt: skip
        saved = _saved(place, waiting)
        groups: list[list[int]] = []
        if saved is not None:
            groups.append(list(saved.meta["seeds"]))
            together = bool(saved.meta["together"])
            waiting = [seed for seed in waiting if seed not in groups[0]]
        per_group = max(1, size // each) if together else 1
        groups += [waiting[i : i + per_group] for i in range(0, len(waiting), per_group)]
        while groups:
            seeds = groups.pop(0)
            try:
                _train(place, seeds, together=together, saved=saved)
            except Exception as error:
                if not is_out_of_memory(error) or len(seeds) < 2:
                    raise
                half = (len(seeds) + 1) // 2
                groups = [seeds[:half], seeds[half:], *groups]
                text = f"{len(seeds)} seeds at a time do not fit into memory; halved"
                journal.tell("out_of_memory", text)
                watcher.note(text)
                (journal.folder / CHECKPOINT).unlink(missing_ok=True)
            saved = None


def _saved(place: _Place, waiting: Sequence[int]) -> RunState | None:
    """Where runs that were interrupted can go on; None if there is no such place."""
    path = place.journal.folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = checkpoint.load(path)
    except LedgerError as error:
        place.journal.tell("restarted", f"Runs that were under way begin again: {error}")
        path.unlink()
        return None
    return state if set(state.meta["seeds"]) <= set(waiting) else None


def _train(place: _Place, seeds: Sequence[int], *, together: bool, saved: RunState | None) -> None:
    setting, journal = place.setting, place.journal
    runs = [member for seed in seeds for member in place.members(seed)]
    group = Group(
        setting.task,
        runs,
        steps=setting.steps,
        batch_size=setting.batch_size,
        device=setting.device,
        together=together,
    )
    work = place.work(seeds)
    if saved is not None:
        _restore(group, work, saved)
    committed = looked = time.monotonic()
    while group.position < setting.steps and group.alive:
        stop = min(work.next_stop(group.position), setting.steps)
        before = group.position
        group.advance(stop - before)
        if group.position == before:
            break
        if group.position == stop:
            work.look(group)
        now = time.monotonic()
        if now - looked >= _LOOK:
            looked = now
            told = f"{len(seeds)} seeds: step {group.position}/{setting.steps}"
            place.watcher.advanced(place.done + group.position * len(runs), place.total, told)
        if place.stop.requested or now - committed >= _COMMIT:
            if group.alive:
                _save(place, group, work, seeds, together=together)
            committed = time.monotonic()
            place.stop.obey()
    for row in work.rows(group):
        journal.add(row)
    (journal.folder / CHECKPOINT).unlink(missing_ok=True)
    place.done += setting.steps * len(runs)
    place.watcher.advanced(place.done, place.total, f"{len(journal.rows)} seeds done")
    place.stop.obey()


def _save(place: _Place, group: Group, work: Work, seeds: Sequence[int], *, together: bool) -> None:
    state = group.state()
    tensors = {f"group/{name}": tensor for name, tensor in state.tensors.items()}
    meta: Mapping[str, Any] = {
        "seeds": list(seeds),
        "together": together,
        "group": state.meta,
        "work": pack(work.state(), "work", tensors),
    }
    checkpoint.save(place.journal.folder / CHECKPOINT, RunState(tensors, dict(meta)))


def _restore(group: Group, work: Work, saved: RunState) -> None:
    prefix = "group/"
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in saved.tensors.items()
        if name.startswith(prefix)
    }
    try:
        group.restore(RunState(tensors, saved.meta["group"]))
    except InputError as error:
        raise LedgerError(
            f"the runs that were under way cannot go on: {error}; use --fresh to begin again"
        ) from error
    work.restore(unpack(saved.meta["work"], saved.tensors))
