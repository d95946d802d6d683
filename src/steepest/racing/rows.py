"""The rows of a result: arms, settings, runs and ranks, as their readers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steepest.values import write_value

__all__ = ["ArmResult", "RankRow", "RunRow", "TrialRow", "TuningRow"]


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
        space: What was searched, by hyperparameter; None for an arm that was given its setting.
        setting: The values of the final stage; empty as long as they are not chosen.
    """

    label: str
    text: str
    kind: str
    name: str
    values: Mapping[str, Any]
    schedule: str | None
    space: Mapping[str, Any] | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)

    def written(self, values: Mapping[str, Any]) -> str:
        """The arm at this setting, as the command line reads it.

        >>> arm = ArmResult("adam", "adam", "rule", "adam", {}, "cosine()")
        >>> arm.written({"lr": 0.001})
        'adam(lr=0.001) + cosine()'
        """
        inside = ", ".join(f"{name}={write_value(value)}" for name, value in values.items())
        return f"{self.name}({inside})" + (f" + {self.schedule}" if self.schedule else "")


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        run_id: Its name in the ledger.
        arm: Label of its arm.
        seed: Its seed.
        stage: ``tuning`` or ``final``.
        status: ``pending``, ``running``, ``done``, ``diverged`` or ``failed``.
        steps: Steps that it has done.
        planned_steps: Steps that it was to do.
        metrics: Final values, ``test_accuracy``, ``val_loss`` …; empty unless it is done. Test
            values are those of runs of the final stage only.
        diverged_at: The step (from 1) whose loss was not finite, or at which the guard ended it.
        best_step: With early stopping, the evaluation whose weights are the final ones.
        message: Why it failed, or ended before its last step.
        start_hash: Of weights and buffers before the first step.
        order_hash: Of the batches that it was given.
        seconds: Spent in training steps, evaluation left out.
        target_step: The first evaluation that reached the target; infinite if none did, None
            without a target.
        target_seconds: Seconds of training until then.
        trial: The setting, `TrialRow.trial_id`.
        role: ``fixed`` (as it was written), ``candidate`` (of the tuning stage) or ``defaults``
            (for comparison; no part of the verdict).
        rung: Of successive halving; 0 without.
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
    best_step: int | None
    message: str | None
    start_hash: str | None
    order_hash: str | None
    seconds: float
    target_step: float | None
    target_seconds: float | None
    trial: int
    role: str
    rung: int


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


@dataclass(frozen=True)
class TrialRow:
    """One setting of an arm, and how it did in the tuning stage.

    Attributes:
        trial_id: Its number in the ledger.
        arm: Label of its arm.
        number: From 0 within the arm; -1 for its defaults.
        role: ``fixed``, ``candidate`` or ``defaults``.
        round: 0, or the widening of all spaces that it belongs to.
        values: All values of the setting.
        searched: Those that were searched.
        score: Mean of the validation metric over the tuning seeds, at the end of the longest rung
            that it reached; NaN if a run of it diverged or failed, or is not finished.
        rung: That rung; 0 without successive halving.
        steps: Of a run in that rung; 0 for a setting that was not in the tuning stage.
        runs: Of that rung that came to an end.
        diverged: How many of them diverged.
        failed: How many of them failed.
        selected: It is the setting of the final stage.
        edges: Where it lies at an end of its space, in words; of the selected one only.
    """

    trial_id: int
    arm: str
    number: int
    role: str
    round: int
    values: Mapping[str, Any]
    searched: Mapping[str, Any]
    score: float
    rung: int
    steps: int
    runs: int
    diverged: int
    failed: int
    selected: bool
    edges: tuple[str, ...]


@dataclass(frozen=True)
class TuningRow:
    """How the arms with a search space were tuned.

    Attributes:
        method: ``sobol``, ``random``, ``grid``, ``halving``, ``optuna:tpe`` ….
        trials: Of each arm in a round.
        seeds: Of every trial.
        rungs: Steps of a run in each rung.
        metric: What settings were chosen by, such as ``val_accuracy``.
        higher_is_better: Of that metric.
        budget: The name of the budget, if one was named.
        widen: How often spaces may be widened.
        rounds: How often spaces were searched; 1 without widening.
        trials_per_arm: Settings that were planned so far, by label.
        steps_per_arm: Training steps that were planned for them, by label.
        over: All arms have their settings.
    """

    method: str
    trials: int
    seeds: tuple[int, ...]
    rungs: tuple[int, ...]
    metric: str
    higher_is_better: bool
    budget: str | None
    widen: int
    rounds: int
    trials_per_arm: Mapping[str, int]
    steps_per_arm: Mapping[str, int]
    over: bool

    @property
    def equal(self) -> bool:
        """Every tuned arm got the same number of trials and of steps."""
        return (
            len(set(self.trials_per_arm.values())) <= 1
            and len(set(self.steps_per_arm.values())) <= 1
        )
