"""What a race will do, settled before any of it is done."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from steepest import tasks
from steepest.errors import InputError, LedgerError, SteepestError, unknown_name
from steepest.racing.arm import Arm, OptimizerFactory, resolve, restore
from steepest.racing.verdict import power_note
from steepest.schedules import Schedule
from steepest.stats import seeds_to_decide_at_all
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["Measure", "Plan", "RaceSpec", "RunPlan", "plan", "read_seeds"]


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
class RaceSpec:
    """Everything that was asked for, with all defaults filled in.

    Attributes:
        task: The task's name.
        train_on: ``train``, or ``all`` where validation data is trained on too.
        arms: In the order in which they were given.
        seeds: Of the final stage; every arm runs every seed.
        steps: Of every run.
        steps_per_epoch: Batches in an epoch.
        batch_size: Examples per step.
        eval_every: Steps between two evaluations.
        watch: The split that is evaluated on the way: ``val``; ``train`` for a task that has no
            other; None where there is only test data, which is read once, at the end.
        decides: The number that decides, read once, at the end of every run.
        target: What time-to-target asks for.
        device: Where it is trained.
        level: Confidence of all decisions together.
        min_effect: The smallest difference that matters.
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

    @property
    def epochs(self) -> float:
        """How often a run sees the training data."""
        return self.steps / self.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the ledger and for comparing two races."""
        values = dict(vars(self))
        values["arms"] = {arm.label: arm.text for arm in self.arms}
        values["decides"] = vars(self.decides)
        values["target"] = vars(self.target) if self.target else None
        values["epochs"] = self.epochs
        return json.loads(json.dumps(values))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RunPlan:
    """One arm with one seed.

    Attributes:
        run_id: Its name in the ledger, in file names and in messages: ``a0-s2``.
        arm: What trains it.
        trial_id: The arm's setting in the ledger.
        seed: What start, order and noise are functions of.
        stage: ``final``; searches will have ``tuning``.
        steps: How long it is.
    """

    run_id: str
    arm: Arm
    trial_id: int
    seed: int
    stage: Literal["tuning", "final"]
    steps: int


@dataclass(frozen=True)
class Plan:
    """A race that can start.

    Attributes:
        spec: What was asked for.
        runs: In the order of their execution: all arms of a seed before the next seed, so that
            a race that stops early has compared like with like.
        fingerprint: Of the task; a resumed race must have the same.
        task_spec: How the command line finds the task again; None for an object from Python.
        notes: What a person should know before it starts.
    """

    spec: RaceSpec
    runs: tuple[RunPlan, ...]
    fingerprint: Mapping[str, str]
    task_spec: str | None
    notes: tuple[str, ...]


def plan(
    task: Task,
    arms: Iterable[Any] | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] = 3,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    target: str | float | None = None,
    device: str = "cpu",
    train_on: str = "train",
    level: float = 0.95,
    min_effect: float = 0.0,
    task_spec: str | None = None,
) -> Plan:
    """Settle a race: check everything that can be checked, fill in every default.

    Nothing is trained, but one batch goes through the model, and every arm's optimizer is built
    on the model's own parameters, so that a mistake costs seconds and not hours.

    Args:
        task: What is trained.
        arms: See `steepest.racing.arm.resolve`.
        seeds: Their number (then they are 0, 1, 2 …), or the seeds themselves.
        epochs: How long every run is, in passes over the training data; default 1.
        steps: The same in steps; one of the two.
        batch_size: Default: the task's.
        eval_every: Steps between evaluations; default: one epoch.
        target: For time-to-target, on the validation split: ``0.98`` of the task's first metric,
            or ``"accuracy=0.98"``.
        device: ``cpu`` or ``cuda``.
        train_on: Recorded; ``all`` where the task was loaded with its validation data added.
        level: Confidence of all decisions together.
        min_effect: Smallest difference that matters, in the metric's units.
        task_spec: How the command line finds the task again.

    Raises:
        InputError: For anything that cannot be, and `TaskError` where it is the task's.
    """
    chosen = resolve(arms)
    numbers = read_seeds(seeds)
    pairs = len(chosen) * (len(chosen) - 1) // 2
    seeds_to_decide_at_all(level, max(1, pairs))  # checks the level
    _positive("min_effect", min_effect, zero=True)
    _whole("steps", steps)
    _whole("eval_every", eval_every)
    _whole("batch_size", batch_size)
    if epochs is not None:
        _positive("epochs", epochs)
        if steps is not None:
            raise InputError(
                f"epochs={epochs} and steps={steps} were both given; leave one of them out"
            )
    per_epoch = _rehearse(task, chosen, batch_size=batch_size, device=device)
    total = steps if steps is not None else max(1, round((epochs or 1) * per_epoch))
    for arm in chosen:
        if arm.schedule is not None:
            arm.schedule.check(total)
    name, higher = task.primary
    alone = "train" if task.test is None else None
    watch = "val" if task.val is not None else alone
    decisive = "test" if task.test is not None else str(watch)
    spec = RaceSpec(
        task=task.name,
        train_on=train_on,
        arms=chosen,
        seeds=numbers,
        steps=total,
        steps_per_epoch=per_epoch,
        batch_size=batch_size or task.batch_size,
        eval_every=min(eval_every or per_epoch, total),
        watch=watch,
        decides=Measure(split=decisive, metric=name, higher_is_better=higher),
        target=_read_target(target, task),
        device=device,
        level=level,
        min_effect=min_effect,
    )
    place = None if task_spec is None else tasks.absolute(task_spec)
    return Plan(spec, _runs(spec), task.fingerprint(), place, _notes(spec, task))


def plan_again(task: Task, meta: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan that a ledger holds, for its task.

    Args:
        task: The task, found again.
        meta: The ledger's facts.
        arms: The ledger's arms.

    Raises:
        LedgerError: If the task or an arm's code is not what it was.
    """
    changed = {
        part: (old, task.fingerprint().get(part))
        for part, old in meta["fingerprint"].items()
        if task.fingerprint().get(part) != old
    }
    if changed:
        raise LedgerError(
            f"the task has changed since the race began: {', '.join(map(_part, changed))}; results "
            "from before and after cannot be compared. Undo the change to resume, or race again "
            "with another --out"
        )
    spec = dict(meta["spec"])
    spec.pop("epochs")
    spec["arms"] = tuple(restore(arm) for arm in arms)
    spec["seeds"] = tuple(spec["seeds"])
    spec["decides"] = Measure(**spec["decides"])
    spec["target"] = Measure(**spec["target"]) if spec["target"] else None
    built = RaceSpec(**spec)
    return Plan(built, _runs(built), meta["fingerprint"], meta["task_spec"], _notes(built, task))


