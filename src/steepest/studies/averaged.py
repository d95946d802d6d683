"""Averaged weights against the weights that training ends with, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from steepest.errors import InputError, unknown_name
from steepest.racing.journal import opened
from steepest.studies.measuring import fill, measure, remeasure_batch_norm
from steepest.studies.setting import Setting, Silent, Watcher
from steepest.studies.study import Study, Variant, Wish, as_spec
from steepest.studies.training import carry_out
from steepest.train.averaging import METHODS, Method, RunningMean, check_times, counts_in
from steepest.train.batchnorm import batch_norms
from steepest.train.group import Group
from steepest.train.population import Member

__all__ = ["average_runs", "read_methods"]

RAW = "raw"
_MARKS = 10  # evaluations on the way


def read_methods(methods: str | Sequence[str]) -> tuple[Method, ...]:
    """One or several of ``ema``, ``swa``, ``polyak``.

    >>> read_methods("ema"), read_methods(["polyak", "swa"])
    (('ema',), ('swa', 'polyak'))
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise InputError(f"give at least one averaging method: {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise unknown_name("averaging method", str(name), METHODS)
    return tuple(m for m in METHODS if m in names)


def average_runs(
    setting: Setting,
    folder: str | Path,
    *,
    methods: Sequence[Method],
    decay: float,
    start: float,
    every: int | None,
    fresh: bool = False,
    command: str = "",
    watcher: Watcher | None = None,
) -> Study:
    """Train every seed once, keep all averages beside it, and compare each with the raw weights.

    Averages change nothing of the training, so one run serves all methods and is its own control.

    Args:
        setting: What is trained.
        folder: The study's folder.
        methods: Which averages.
        decay: Of the EMA, per step.
        start: Where the means of ``polyak`` and ``swa`` begin, as a part of the run in [0, 1).
        every: Steps between what ``swa`` counts in; default: an epoch, or a tenth of what is
            averaged over if that is less.
        fresh: Delete a study that lies there.
        command: What repeats it.
        watcher: Who wants to see how far it is.
    """
    if not 0 <= start < 1:
        raise InputError(
            f"start is a part of the run, at least 0 and less than 1, got {start:g}; 0.5 averages "
            "over its second half"
        )
    for method in methods:
        RunningMean(method, decay=decay)
    first = int(start * setting.steps)
    rest = setting.steps - first
    period = max(1, min(setting.steps_per_epoch, rest // 10)) if every is None else every
    check_times(start=first, every=period)
    if period > rest:
        raise InputError(
            f"SWA counts weights in every {period} steps, but only {rest} of {setting.steps} steps "
            f"are left after start={start:g}; choose a smaller every or start, or train longer"
        )
    times = {"ema": (0, 1), "polyak": (first, 1), "swa": (first, period)}
    share = f"the last {100 * (1 - start):g} %" if start else "all"
    about = {
        "ema": Variant("ema", f"the EMA ({decay:g})", f"debiased, decay {decay:g} per step"),
        "polyak": Variant("polyak", "the Polyak mean", f"mean over {share} of the steps"),
        "swa": Variant("swa", "SWA", f"mean of every {period:,}th step over {share} of them"),
    }
    variants = [
        Variant(RAW, "the raw weights", "as training leaves them"),
        *(about[method] for method in methods),
    ]
    wishes = [Wish(method, RAW) for method in methods]
    spec = setting.spec(
        "average",
        methods=list(methods), decay=decay, start=start, every=period, **as_spec(variants, wishes),
    )  # fmt: skip
    watcher = watcher or Silent()
    marks = setting.steps if setting.watch is None else max(1, setting.steps // _MARKS)
    with opened(folder, spec, meta=setting.meta(command), fresh=fresh) as journal:
        carry_out(
            journal,
            setting,
            members=lambda seed: [Member(setting.arm.factory(), setting.arm.schedule, seed)],
            work=partial(
                _Averages, setting, {m: times[m] for m in methods}, decay=decay, marks=marks
            ),
            watcher=watcher,
        )
    return Study(folder)


class _Averages:
    """The averages of a group of runs, one run per seed."""

    def __init__(
        self,
        setting: Setting,
        times: dict[Method, tuple[int, int]],
        seeds: Sequence[int],
        *,
        decay: float,
        marks: int,
    ) -> None:
        self.setting = setting
        self.seeds = seeds
        self.times = times
        self.marks = marks
        self.means = {method: RunningMean(method, decay=decay) for method in times}
        self.curves: list[dict[str, list[list[float]]]] = [{} for _ in seeds]

    def next_stop(self, position: int) -> int:
        """The next step after which some average counts the weights in, or a mark."""
        stops = [(position // self.marks + 1) * self.marks]
        for start, every in self.times.values():
            stops.append(max(start, position - (position - start) % every) + every)
        return min(stops)

    def look(self, group: Group) -> None:
        """Count the weights in; at a mark, look how good they are."""
        for method, (start, every) in self.times.items():
            if counts_in(group.position, start=start, every=every):
                self.means[method].update(group.live())
        watch = self.setting.watch
        if watch is None or group.position % self.marks or group.position == self.setting.steps:
            return
        name = f"{watch}_{self.setting.task.primary[0]}"
        for place in group.alive:
            for key, numbers in self._measured(group, place, (watch,)).items():
                self.curves[place].setdefault(key, []).append([group.position, numbers[name]])

    def _measured(
        self, group: Group, place: int, splits: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        """Of one run the raw weights and all averages that there are by now."""
        setting = self.setting
        task, device = setting.task, setting.device
        model = group.model(place)
        found = {RAW: measure(task, model, splits, device=device)}
        for method, mean in self.means.items():
            if not mean.count:
                continue
            weights: dict[str, Tensor] = group.of(place, mean.tensors)
            fill(model, weights)
            if batch_norms(model):
                remeasure_batch_norm(
                    task,
                    model,
                    seed=self.seeds[place],
                    batch_size=setting.batch_size,
                    device=device,
                )
            found[method] = measure(task, model, splits, device=device)
        return found

    def rows(self, group: Group) -> list[dict[str, Any]]:
        """What came out, per seed."""
        rows = []
        for place, seed in enumerate(self.seeds):
            step = group.diverged_at[place]
            row: dict[str, Any] = {"seed": seed, "status": "done", "values": {}}
            if step is not None:
                row |= {"status": "diverged", "diverged_at": step + 1}
            else:
                row["values"] = self._measured(group, place, self.setting.splits)
            rows.append({**row, "curves": self.curves[place]})
        return rows

    def state(self) -> Any:
        """The means and the curves so far."""
        return {
            "curves": self.curves,
            "means": {
                method: {"count": mean.count, "tensors": mean.tensors}
                for method, mean in self.means.items()
            },
        }

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.curves = state["curves"]
        device = self.setting.device
        for method, saved in state["means"].items():
            self.means[method].count = saved["count"]
            self.means[method].tensors = {n: t.to(device) for n, t in saved["tensors"].items()}
