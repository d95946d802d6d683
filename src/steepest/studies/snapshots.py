"""Ensembles out of one run: its weights at the end of every cycle of the learning rate.

Huang et al., "Snapshot Ensembles: Train 1, get M for free", arXiv:1704.00109.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from steepest import schedules
from steepest.errors import InputError
from steepest.racing.journal import opened
from steepest.schedules import Schedule
from steepest.studies.judging import check_is_classifier, judge_members
from steepest.studies.measuring import fill, measure
from steepest.studies.setting import Setting, Silent, Watcher
from steepest.studies.study import Study, Variant, Wish, as_spec
from steepest.studies.training import carry_out
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState
from steepest.train.group import Group
from steepest.train.population import Member
from steepest.train.solo import model_state
from steepest.train.task import build_model

__all__ = ["cycle_ends", "cyclic_schedule", "snapshot_runs"]


def cyclic_schedule(schedule: Schedule | None, *, cycles: int, steps: int) -> Schedule:
    """Cosine waves that restart: the arm's own, or ``cycles`` equal ones.

    Raises:
        InputError: For a schedule that has no restarts, another number of them than is asked for,
            or cycles that do not fit into the run.

    >>> cyclic_schedule(None, cycles=4, steps=100)
    Schedule('cosine_restarts()')
    """
    if cycles < 2:
        raise InputError(f"a snapshot ensemble needs at least 2 snapshots, got {cycles}")
    if schedule is None:
        if 2 * cycles > steps:
            raise InputError(
                f"{cycles} cycles do not fit into a run of {steps} steps; each needs at least two, "
                "and some epochs to be of use"
            )
        schedule = schedules.cosine_restarts(period=1 / cycles)
    elif schedule.name != "cosine_restarts":
        raise InputError(
            f"snapshots are taken where the learning rate restarts, and {schedule.text} does not "
            "restart; leave the schedule out, or use cosine_restarts(period=...)"
        )
    schedule.check(steps)
    found = len(cycle_ends(schedule, steps))
    if found != cycles:
        raise InputError(
            f"{schedule.text} has {found} cycles in {steps} steps, but {cycles} snapshots were "
            f"asked for; give --snapshots {found}, or leave the schedule out"
        )
    return schedule


def cycle_ends(schedule: Schedule, steps: int) -> list[int]:
    """After how many steps the cycles end: before every jump of the learning rate, and at the end.

    >>> cycle_ends(schedules.cosine_restarts(period=0.25), 12)
    [3, 6, 9, 12]
    """
    warmup = dict(schedule.arguments)["warmup"]
    first = warmup if isinstance(warmup, int) else -int(-float(str(warmup)) * steps // 1)
    rates = [schedule(step, steps) for step in range(steps)]
    jumps = [s for s in range(first + 1, steps) if rates[s] > rates[s - 1]]
    return [*jumps, steps]


def snapshot_runs(
    setting: Setting,
    folder: str | Path,
    *,
    snapshots: int,
    last: int | None = None,
    fresh: bool = False,
    command: str = "",
    watcher: Watcher | None = None,
) -> Study:
    """Train every seed twice, with restarts and with one cosine, and compare what comes of it.

    Args:
        setting: What is trained.
        folder: The study's folder.
        snapshots: Cycles of the learning rate, each of which ends with a snapshot.
        last: How many of the last ones the ensemble has; default: all.
        fresh: Delete a study that lies there.
        command: What repeats it.
        watcher: Who wants to see how far it is.
    """
    schedule = cyclic_schedule(setting.arm.schedule, cycles=snapshots, steps=setting.steps)
    kept = snapshots if last is None else last
    if not 2 <= kept <= snapshots:
        raise InputError(
            f"an ensemble of the last {kept} of {snapshots} snapshots is none; choose --last "
            f"between 2 and {snapshots}"
        )
    ends = cycle_ends(schedule, setting.steps)
    # the whole length of a run with the same warmup, which is what its user would do instead
    plain = schedules.cosine(warmup=dict(schedule.arguments)["warmup"])
    plain.check(setting.steps)
    cyclic = replace(setting.arm, schedule=schedule)
    check_is_classifier(setting, build_model(setting.task, setting.seeds[0]).to(setting.device))
    which = f"the last {kept} of {snapshots} snapshots" if kept < snapshots else (
        f"all {snapshots} snapshots"
    )  # fmt: skip
    chosen = "validation data" if setting.watch else f"{setting.decides} data, in hindsight"
    variants = [
        Variant("ensemble", "the snapshot ensemble", f"mean of probabilities of {which}"),
        Variant("last", "its own last snapshot", "the same run's last weights"),
        Variant("best", "its best snapshot", f"chosen on the {chosen}"),
        Variant("cosine", "one cosine", "a run of the same length whose rate falls only once"),
    ]
    wishes = [Wish("ensemble", other) for other in ("last", "best", "cosine")]
    spec = setting.spec(
        "snapshots",
        schedule=schedule.spec(), plain=plain.spec(), cycle_ends=ends, last=kept,
        **as_spec(variants, wishes),
    )  # fmt: skip

    def members(seed: int) -> list[Member]:
        optimizer = cyclic.factory()
        return [Member(optimizer, schedule, seed), Member(optimizer, plain, seed)]

    with opened(folder, spec, meta=setting.meta(command), fresh=fresh) as journal:
        inside = journal.folder / "snapshots"
        inside.mkdir(exist_ok=True)
        carry_out(
            journal,
            setting,
            members=members,
            work=lambda seeds: _Snapshots(setting, seeds, inside, ends=ends, last=kept),
            watcher=watcher or Silent(),
        )
    return Study(folder)


class _Snapshots:
    """Weights at the ends of cycles, on the disk; every seed has two runs, cyclic and plain."""

    def __init__(
        self, setting: Setting, seeds: Sequence[int], folder: Path, *, ends: list[int], last: int
    ) -> None:
        self.setting = setting
        self.seeds = seeds
        self.folder = folder
        self.ends = ends
        self.last = last

    def _path(self, seed: int, number: int) -> Path:
        return self.folder / f"s{seed}-{number}.safetensors"

    def next_stop(self, position: int) -> int:
        """The end of the cycle."""
        return next(end for end in self.ends if end > position)

    def look(self, group: Group) -> None:
        """Take the snapshots."""
        number = self.ends.index(group.position)
        for place, seed in enumerate(self.seeds):
            if 2 * place in group.alive:
                tensors = {
                    name: tensor.detach().to("cpu", copy=True)
                    for name, tensor in model_state(group.model(2 * place))
                }
                checkpoint.save(self._path(seed, number), RunState(tensors, {}))

    def _models(self, group: Group, place: int) -> list[nn.Module]:
        models = []
        for number in range(len(self.ends)):
            saved = checkpoint.load(self._path(self.seeds[place], number))
            models.append(fill(group.model(2 * place), saved.tensors))
        return models

    def rows(self, group: Group) -> list[dict[str, Any]]:
        """What came out, per seed."""
        rows = []
        for place, seed in enumerate(self.seeds):
            row: dict[str, Any] = {"seed": seed, "status": "done", "values": {}}
            gone = [group.diverged_at[2 * place + i] for i in (0, 1)]
            if gone[0] is not None:
                row |= {"status": "diverged", "diverged_at": gone[0] + 1}
            else:
                found = judge_members(self.setting, self._models(group, place), last=self.last)
                best = found.pop("chosen")
                row["values"] = {
                    "ensemble": found.pop("ensemble"),
                    "last": {name: of[-1] for name, of in found["single"].items()},
                    "best": {name: of[best] for name, of in found["single"].items()},
                }
                row |= {**found, "best": best}
            if gone[1] is None:
                row["values"]["cosine"] = measure(
                    self.setting.task,
                    group.model(2 * place + 1),
                    self.setting.splits,
                    device=self.setting.device,
                )
            rows.append(row)
        return rows

    def state(self) -> Any:
        """Nothing: the snapshots lie on the disk."""
        return {}

    def restore(self, state: Any) -> None:
        """Nothing to do: see `state`."""
