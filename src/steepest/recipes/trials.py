"""Settings of the arm, and short races over them."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from steepest import rules
from steepest.errors import InputError
from steepest.racing.arm import Arm, parse
from steepest.racing.database import FILE as LEDGER
from steepest.racing.folder import open_race
from steepest.racing.observer import Observer, Pace
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.train.task import Task
from steepest.values import Range, write_value

__all__ = ["Outcome", "Pattern", "race", "scores"]


DECOUPLED = ("adamw", "lion", "muon", "adan", "ademamix", "lamb")  # larger decays are usual


@dataclass(frozen=True)
class Pattern:
    """An arm whose rate and weight decay are to be found; everything else stays as written.

    Attributes:
        arm: As it was written.
        decays: It has a weight decay.
        decoupled: That is not scaled by the adaptive step, so that larger values are customary.
    """

    arm: Arm
    decays: bool
    decoupled: bool

    @classmethod
    def read(cls, text: str) -> Pattern:
        """The pattern of an arm: ``adam``, ``sgd(momentum=0.9)``, ``package.module:Class()``.

        Raises:
            InputError: If it is no arm, or has no learning rate.

        >>> Pattern.read("adam").at(0.001, 0.0)
        'adam(lr=0.001, weight_decay=0.0)'
        """
        arm = parse(text if "(" in text.partition("+")[0] else _called(text))
        if arm.kind == "rule":
            known = set(rules.get(arm.name).hyperparameters)
        else:
            known = set(inspect.signature(cast("Any", arm.target)).parameters)
        if "lr" not in known:
            raise InputError(f"the arm '{text}' has no learning rate (lr) to look for")
        searched = [n for n in (arm.space.dimensions if arm.space else ()) if n != "lr"]
        if searched:
            raise InputError(
                f"a recipe looks for the rate and the weight decay alone; write one value for "
                f"{', '.join(searched)}, or use steepest race, which tunes whatever is a range"
            )
        return cls(arm, "weight_decay" in known, arm.name in DECOUPLED)

    def at(self, lr: float, decay: float | None = None, schedule: str | None = None) -> str:
        """The text of a setting."""
        written_values = self.arm.space.fixed if self.arm.space else self.arm.values
        kept = {k: v for k, v in written_values.items() if k not in ("lr", "weight_decay")}
        values: dict[str, Any] = {"lr": float(f"{lr:.4g}"), **kept}
        if self.decays and decay is not None:
            values["weight_decay"] = decay
        inside = ", ".join(f"{k}={write_value(v)}" for k, v in values.items())
        written = f" + {self.arm.schedule.spec()}" if self.arm.schedule is not None else ""
        after = written if schedule is None else f" + {schedule}" if schedule else ""
        return f"{self.arm.name}({inside}){after}"

    @property
    def rates(self) -> list[float]:
        """The rates to begin with: 1e-4 to 1e-1, or around what was written; four per decade."""
        given = self.arm.values.get("lr") if self.arm.space is None else None
        low, high = -4.0, -1.0
        if isinstance(given, (int, float)) and given > 0:
            low, high = math.log10(given) - 1.5, math.log10(given) + 1.5
        if self.arm.space is not None:
            found = self.arm.space.dimensions.get("lr")
            if isinstance(found, Range):
                low, high = math.log10(found.low), math.log10(found.high)
        count = max(3, round(4 * (high - low)) + 1)
        return [float(f"{10**e:.3g}") for e in np.linspace(low, high, count)]

    @property
    def decay_values(self) -> list[float | None]:
        """The weight decays of the coarse grid; one None where the arm has none."""
        if not self.decays:
            return [None]
        return [0.0, 1e-2, 1e-1] if self.decoupled else [0.0, 1e-5, 1e-4]


def _called(text: str) -> str:
    head, plus, schedule = text.partition("+")
    return f"{head.strip()}(){' + ' + schedule.strip() if plus else ''}"


@dataclass(frozen=True)
class Outcome:
    """A short race.

    Attributes:
        result: What is in its folder.
        seconds: What it took, everything included.
        step_seconds: The same per step of one run.
    """

    result: Result
    seconds: float
    step_seconds: float

    @property
    def steps(self) -> int:
        """Of every run."""
        return int(self.result.spec["steps"])


def race(
    task: Task,
    arms: Sequence[str],
    folder: Path,
    *,
    seeds: Sequence[int],
    steps: int,
    batch_size: int,
    device: str,
    evaluations: int,
    observer: Observer | None,
) -> Outcome:
    """Train every arm with every seed; what lies in the folder already is not trained again.

    A race that was interrupted keeps its length, however much time is left now.
    """
    begun = time.perf_counter()
    if (folder / LEDGER).exists():
        steps = int(Result(folder).spec["steps"])
    planned = plan(
        task,
        list(dict.fromkeys(arms)),
        seeds=list(seeds),
        steps=steps,
        eval_every=max(1, steps // evaluations),
        batch_size=batch_size,
        device=device,
    )
    with open_race(folder, planned) as ledger:
        execute(ledger, planned, task, observer=observer, pace=Pace(timing=0.0), engine="auto")
    seconds = time.perf_counter() - begun
    result = Result(folder)
    return Outcome(result, seconds, seconds / max(1, sum(run.steps for run in result.runs)))


def scores(result: Result) -> Mapping[str, list[float]]:
    """Of every arm the deciding number of each seed; NaN for a run that did not come through."""
    found: dict[str, list[float]] = {arm.label: [] for arm in result.arms}
    for run in result.runs:
        done = run.status == "done"
        found[run.arm].append(run.metrics.get(result.metric, math.nan) if done else math.nan)
    return found
