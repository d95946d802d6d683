"""What a race will do, settled before any of it is done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from steepest import tasks
from steepest.errors import InputError, LedgerError, SteepestError, TaskError, unknown_name
from steepest.racing.arm import Arm, OptimizerFactory, resolve, restore
from steepest.racing.ledger import Ledger
from steepest.racing.spec import Measure, Plan, RaceSpec, TuningSpec
from steepest.racing.stages import first, grown, planned, steps_to_come
from steepest.racing.verdict import power_note
from steepest.racing.wishes import Wishes
from steepest.schedules import Schedule
from steepest.stats import look_level
from steepest.train.guard import GuardRule
from steepest.train.precision import FLOAT32
from steepest.train.solo import SoloRun
from steepest.train.stopping import StopRule
from steepest.train.task import Task, part_name

__all__ = ["plan", "plan_again", "read_seeds"]

_SHARES = ("accuracy", "acc", "precision", "recall", "f1", "auc")
_NOT_NEGATIVE = (torch.nn.functional.cross_entropy, torch.nn.functional.mse_loss)


def plan(
    task: Task,
    arms: Iterable[Any] | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    target: str | float | None = None,
    device: str = "cpu",
    train_on: str = "train",
    level: float = 0.95,
    min_effect: float = 0.0,
    budget: str | None = None,
    trials: int | None = None,
    tuning_seeds: int | None = None,
    method: str | None = None,
    widen: int | None = None,
    defaults: bool = False,
    early_stopping: StopRule | str | None = None,
    guard: GuardRule | str | None = None,
    precision: str = FLOAT32,
    task_spec: str | None = None,
) -> Plan:
    """Settle a race: check everything that can be checked, fill in every default.

    Nothing is trained, but one batch goes through the model, and every arm's optimizer is built
    on the model's own parameters, so that a mistake costs seconds and not hours.

    Args:
        task: What is trained.
        arms: See `steepest.racing.arm.resolve`.
        seeds: Of the final stage: their number (then they are 0, 1, 2 …), or the seeds
            themselves; default: the budget's, or 6 where no arm is tuned, and more where so many
            arms need more for anything to be decided.
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
        budget: How much is spent on arms with a search space: ``quick``, ``standard`` (the
            default) or ``thorough``; see `steepest.tune.budget`.
        trials: Settings of each tuned arm; default: the budget's.
        tuning_seeds: Runs of each setting; default: the budget's.
        method: ``sobol`` (the default), ``random``, ``grid``, ``halving``, or ``optuna:tpe`` and
            the like.
        widen: How often all spaces may be widened and searched again, where an arm's best setting
            lies at an end of its space; default: 0.
        defaults: Run the defaults of the tuned arms beside them in the final stage.
        early_stopping: ``"val_loss, patience=5"``: when a run may end before its last step; see
            `steepest.train.stopping`. It ends with the weights of its best evaluation.
        guard: ``"factor=10, steps=20"`` or ``"threshold=100"``: when a run counts as diverged
            although its loss is finite; see `steepest.train.guard`.
        precision: What the runs compute in: ``float32``, ``tf32`` or ``bf16``; see
            `steepest.train.precision`.
        task_spec: How the command line finds the task again.

    Raises:
        InputError: For anything that cannot be, and `TaskError` where it is the task's.
    """
    chosen = resolve(arms)
    wishes = Wishes(
        budget=budget,
        trials=trials,
        tuning_seeds=tuning_seeds,
        method=method,
        widen=widen,
        defaults=defaults,
    )
    if seeds is None:
        seeds = wishes.final_seeds(chosen, level=level)
    numbers = read_seeds(seeds)
    look_level(level, 1)  # checks the level
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
    per_epoch = _rehearse(task, chosen, batch_size=batch_size, device=device, precision=precision)
    total = steps if steps is not None else max(1, round((epochs or 1) * per_epoch))
    for arm in chosen:
        if arm.schedule is not None:
            arm.schedule.check(total)
    name, higher = task.primary
    alone = "train" if task.test is None else None
    watch = "val" if task.val is not None else alone
    decisive = "test" if task.test is not None else str(watch)
    tuning = wishes.settle(task, chosen, seeds=numbers, steps=total, train_on=train_on)
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
        tuning=tuning,
        stopping=_read_stopping(early_stopping, task, watch),
        guard=GuardRule.parse(guard) if isinstance(guard, str) else guard,
        precision=precision,
    )
    start = first(spec)
    return Plan(
        spec,
        start.trials,
        planned(spec, start.trials, start.runs),
        task.fingerprint(),
        None if task_spec is None else tasks.absolute(task_spec),
        _notes(spec, task),
        steps_to_come(spec, start.runs),
        start.meta,
    )


def plan_again(task: Task, ledger: Ledger) -> Plan:
    """The plan that a ledger holds, for its task.

    Args:
        task: The task, found again.
        ledger: The race.

    Raises:
        LedgerError: If the task or an arm's code is not what it was.
    """
    meta = ledger.meta()
    now = task.fingerprint()
    changed = [
        f"{part_name(part)} ({_short(old)} then, {_short(now.get(part))} now)"
        for part, old in meta["fingerprint"].items()
        if now.get(part) != old
    ]
    if changed:
        raise LedgerError(
            f"the task has changed since the race began: {', '.join(changed)}; results "
            "from before and after cannot be compared. Undo the change to go on, or race again "
            "with another --out"
        )
    spec = dict(meta["spec"])
    spec.pop("epochs")
    spec["arms"] = tuple(restore(arm) for arm in ledger.arms())
    spec["seeds"] = tuple(spec["seeds"])
    spec["decides"] = Measure(**spec["decides"])
    spec["target"] = Measure(**spec["target"]) if spec["target"] else None
    spec["tuning"] = TuningSpec.from_dict(spec["tuning"]) if spec.get("tuning") else None
    spec["stopping"] = StopRule(**spec["stopping"]) if spec.get("stopping") else None
    spec["guard"] = GuardRule(**spec["guard"]) if spec.get("guard") else None
    built = RaceSpec(**spec)
    found = Plan(built, (), (), meta["fingerprint"], meta["task_spec"], _notes(built, task))
    return grown(found, ledger)


def _short(value: Any) -> str:
    """Enough of a hash to tell two apart."""
    text = str(value)
    return f"{text[:12]}…" if len(text) > 24 else text


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


def _rehearse(
    task: Task, arms: Sequence[Arm], *, batch_size: int | None, device: str, precision: str
) -> int:
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
            precision=precision,
        )

    plain = run(lambda parameters: torch.optim.SGD(parameters, lr=0.0), None)
    if precision != FLOAT32:
        try:
            plain.advance(1)
        except Exception as error:  # a stranger's model may mix types
            named = "" if isinstance(error, SteepestError) else f"{type(error).__name__}: "
            raise TaskError(
                f"precision '{precision}' cannot be: {named}{error}; use 'float32'"
            ) from error
    for arm in arms:
        try:
            run(arm.middle().factory(), arm.schedule)
            if arm.kind != "rule":  # a stranger's step may want what no constructor asks for
                run(arm.middle().factory(), None).advance(1)
        except Exception as error:  # a stranger's code, on the task's own parameters
            named = "" if isinstance(error, SteepestError) else f"{type(error).__name__}: "
            raise InputError(
                f"the arm '{arm.label}' does not fit task '{task.name}': {named}{error}"
                f"{_cuda_only(error, device)}"
            ) from error
    return plain.steps_per_epoch


def _cuda_only(error: BaseException, device: str) -> str:
    """What to do about an optimizer that has no kernel for the CPU, as those of bitsandbytes."""
    lacking = isinstance(error, NotImplementedError) or "cuda" in str(error).lower()
    if not lacking or not device.startswith("cpu"):
        return ""
    return "; it seems to run on CUDA only: say --device cuda (device='cuda'), or leave it out"


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
    if name in _SHARES and higher:
        metric = task.metrics[name]
        ours = getattr(metric, "fn", metric).__module__.startswith("steepest.")
        if not 0 <= value <= (1 if ours else 100):
            per_cent = "" if ours else " (or to 100 where they are in per cent)"
            raise InputError(
                f"no run can reach the target {name}={value:g}: shares go from 0 to 1{per_cent}; "
                "write for example accuracy=0.98"
            )
    if name == "loss" and value < 0 and task.loss in _NOT_NEGATIVE:
        raise InputError(
            f"no run can reach the target loss={value:g}: this loss is never negative; write a "
            "larger one"
        )
    if task.val is None:
        raise InputError(
            f"a target is measured on validation data, and task '{task.name}' has none here; "
            "leave the target out, or give it val data (and do not train on all)"
        )
    return Measure(split="val", metric=name, higher_is_better=higher, value=value)


def _read_stopping(given: StopRule | str | None, task: Task, watch: str | None) -> StopRule | None:
    """The rule, on something that is measured on the way, with the side that is good."""
    if given is None:
        return None
    if watch is None:
        raise InputError(
            f"early stopping watches validation data, and task '{task.name}' has none; leave it "
            "out, or give the task val data (and do not train on all)"
        )
    rule = StopRule.parse(given) if isinstance(given, str) else given
    higher = {f"{watch}_loss": False}
    higher |= {
        f"{watch}_{key}": bool(getattr(m, "higher_is_better", True))
        for key, m in task.metrics.items()
    }
    if rule.monitor not in higher:
        raise unknown_name("metric to monitor", rule.monitor, higher)
    side: Literal["min", "max"] = "max" if higher[rule.monitor] else "min"
    return replace(rule, mode=side)


def _notes(spec: RaceSpec, task: Task) -> tuple[str, ...]:
    notes = [power_note(len(spec.arms), len(spec.seeds), level=spec.level)]
    if task.test is None:
        what = "validation" if task.val is not None else "training"
        notes.append(f"Task '{spec.task}' has no test data: the verdict is about the {what} data.")
        if spec.tuning is not None:
            notes.append(
                "The settings are chosen on the same data (with other seeds), so the numbers of "
                "tuned arms are a little better than they would be on new data."
            )
    aim = spec.target
    if aim is not None and aim.metric in _SHARES and (aim.value or 0) > 1:
        notes.append(
            f"The target {aim.metric}={aim.value:g} can be reached only if '{aim.metric}' is in "
            "per cent; if it goes from 0 to 1, write "
            f"{aim.metric}={(aim.value or 0) / 100:g}."
        )
    given = [arm.label for arm in spec.arms if arm.space is None]
    if spec.tuning is not None and given:
        notes.append(
            f"{', '.join(given)}: given, not tuned, beside arms that are tuned; the comparison is "
            "about these settings."
        )
    if len(spec.arms) == 1 and spec.tuning is None:
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
