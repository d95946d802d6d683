"""What every step has at hand, and how it says things."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from steepest.numbers import amount, significant, unit_of
from steepest.racing.observer import Observer
from steepest.racing.result import Result
from steepest.recipes import probes
from steepest.recipes.probes import Expected, Facts
from steepest.recipes.records import Line, Record
from steepest.recipes.trials import Outcome, Pattern, race, scores
from steepest.stats import moving_average
from steepest.train.task import Task

__all__ = [
    "Kitchen",
    "Setting",
    "affordable",
    "beats_nothing",
    "curve_line",
    "epochs_words",
    "labels_of",
    "metric_of",
    "metric_words",
    "number_or_none",
    "ranking",
    "score_of",
    "setting_words",
    "unit_for",
    "yardstick",
]


@dataclass(frozen=True)
class Kitchen:
    """What every step has at hand.

    Attributes:
        task: The task.
        pattern: The arm whose rate and decay are looked for.
        folder: Where the races of the steps lie.
        batch_size: Examples per step.
        device: ``cpu`` or ``cuda``.
        seeds: Fresh seeds of the last measurement.
        deadline: When the time is up, on `time.perf_counter`'s clock.
        observer: Who watches the races.
        before: The records of the steps before.
    """

    task: Task
    pattern: Pattern
    folder: Path
    batch_size: int
    device: str
    seeds: int
    deadline: float
    observer: Observer | None
    before: Mapping[int, Record]

    @cached_property
    def expected(self) -> Expected:
        """What the loss should be at the start."""
        return probes.expected_loss(self.task)

    @cached_property
    def facts(self) -> Facts:
        """What stands in the way."""
        return probes.facts(self.task)

    @cached_property
    def blind(self) -> Task:
        """The task without its test data, which only the last measurement reads."""
        return dataclasses.replace(self.task, test=None)

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.deadline - time.perf_counter()

    def number(self, step: int, name: str) -> Any:
        """What an earlier step found."""
        return self.before[step].numbers[name]

    def race(
        self,
        name: str,
        arms: Sequence[str],
        *,
        steps: int,
        seeds: Sequence[int] = (0,),
        evaluations: int = 20,
        task: Task | None = None,
    ) -> Outcome:
        """A race of this recipe, in a folder of its own."""
        chosen = task or self.blind
        return race(
            chosen,
            arms,
            self.folder / name,
            seeds=seeds,
            steps=steps,
            batch_size=self.batch_size if task is None or task is self.task else task.batch_size,
            device=self.device,
            evaluations=evaluations,
            observer=self.observer,
        )


Setting = tuple[float, float | None]


def number_or_none(value: float) -> float | None:
    """A value, or None where it is not finite."""
    return value if math.isfinite(value) else None


def labels_of(found: Outcome) -> list[str]:
    """The labels of the arms, in their order."""
    return [arm.label for arm in found.result.arms]


def curve_line(name: str, x: Any, y: Any) -> Line:
    """A curve as few plain numbers, smoothed where it has a value per batch."""
    values = moving_average(y, max(1, len(y) // 25)) if len(y) > 50 else y
    keep = np.unique(np.linspace(0, max(0, len(x) - 1), 120).round().astype(int))[: len(x)]
    return Line(name, [float(x[i]) for i in keep], [number_or_none(float(values[i])) for i in keep])


def yardstick(k: Kitchen) -> float:
    """The best prediction that ignores the inputs; where nobody knows it, the loss at the start."""
    first = k.before[1].numbers if 1 in k.before else {}
    candidates = (k.expected.constant, k.expected.value, float(first.get("loss", math.nan)))
    return next((v for v in candidates if math.isfinite(v) and v > 0), 1.0)


def affordable(k: Kitchen, share: float, runs: int, per_epoch: int, *, most: float) -> int:
    """Steps per run for a share of the time that is left."""
    afford = share * max(k.left, 1.0) / (runs * k.number(3, "step_seconds"))
    return int(max(20, min(afford, most * per_epoch)))


def metric_of(result: Result) -> str:
    """The deciding metric without its split."""
    return result.metric.partition("_")[2]


def metric_words(result: Result) -> str:
    """The deciding metric in words."""
    split, _, name = result.metric.partition("_")
    words = {"val": "validation", "train": "training"}.get(split, split)
    return f"{words} {name}".replace("_", " ")


def unit_for(result: Result) -> Any:
    """How the deciding metric is written."""
    return unit_of(result.metric, [v for values in scores(result).values() for v in values])


def ranking(result: Result, arms: Mapping[str, Setting]) -> list[tuple[Setting, float, str]]:
    """Settings from best to worst with their score and label; what failed stands last."""
    held = scores(result)
    rows = [
        (arms[text], float(np.mean(held[arm.label])), arm.label)
        for arm, text in zip(result.arms, arms, strict=True)
    ]
    sign = -1.0 if result.higher_is_better else 1.0
    return sorted(rows, key=lambda r: (not math.isfinite(r[1]), sign * r[1]))


def score_of(order: Sequence[tuple[Setting, float, str]], setting: Setting) -> float | None:
    """The score of a setting; None where it failed."""
    return number_or_none(next(score for found, score, _ in order if found == setting))


def beats_nothing(k: Kitchen, result: Result, label: str) -> bool:
    """The loss on held-out data is below that of a prediction that knows nothing."""
    split = "val" if k.task.val is not None else "train"
    values = result.evaluations(split, "loss")[label, 0][1]
    return bool(len(values)) and float(np.nanmin(values)) < 0.98 * yardstick(k)


def setting_words(setting: Sequence[Any]) -> str:
    """A setting in words."""
    lr, decay = setting[:2]
    return f"lr={lr:g}" + ("" if decay is None else f", weight_decay={decay:g}")


def epochs_words(steps: int, per_epoch: int) -> str:
    """A length in steps and in epochs."""
    return f"{amount(steps, 'step')} ({significant(steps / per_epoch, 2)} epochs)"
