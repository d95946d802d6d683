"""What came out of a race, read from its folder and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError, unknown_name
from steepest.racing.ledger import Ledger
from steepest.racing.records import Evaluation, Timing
from steepest.racing.verdict import Sample, Verdict, judge
from steepest.stats import mean_interval
from steepest.stats.curves import steps_to_target

if TYPE_CHECKING:
    import pandas as pd

    from steepest.racing.layers import LayerDifference

__all__ = ["ArmResult", "RankRow", "Result", "RunRow"]

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Curves = dict[tuple[str, int], tuple[Ints, Reals]]


@dataclass(frozen=True)
class ArmResult:
    """One side of the race, as it was written.

    Attributes:
        label: How it is called.
        text: Its canonical text.
        kind: ``rule``, ``class`` or ``factory``.
        name: Of the rule, the class or the function.
        values: The hyperparameters that were given.
        schedule: Canonical text of the schedule, or None.
    """

    label: str
    text: str
    kind: str
    name: str
    values: Mapping[str, Any]
    schedule: str | None


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        run_id: Its name in the ledger.
        arm: Label of its arm.
        seed: Its seed.
        stage: ``final`` (``tuning`` is for searches).
        status: ``pending``, ``running``, ``done``, ``diverged`` or ``failed``.
        steps: Steps that it has done.
        planned_steps: Steps that it was to do.
        metrics: Final values, ``test_accuracy``, ``val_loss`` …; empty unless it is done.
        diverged_at: The step (from 1) whose loss was not finite.
        message: Why it failed.
        start_hash: Of weights and buffers before the first step.
        order_hash: Of the batches that it was given.
        seconds: Spent in training steps, evaluation left out.
        target_step: The first evaluation that reached the target; infinite if none did, None
            without a target.
        target_seconds: Seconds of training until then.
    """

    run_id: str
    arm: str
    seed: int
    stage: str
    status: str
    steps: int
    planned_steps: int
    metrics: Mapping[str, float]
    diverged_at: int | None
    message: str | None
    start_hash: str | None
    order_hash: str | None
    seconds: float
    target_step: float | None
    target_seconds: float | None


@dataclass(frozen=True)
class RankRow:
    """An arm's final metric over its seeds.

    Attributes:
        label: The arm.
        mean: Over the runs that are done; NaN without any.
        low: Lower end of Student's interval.
        high: Upper end of it.
        n: Runs that are done.
        diverged: Runs that diverged.
    """

    label: str
    mean: float
    low: float
    high: float
    n: int
    diverged: int


