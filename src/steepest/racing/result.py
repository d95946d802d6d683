"""What came out of a race, read from its folder and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from steepest.errors import LedgerError, unknown_name
from steepest.extras import need
from steepest.racing.ledger import Ledger
from steepest.racing.records import Evaluation, Timing
from steepest.racing.rows import ArmResult, RankRow, RunRow, TrialRow, TuningRow
from steepest.racing.selection import read_trials
from steepest.racing.verdict import Sample, Verdict, judge
from steepest.stats import mean_interval
from steepest.stats.curves import steps_to_target
from steepest.train.precision import FLOAT32

if TYPE_CHECKING:
    import pandas as pd

    from steepest.racing.layers import LayerDifference

__all__ = ["ArmResult", "RankRow", "Result", "RunRow", "TrialRow", "TuningRow"]

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Curve = tuple[Ints, Reals]
Curves = dict[tuple[str, int], Curve]
RunCurves = dict[str, Curve]


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
        runs: Of both stages, in the order of execution; see `final_runs`.
        trials: The settings of all arms, and how they did in the tuning stage.
        tuning: How arms were tuned; None if every arm was given its setting.
        looks: The seeds of every verdict that was made on more seeds than the one before.
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
            self.trials, self.tuning = read_trials(ledger, self._meta)
            chosen = {trial.arm: trial.values for trial in self.trials if trial.selected}
            self.arms = [
                ArmResult(
                    a["label"],
                    a["text"],
                    a["kind"],
                    a["name"],
                    a["values"],
                    a["schedule"],
                    a.get("space"),
                    chosen.get(a["label"], {}),
                )
                for a in arms
            ]
            evaluations = {
                row["run_id"]: ledger.evaluations(row["run_id"]) for row in ledger.runs()
            }
            self.runs = [
                self._run_row(row, evaluations[row["run_id"]], ledger.clock(row["run_id"]))
                for row in ledger.runs()
            ]
            self._evaluations: dict[str, list[Evaluation]] = evaluations
            self.looks = ledger.looks()
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
    def precision(self) -> str | None:
        """What the runs computed in; None for a run of somebody else's loop, which does not say."""
        unsaid = None if "driver" in self._meta else FLOAT32  # as of ledgers before it was asked
        precision: str | None = self.spec.get("precision", unsaid)
        return precision

    @property
    def seeds(self) -> list[int]:
        """The seeds of the final stage, those that were added later included."""
        return [*self.spec["seeds"], *self._meta.get("extended", ())]

    @property
    def final_runs(self) -> list[RunRow]:
        """The runs that are compared: each arm's one setting on the seeds of the final stage."""
        return [run for run in self.runs if run.stage == "final" and run.role != "defaults"]

    @property
    def defaults_runs(self) -> list[RunRow]:
        """The runs of the tuned arms' defaults, where they were asked for; not compared."""
        return [run for run in self.runs if run.role == "defaults"]

    @property
    def tuning_runs(self) -> list[RunRow]:
        """The runs of the tuning stage; no test data was read in them."""
        return [run for run in self.runs if run.stage == "tuning"]

    @property
    def tuned(self) -> list[str]:
        """Labels of the arms that were tuned; the others were given their setting."""
        return [arm.label for arm in self.arms if arm.space is not None]

    def chosen(self, arm: str) -> TrialRow | None:
        """The setting of an arm in the final stage; None as long as it is not chosen."""
        self._check_arm(arm)
        return next((t for t in self.trials if t.arm == arm and t.selected), None)

    @property
    def measured(self) -> list[str]:
        """What was evaluated, on any split: the loss and the task's metrics."""
        return sorted({row.metric for rows in self._evaluations.values() for row in rows})

    @property
    def complete(self) -> bool:
        """Every run of both stages has come to its end, be it good or bad."""
        over = self.tuning is None or self.tuning.over
        return over and all(run.status in ("done", "diverged", "failed") for run in self.runs)

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
            for r in self.final_runs
        ]  # fmt: skip
        return judge(
            samples,
            metric=self.metric,
            higher_is_better=self.higher_is_better,
            level=self.spec["level"],
            min_effect=self.spec["min_effect"],
            looks=self.looks,
            tuning=self.tuning,
            trials=self.trials,
            precision=self.precision,
        )

    @property
    def ranking(self) -> list[RankRow]:
        """The arms from best to worst by the mean of the final metric.

        A run that diverged is worse than any value, so arms with fewer of them stand first, and
        arms without a finished run last.
        """
        rows = []
        for arm in self.arms:
            runs = [r for r in self.final_runs if r.arm == arm.label]
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
        """A curve with one value per training step, of the runs that are compared.

        Args:
            name: ``train_loss`` (the loss of each batch) or ``lr``.
            arm: Only this arm.
            seed: Only this seed.

        Returns:
            By arm and seed: the steps (from 1) and the values.
        """
        runs = list(self._select(arm, seed))
        return {(run.arm, run.seed): found for run, found in self._curves(name, runs)}

    def tuning_curves(self, name: str = "train_loss", arm: str | None = None) -> RunCurves:
        """The same for the runs of the tuning stage, by ``run_id``."""
        runs = [run for run in self.tuning_runs if arm in (None, run.arm)]
        return {run.run_id: found for run, found in self._curves(name, runs)}

    def _curves(self, name: str, runs: Iterable[RunRow]) -> list[tuple[RunRow, Curve]]:
        if name not in ("train_loss", "lr"):
            raise unknown_name("curve", name, ["train_loss", "lr"])
        found = []
        with Ledger.read(self.folder) as ledger, ledger.snapshot():
            for run in runs:
                values = ledger.curve(run.run_id, name).astype(np.float64)
                found.append((run, (np.arange(1, len(values) + 1), values)))
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
        runs = list(self._select(arm, seed))
        return {(run.arm, run.seed): self._evaluated(run, split, metric) for run in runs}

    def tuning_evaluations(self, metric: str, arm: str | None = None) -> RunCurves:
        """The values of a metric on the validation data in the tuning stage, by ``run_id``."""
        runs = [run for run in self.tuning_runs if arm in (None, run.arm)]
        return {run.run_id: self._evaluated(run, "val", metric) for run in runs}

    def _evaluated(self, run: RunRow, split: str, metric: str) -> Curve:
        rows = [
            (row.step, row.value)
            for row in self._evaluations[run.run_id]
            if (row.split, row.metric) == (split, metric)
        ]
        steps = np.array([step for step, _ in rows], np.int64)
        return steps, np.array([value for _, value in rows], np.float64)

    def layer_differences(self) -> list[LayerDifference]:
        """How far apart the arms ended, layer by layer, averaged over seeds.

        Rows whose ``is_yardstick`` is true compare two seeds of one arm: a distance between arms
        means something only beside it.
        """
        from steepest.racing.layers import Weights, layer_differences

        if "driver" in self._meta:
            raise LedgerError(f"the weights of this run stayed with {self._meta['driver']}")
        starts = {s.seed: self.folder / s.path for s in self._stored if s.kind == "start"}
        finals = {s.run_id: self.folder / s.path for s in self._stored if s.kind == "final"}
        done = [run for run in self.final_runs if run.status == "done"]
        without = [r.run_id for r in done if r.run_id not in finals or r.seed not in starts]
        if without:
            raise LedgerError(
                f"the ledger in {self.folder} knows no weights of {', '.join(without)}, although "
                "they are done; the layers cannot be compared without them; restore the ledger "
                "from a copy, or race again with another --out"
            )
        return layer_differences(
            Weights(run.arm, run.seed, finals[run.run_id], starts[run.seed]) for run in done
        )

    def protocol(self) -> dict[str, Any]:
        """How it was done: versions, hardware, command, hashes of task and starts, times."""
        starts = {str(r.seed): r.start_hash for r in self.runs if r.start_hash}
        keys = ("created", "finished", "command", "environment", "fingerprint", "task_spec")
        return {
            **{key: self._meta.get(key) for key in keys},
            "start_hashes": starts,
            "tuning": asdict(self.tuning) if self.tuning else None,
            "spaces": self._meta.get("spaces"),
            "trials": [asdict(trial) for trial in self.trials] if self.tuning else None,
            "looks": self.looks,
            "engine": self._meta.get("engine"),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per run of both stages, with all values of its setting.

        Raises:
            UnsupportedError: If pandas is not installed.
        """
        pandas = need("pandas", extra="pandas", what="to_dataframe()")
        arms = {arm.label: arm for arm in self.arms}
        trials = {trial.trial_id: trial for trial in self.trials}
        rows = [self._flat_row(run, arms[run.arm], trials[run.trial]) for run in self.runs]
        table: pd.DataFrame = pandas.DataFrame(rows)
        return table

    def _flat_row(self, run: RunRow, arm: ArmResult, trial: TrialRow) -> dict[str, Any]:
        row: dict[str, Any] = {
            "run_id": run.run_id,
            "arm": run.arm,
            "seed": run.seed,
            "stage": run.stage,
            "role": run.role,
            "trial": trial.number,
            "round": trial.round,
            "rung": run.rung,
            "selected": trial.selected,
            "status": run.status,
            "steps": run.steps,
            "planned_steps": run.planned_steps,
            "batch_size": self.spec["batch_size"],
            "optimizer": arm.name,
            "schedule": arm.schedule,
            **trial.values,
            **run.metrics,
            "target_step": run.target_step,
            "target_seconds": run.target_seconds,
            "seconds": run.seconds,
            "diverged_at": run.diverged_at,
            "best_step": run.best_step,
            "start_hash": run.start_hash,
            "order_hash": run.order_hash,
        }
        return row

    def _select(self, arm: str | None, seed: int | None) -> Iterator[RunRow]:
        if arm is not None:
            self._check_arm(arm)
        if seed is not None and seed not in self.seeds:
            raise unknown_name("seed", str(seed), map(str, self.seeds))
        for run in self.final_runs:
            if arm in (None, run.arm) and seed in (None, run.seed):
                yield run

    def _check_arm(self, arm: str) -> None:
        labels = [a.label for a in self.arms]
        if arm not in labels:
            raise unknown_name("arm", arm, labels)

    def _run_row(
        self, row: Mapping[str, Any], evaluations: list[Evaluation], clock: Mapping[int, float]
    ) -> RunRow:
        metrics: dict[str, float] = {}
        if row["status"] == "done":
            end = row["best_step"] or row["steps_done"]
            last = [e for e in evaluations if e.step == end]
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
            best_step=row["best_step"],
            message=row["message"],
            start_hash=row["start_hash"],
            order_hash=row["order_hash"],
            seconds=max(clock.values(), default=0.0),
            target_step=target_step,
            target_seconds=target_seconds,
            trial=row["trial_id"],
            role=row["role"],
            rung=row["rung"],
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
