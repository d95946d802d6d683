"""What a race is to do, as plain values: everything that was asked for, and the runs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steepest.racing.arm import Arm
from steepest.racing.records import PlannedTrial, Role, Stage
from steepest.train.guard import GuardRule
from steepest.train.precision import FLOAT32
from steepest.train.stopping import StopRule

__all__ = ["Conditions", "Measure", "Plan", "RaceSpec", "RunPlan", "TuningSpec"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric on a split, with the side that is good; with a value it is a target.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        metric: ``loss`` or a metric of the task.
        higher_is_better: Which side is good.
        value: What is to be reached; None where it only says what is measured.
    """

    split: str
    metric: str
    higher_is_better: bool
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class TuningSpec:
    """How every tuned arm is searched; the same for all of them.

    Attributes:
        method: ``sobol``, ``random``, ``grid``, ``halving`` or ``optuna:`` with a sampler.
        trials: Settings of each arm, per round.
        seeds: Of every trial; none of them is a seed of the final stage.
        rungs: Trials and steps of a run in each rung; one rung unless ``halving``.
        chooses: The number that a setting is chosen by, at the end of its longest rung.
        budget: The name of the budget that these numbers come from, if there is one.
        widen: How often all spaces may be widened and searched again.
        defaults: Whether the defaults of the tuned arms run beside them in the final stage.
    """

    method: str
    trials: int
    seeds: tuple[int, ...]
    rungs: tuple[tuple[int, int], ...]
    chooses: Measure
    budget: str | None = None
    widen: int = 0
    defaults: bool = False

    @property
    def sampler(self) -> str | None:
        """Of Optuna, whose proposals follow from the scores so far; None for all other methods."""
        package, _, name = self.method.partition(":")
        return name if package == "optuna" else None

    @property
    def steps_per_round(self) -> int:
        """Steps of one arm in one round."""
        return sum(trials * steps for trials, steps in self.rungs) * len(self.seeds)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TuningSpec:
        """What `RaceSpec.to_dict` wrote."""
        return cls(
            **{
                **values,
                "seeds": tuple(values["seeds"]),
                "rungs": tuple((n, steps) for n, steps in values["rungs"]),
                "chooses": Measure(**values["chooses"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which a run trains: what a `SoloRun` is told beside its task, its arm and its seed.

    Attributes:
        steps: How long it is.
        batch_size: Examples per step.
        device: Where it trains.
        precision: What it computes in: ``float32``, ``tf32`` or ``bf16``.
        guard: When it counts as diverged although its loss is finite.
    """

    steps: int
    batch_size: int
    device: str
    precision: str
    guard: GuardRule | None = None


@dataclass(frozen=True, kw_only=True)
class RaceSpec:
    """Everything that was asked for, with all defaults filled in.

    Attributes:
        task: The task's name.
        train_on: ``train``, or ``all`` where validation data is trained on too.
        arms: In the order in which they were given.
        seeds: Of the final stage; every arm runs every seed.
        steps: Of every run of the final stage.
        steps_per_epoch: Batches in an epoch.
        batch_size: Examples per step.
        eval_every: Steps between two evaluations.
        watch: The split that is evaluated on the way: ``val``; ``train`` for a task that has no
            other; None where there is only test data, which is read once, at the end.
        decides: The number that decides, read once, at the end of every run of the final stage.
        target: What time-to-target asks for.
        device: Where it is trained.
        level: Confidence of all decisions together.
        min_effect: The smallest difference that matters.
        tuning: How arms with a search space are tuned; None where there are none.
        stopping: When a run may end before its last step, with the weights of its best evaluation.
        guard: When a run counts as diverged although its loss is finite.
        precision: What the runs compute in: ``float32``, ``tf32`` or ``bf16``.
    """

    task: str
    train_on: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    steps: int
    steps_per_epoch: int
    batch_size: int
    eval_every: int
    watch: str | None
    decides: Measure
    target: Measure | None
    device: str
    level: float
    min_effect: float
    tuning: TuningSpec | None = None
    stopping: StopRule | None = None
    guard: GuardRule | None = None
    precision: str = FLOAT32

    @property
    def epochs(self) -> float:
        """How often a run sees the training data."""
        return self.steps / self.steps_per_epoch

    def conditions(self, steps: int) -> Conditions:
        """Under which its runs of this length train."""
        return Conditions(
            steps=steps,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            guard=self.guard,
        )

    @property
    def tuned(self) -> tuple[Arm, ...]:
        """The arms that have a search space."""
        return tuple(arm for arm in self.arms if arm.space is not None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the ledger and for comparing two races."""
        values = dict(vars(self))
        values["arms"] = {arm.label: arm.text for arm in self.arms}
        values["decides"] = vars(self.decides)
        values["target"] = vars(self.target) if self.target else None
        values["epochs"] = self.epochs
        tuning = values.pop("tuning")
        if tuning is not None:
            values["tuning"] = {**vars(tuning), "chooses": vars(tuning.chooses)}
        for name in ("stopping", "guard"):  # a race without them is the race that it always was
            rule = values.pop(name)
            if rule is not None:
                values[name] = vars(rule)
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RunPlan:
    """One setting of an arm with one seed.

    Attributes:
        run_id: Its name in the ledger, in file names and in messages: ``a0-s2``, ``a0-t5-s2``.
        arm: What trains it, with the values of its setting.
        trial_id: The setting in the ledger.
        seed: What start, order and noise are functions of.
        stage: ``tuning`` or ``final``.
        steps: How long it is.
        number: Of the setting within its arm; -1 for the defaults.
        role: ``fixed``, ``candidate`` or ``defaults``.
        rung: Of successive halving.
        wave: Runs of one wave were added together.
    """

    run_id: str
    arm: Arm
    trial_id: int
    seed: int
    stage: Stage
    steps: int
    number: int = 0
    role: Role = "fixed"
    rung: int = 0
    wave: int = 0

    @property
    def name(self) -> str:
        """How messages call it.

        >>> RunPlan("a0-s2", Arm("adam", "adam()", "rule", "adam"), 0, 2, "final", 10).name
        'adam, seed 2'
        """
        which = f", trial {self.number}" if self.stage == "tuning" else ""
        which = ", defaults" if self.role == "defaults" else which
        return f"{self.arm.label}{which}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A race that can start.

    Attributes:
        spec: What was asked for.
        trials: The settings that are known by now.
        runs: In the order of their execution: all arms of a seed before the next seed, so that
            a race that stops early has compared like with like. Those of the final stage are
            added when the settings of all arms are chosen.
        fingerprint: Of the task; a resumed race must have the same.
        task_spec: How the command line finds the task again; None for an object from Python.
        notes: What a person should know before it starts.
        later: Steps that are sure to come, of runs that cannot be planned yet.
        facts: What else the ledger keeps about the race as a whole: the spaces.
    """

    spec: RaceSpec
    trials: tuple[PlannedTrial, ...]
    runs: tuple[RunPlan, ...]
    fingerprint: Mapping[str, str]
    task_spec: str | None
    notes: tuple[str, ...]
    later: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