def _part(name: str) -> str:
    words = {
        "train": "the training data",
        "val": "the validation data",
        "test": "the test data",
        "model": "the model",
        "model_source": "the code of the model factory",
        "loss": "the loss",
        "metrics": "the metrics",
        "no_decay": "what is not decayed",
    }
    return words.get(name, f"its {name}")


def read_seeds(seeds: Any) -> tuple[int, ...]:
    """A number of seeds, or the seeds themselves, as distinct whole numbers.

    A number n means 0 … n-1: the same for everybody, so that a race can be repeated from its
    command alone, and a longer one contains the shorter.

    >>> read_seeds(3), read_seeds([7, 11])
    ((0, 1, 2), (7, 11))
    >>> read_seeds(0)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: a race needs at least one seed, got 0; 6 or more can decide
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise InputError(f"a race needs at least one seed, got {seeds}; 6 or more can decide")
        return tuple(range(seeds))
    if isinstance(seeds, (str, bytes, bool)) or not isinstance(seeds, Sequence):
        raise InputError(f"seeds must be a number of seeds or a list of them, got {seeds!r}")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"a seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
    if not seeds:
        raise InputError("a race needs at least one seed, got none; 6 or more can decide")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the seeds must differ, got {list(seeds)}: the same run twice is one run")
    return tuple(seeds)


def _runs(spec: RaceSpec) -> tuple[RunPlan, ...]:
    return tuple(
        RunPlan(f"a{number}-s{seed}", arm, number, seed, "final", spec.steps)
        for seed in spec.seeds
        for number, arm in enumerate(spec.arms)
    )


def _rehearse(task: Task, arms: Sequence[Arm], *, batch_size: int | None, device: str) -> int:
    """Build a run of every arm; the steps of an epoch."""

    def run(optimizer: OptimizerFactory, schedule: Schedule | None) -> SoloRun:
        return SoloRun(
            task,
            optimizer=optimizer,
            schedule=schedule,
            seed=0,
            steps=1,
            batch_size=batch_size,
            device=device,
        )

    per_epoch = run(lambda parameters: torch.optim.SGD(parameters, lr=0.0), None).steps_per_epoch
    for arm in arms:
        try:
            run(arm.factory(), arm.schedule)
        except Exception as error:  # a stranger's constructor, on the task's own parameters
            named = "" if isinstance(error, SteepestError) else f"{type(error).__name__}: "
            raise InputError(
                f"the arm '{arm.label}' does not fit task '{task.name}': {named}{error}"
            ) from error
    return per_epoch


def _read_target(target: str | float | None, task: Task) -> Measure | None:
    """``0.98`` or ``accuracy=0.98``, on the validation split."""
    if target is None:
        return None
    name, higher = task.primary
    text = str(target)
    if "=" in text:
        name, _, text = (part.strip() for part in text.partition("="))
        metrics = {"loss": False}
        metrics |= {
            key: bool(getattr(m, "higher_is_better", True)) for key, m in task.metrics.items()
        }
        if name not in metrics:
            raise unknown_name(f"metric of task '{task.name}'", name, metrics)
        higher = metrics[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"the target must be a number, or metric=number such as accuracy=0.98, got '{target}'"
        )
    if task.val is None:
        raise InputError(
            f"a target is measured on validation data, and task '{task.name}' has none here; "
            "leave the target out, or give it val data (and do not train on all)"
        )
    return Measure(split="val", metric=name, higher_is_better=higher, value=value)


def _notes(spec: RaceSpec, task: Task) -> tuple[str, ...]:
    notes = [power_note(len(spec.arms), len(spec.seeds), level=spec.level)]
    if task.test is None:
        what = "validation" if task.val is not None else "training"
        notes.append(f"Task '{spec.task}' has no test data: the verdict is about the {what} data.")
    if len(spec.arms) == 1:
        notes.append("There is one arm, so there is nothing to compare it with.")
    return tuple(note for note in (*task.notes, *notes) if note)


def _whole(name: str, value: Any) -> None:
    wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
    if value is not None and wrong:
        raise InputError(f"{name} must be a whole number >= 1, got {value!r}")


def _positive(name: str, value: Any, *, zero: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{name} must be a number {'>=' if zero else '>'} 0, got {value!r}")