class Result:
    """Everything that a race's folder says; the task's code is not needed to read it.

    The folder is read when the object is made, curves and weights when they are asked for. A race
    that is still running can be read too: what is there so far is what is shown.

    Args:
        folder: The race's folder.

    Attributes:
        folder: The race's folder.
        spec: What was planned: ``task``, ``arms``, ``seeds``, ``steps``, ``steps_per_epoch``,
            ``batch_size``, ``eval_every``, ``target``, ``device``, ``level`` ….
        arms: In the order in which they were given.
        runs: In the order of execution.
        metric: What decides, such as ``test_accuracy``.
        higher_is_better: Of that metric.
        events: What happened on the way: dicts with ``at``, ``kind``, ``run_id``, ``text``.
        timings: By arm's label and quantity: ``step_ms``, ``optimizer_ms``, ``epoch_seconds``,
            ``state_bytes``, ``state_bytes_per_parameter``, ``peak_bytes`` (CUDA only).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with Ledger.read(self.folder) as ledger, ledger.snapshot():
            self._meta = ledger.meta()
            self.spec: dict[str, Any] = self._meta["spec"]
            decides = self.spec["decides"]
            self.metric: str = f"{decides['split']}_{decides['metric']}"
            self.higher_is_better: bool = decides["higher_is_better"]
            arms = ledger.arms()
            self.arms = [
                ArmResult(a["label"], a["text"], a["kind"], a["name"], a["values"], a["schedule"])
                for a in arms
            ]
            evaluations = {
                row["run_id"]: ledger.evaluations(row["run_id"]) for row in ledger.runs()
            }
            self.runs = [
                self._run_row(row, evaluations[row["run_id"]], ledger.clock(row["run_id"]))
                for row in ledger.runs()
            ]
            self._evaluations: dict[tuple[str, int], list[Evaluation]] = {
                (run.arm, run.seed): evaluations[run.run_id] for run in self.runs
            }
            labels = {a["arm_id"]: a["label"] for a in arms}
            self.timings: dict[str, dict[str, Timing]] = {
                labels[arm_id]: {row.quantity: row for row in rows}
                for arm_id, rows in ledger.timings().items()
            }
            self.events = ledger.events()
            self._stored = ledger.stored()
            self._verdict = ledger.verdict()

    def __repr__(self) -> str:
        finished = sum(run.status == "done" for run in self.runs)
        return f"<{type(self).__name__} {self.folder}: {finished} of {len(self.runs)} runs done>"

    @property
    def task(self) -> str:
        """How the task is called."""
        return str(self.spec["task"])

    @property
    def seeds(self) -> list[int]:
        """The seeds of the final stage."""
        return list(self.spec["seeds"])

    @property
    def complete(self) -> bool:
        """Every run has come to its end, be it good or bad."""
        return all(run.status in ("done", "diverged", "failed") for run in self.runs)

    @cached_property
    def verdict(self) -> Verdict:
        """What was decided; for a race that is not finished, what can be said so far."""
        if self._verdict is not None and self.complete:
            return Verdict.from_dict(self._verdict)
        return self.judge()

    def judge(self) -> Verdict:
        """Decide from the runs, whatever the ledger says was decided."""
        samples = [
            Sample(
                r.arm, r.seed, r.status, r.metrics.get(self.metric), r.steps, r.start_hash,
                r.order_hash,
            )
            for r in self.runs
            if r.stage == "final"
        ]  # fmt: skip
        return judge(
            samples,
            metric=self.metric,
            higher_is_better=self.higher_is_better,
            level=self.spec["level"],
            min_effect=self.spec["min_effect"],
        )

    @property
    def ranking(self) -> list[RankRow]:
        """The arms from best to worst by the mean of the final metric.

        A run that diverged is worse than any value, so arms with fewer of them stand first, and
        arms without a finished run last.
        """
        rows = []
        for arm in self.arms:
            runs = [r for r in self.runs if r.arm == arm.label and r.stage == "final"]
            values = [r.metrics[self.metric] for r in runs if self.metric in r.metrics]
            diverged = sum(r.status == "diverged" for r in runs)
            mean, low, high = mean_interval(np.array(values), self.spec["level"])
            rows.append(RankRow(arm.label, mean, low, high, len(values), diverged))
        sign = -1 if self.higher_is_better else 1
        return sorted(
            rows, key=lambda r: (r.n == 0, r.diverged, 0.0 if r.n == 0 else sign * r.mean)
        )

    def curves(
        self, name: str = "train_loss", arm: str | None = None, seed: int | None = None
    ) -> Curves:
        """A curve with one value per training step.

        Args:
            name: ``train_loss`` (the loss of each batch) or ``lr``.
            arm: Only this arm.
            seed: Only this seed.

        Returns:
            By arm and seed: the steps (from 1) and the values.
        """
        if name not in ("train_loss", "lr"):
            raise unknown_name("curve", name, ["train_loss", "lr"])
        found: Curves = {}
        with Ledger.read(self.folder) as ledger, ledger.snapshot():
            for run in self._select(arm, seed):
                values = ledger.curve(run.run_id, name).astype(np.float64)
                found[run.arm, run.seed] = np.arange(1, len(values) + 1), values
        return found

    def evaluations(
        self, split: str, metric: str, arm: str | None = None, seed: int | None = None
    ) -> Curves:
        """The values of a metric on a split over the steps of training.

        Args:
            split: ``val``, ``test`` or ``train``.
            metric: ``loss`` or a metric of the task.
            arm: Only this arm.
            seed: Only this seed.

        Returns:
            By arm and seed: after how many steps, and the values.
        """
        found: Curves = {}
        for run in self._select(arm, seed):
            rows = [
                (row.step, row.value)
                for row in self._evaluations[run.arm, run.seed]
                if (row.split, row.metric) == (split, metric)
            ]
            steps = np.array([step for step, _ in rows], np.int64)
            found[run.arm, run.seed] = steps, np.array([value for _, value in rows], np.float64)
        return found

    def layer_differences(self) -> list[LayerDifference]:
        """How far apart the arms ended, layer by layer, averaged over seeds.

        Rows whose ``is_yardstick`` is true compare two seeds of one arm: a distance between arms
        means something only beside it.
        """
        from steepest.racing.layers import Weights, layer_differences

        starts = {s.seed: self.folder / s.path for s in self._stored if s.kind == "start"}
        finals = {s.run_id: self.folder / s.path for s in self._stored if s.kind == "final"}
        return layer_differences(
            Weights(run.arm, run.seed, finals[run.run_id], starts[run.seed])
            for run in self.runs
            if run.status == "done" and run.stage == "final"
        )

    def protocol(self) -> dict[str, Any]:
        """How it was done: versions, hardware, command, hashes of task and starts, times."""
        starts = {str(r.seed): r.start_hash for r in self.runs if r.start_hash}
        keys = ("created", "finished", "command", "environment", "fingerprint", "task_spec")
        return {**{key: self._meta.get(key) for key in keys}, "start_hashes": starts}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per run, with all settings of its arm.

        Raises:
            InputError: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InputError(
                'to_dataframe() needs pandas, which is missing: pip install "steepest[pandas]"'
            ) from error
        arms = {arm.label: arm for arm in self.arms}
        return pd.DataFrame([self._flat_row(run, arms[run.arm]) for run in self.runs])

    def _flat_row(self, run: RunRow, arm: ArmResult) -> dict[str, Any]:
        row: dict[str, Any] = {
            "run_id": run.run_id,
            "arm": run.arm,
            "seed": run.seed,
            "stage": run.stage,
            "status": run.status,
            "steps": run.steps,
            "planned_steps": run.planned_steps,
            "batch_size": self.spec["batch_size"],
            "optimizer": arm.name,
            "schedule": arm.schedule,
            **arm.values,
            **run.metrics,
            "target_step": run.target_step,
            "target_seconds": run.target_seconds,
            "seconds": run.seconds,
            "diverged_at": run.diverged_at,
            "start_hash": run.start_hash,
            "order_hash": run.order_hash,
        }
        return row

    def _select(self, arm: str | None, seed: int | None) -> Iterator[RunRow]:
        labels = [a.label for a in self.arms]
        if arm is not None and arm not in labels:
            raise unknown_name("arm", arm, labels)
        if seed is not None and seed not in self.seeds:
            raise unknown_name("seed", str(seed), map(str, self.seeds))
        for run in self.runs:
            if run.stage == "final" and arm in (None, run.arm) and seed in (None, run.seed):
                yield run

    def _run_row(
        self, row: Mapping[str, Any], evaluations: list[Evaluation], clock: Mapping[int, float]
    ) -> RunRow:
        metrics: dict[str, float] = {}
        if row["status"] == "done":
            last = [e for e in evaluations if e.step == row["steps_done"]]
            metrics = {f"{e.split}_{e.metric}": e.value for e in last}
        target_step, target_seconds = self._time_to_target(evaluations, clock)
        return RunRow(
            run_id=row["run_id"],
            arm=row["label"],
            seed=row["seed"],
            stage=row["stage"],
            status=row["status"],
            steps=row["steps_done"],
            planned_steps=row["steps"],
            metrics=metrics,
            diverged_at=row["diverged_at"],
            message=row["message"],
            start_hash=row["start_hash"],
            order_hash=row["order_hash"],
            seconds=max(clock.values(), default=0.0),
            target_step=target_step,
            target_seconds=target_seconds,
        )

    def _time_to_target(
        self, evaluations: list[Evaluation], clock: Mapping[int, float]
    ) -> tuple[float | None, float | None]:
        target = self.spec["target"]
        if target is None:
            return None, None
        key = (target["split"], target["metric"])
        seen = [(e.step, e.value) for e in evaluations if (e.split, e.metric) == key]
        if not seen:
            return math.inf, math.inf
        steps, values = zip(*seen, strict=True)
        step = steps_to_target(
            np.array(steps),
            np.array(values),
            target["value"],
            higher_is_better=target["higher_is_better"],
        )
        return step, clock[int(step)] if math.isfinite(step) else math.inf
