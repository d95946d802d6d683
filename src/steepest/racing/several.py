"""Several tasks, one race each, in one folder; and what they say together.

DIR/several.json     the tasks in their order, and where each one's race lies
DIR/<task>/          a race like any other: ledger, checkpoints, weights
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError, LedgerError, unknown_name
from steepest.racing.database import FILE as LEDGER
from steepest.racing.database import writable
from steepest.racing.folder import delete_race, open_race
from steepest.racing.result import Result
from steepest.racing.spec import Plan
from steepest.stats import (
    PairVerdict,
    decide_all,
    floor_p,
    interquartile_mean,
    normalised_scores,
    seeds_to_decide_at_all,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ArmScore", "Several", "folder_names", "is_several", "open_several", "places"]

FILE = "several.json"
Reals = npt.NDArray[np.float64]


def folder_names(tasks: Sequence[str]) -> dict[str, str]:
    """The subfolder of every task.

    >>> folder_names(["mnist", "my/task <1>"])
    {'mnist': 'mnist', 'my/task <1>': 'my-task-1'}

    Raises:
        InputError: If two tasks have one name, or names that make one folder.
    """
    names = {task: re.sub(r"[^\w.+=-]+", "-", task).strip("-.") or "task" for task in tasks}
    for name in names.values():
        same = [task for task in tasks if names[task].casefold() == name.casefold()]
        if len(same) > 1:
            raise InputError(
                f"every task needs a name of its own, got {', '.join(map(repr, same))}: each has "
                "a folder that is named by it; change the name= of the task"
            )
    return names


def is_several(folder: str | Path) -> bool:
    """Whether a folder holds races over several tasks."""
    return (Path(folder) / FILE).is_file()


def places(folder: str | Path) -> dict[str, Path]:
    """Where the race of every task lies, in the order of the tasks.

    Raises:
        LedgerError: If the list cannot be read.
    """
    path = Path(folder) / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return {str(task): Path(folder) / str(name) for task, name in body["tasks"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise LedgerError(
            f"{path} cannot be read ({error}); the races of single tasks lie in subfolders and can "
            "be shown one by one"
        ) from error


def open_several(
    folder: str | Path, plans: Sequence[Plan], *, fresh: bool = False, command: str = ""
) -> dict[str, Path]:
    """Make the race of every task, so that all of them can be resumed whatever happens next.

    Args:
        folder: Made if it does not exist.
        plans: What is to be done, a plan per task.
        fresh: Delete the races that lie there and begin again.
        command: What reproduces all of them.

    Returns:
        By task, where its race lies.

    Raises:
        LedgerError: If other races lie there, or the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / LEDGER).exists():
        raise LedgerError(f"{folder} holds a race over one task; use another --out")
    names = folder_names([planned.spec.task for planned in plans])
    wanted = {task: folder / name for task, name in names.items()}
    there = places(folder) if is_several(folder) else wanted
    if list(there) != list(wanted) and not fresh:
        raise LedgerError(
            f"{folder} holds races over {', '.join(there)}, and {', '.join(wanted)} are asked for. "
            "Use another --out, or --fresh to delete those races and begin again"
        )
    writable(folder)
    for gone in set(there.values()) - set(wanted.values()):
        delete_race(gone)
    for planned in plans:
        open_race(wanted[planned.spec.task], planned, fresh=fresh, command=command).close()
    body = {"version": 1, "tasks": {task: path.name for task, path in wanted.items()}}
    unborn = folder / f"{FILE}.new"
    unborn.write_text(json.dumps({**body, "command": command}, ensure_ascii=False), "utf-8")
    os.replace(unborn, folder / FILE)
    return wanted


@dataclass(frozen=True)
class ArmScore:
    """An arm over all tasks.

    Attributes:
        label: The arm.
        iqm: Interquartile mean of its normalised scores; -inf where more than a quarter of its
            runs diverged.
        low: Lower end of the stratified bootstrap interval.
        high: Upper end.
        means: Mean score by task.
        diverged: Runs that diverged, over all tasks.
    """

    label: str
    iqm: float
    low: float
    high: float
    means: Mapping[str, float]
    diverged: int


class Several:
    """The results of several tasks, and their aggregates; read from the folder alone.

    Args:
        folder: Where they lie.

    Attributes:
        folder: Where they lie.
        results: By task, the `Result` of its race.

    Raises:
        LedgerError: If there are no such races.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results: dict[str, Result] = {
            task: self._read(path) for task, path in places(folder).items()
        }

    def _read(self, path: Path) -> Result:
        return Result(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder}: {', '.join(self.results)}>"

    def __getitem__(self, task: str) -> Result:
        """The result of one task."""
        if task not in self.results:
            raise unknown_name("task", task, self.results)
        return self.results[task]

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order in which they were given."""
        return list(self.results)

    @property
    def arms(self) -> list[str]:
        """Labels of the arms, in the order in which they were given."""
        return [arm.label for arm in next(iter(self.results.values())).arms]

    @property
    def level(self) -> float:
        """Confidence of the decisions."""
        return float(next(iter(self.results.values())).spec["level"])

    @property
    def complete(self) -> bool:
        """Every run of every task has come to its end."""
        return all(result.complete for result in self.results.values())

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds on which all arms came to an end on every task."""
        common = [result.verdict.seeds for result in self.results.values()]
        return [seed for seed in common[0] if all(seed in of for of in common)]

    @cached_property
    def scores(self) -> dict[str, Reals]:
        """By arm, the normalised scores (R, T): a row per common seed, a column per task.

        See `steepest.stats.normalised_scores`; empty where no task has two arms to compare, or
        nothing is finished.
        """
        if not self.seeds or len(self.arms) < 2:
            return {}
        columns: dict[str, list[Reals]] = {label: [] for label in self.arms}
        for result in self.results.values():
            values = {label: _values(result, label, self.seeds) for label in self.arms}
            if not any(np.isfinite(of).any() for of in values.values()):
                return {}
            of = normalised_scores(values, higher_is_better=result.higher_is_better)
            for label in self.arms:
                columns[label].append(of[label])
        return {label: np.column_stack(of) for label, of in columns.items()}

    @cached_property
    def aggregate(self) -> list[ArmScore]:
        """Every arm over all tasks, the best first; empty where there are no scores."""
        found = []
        for label, score_RT in self.scores.items():
            mean, low, high = interquartile_mean(score_RT, level=self.level)
            means = dict(zip(self.tasks, score_RT.mean(axis=0).tolist(), strict=True))
            lost = int((~np.isfinite(score_RT)).sum())
            found.append(ArmScore(label, mean, low, high, means, lost))
        return sorted(found, key=lambda score: (-score.iqm, score.diverged))

    @cached_property
    def over_tasks(self) -> list[PairVerdict]:
        """Every pair of arms with tasks in the place of seeds: would it hold on another task?

        The sign-flip test over the mean scores of the tasks, Holm over all pairs, as for seeds.
        It is about tasks like these only if these were drawn from them.
        """
        if not self.scores:
            return []
        means = {label: score_RT.mean(axis=0) for label, score_RT in self.scores.items()}
        return decide_all(means, higher_is_better=True, level=self.level)

    @property
    def tasks_needed(self) -> int:
        """The least number of tasks with which anything could be said about tasks in general."""
        pairs = max(1, len(self.arms) * (len(self.arms) - 1) // 2)
        return seeds_to_decide_at_all(self.level, pairs)

    @property
    def claim(self) -> str:
        """Whether something can be said about tasks in general, in a plain sentence."""
        count = len(self.results)
        pairs = len(self.arms) * (len(self.arms) - 1) // 2
        if pairs == 0:
            return "There is one arm, so there is nothing to compare it with."
        if count >= self.tasks_needed:
            decided = [p for p in self.over_tasks if p.decision != "undecided"]
            if not decided:
                return (
                    f"Over these {count} tasks no arm is better than another beyond what chance "
                    "among tasks explains."
                )
            return (
                f"Over these {count} tasks {len(decided)} of {pairs} pairs are decided also when "
                "tasks take the place of seeds; that holds for tasks like these."
            )
        several = f" (times {pairs} pairs)" if pairs > 1 else ""
        return (
            f"{count} tasks are too few for a claim about tasks in general: an arm that is better "
            f"on every one of them would be so by chance with p = {floor_p(count):.2g}{several}. "
            f"At least {self.tasks_needed} tasks are needed. What stands below is about "
            "these tasks."
        )

    def target_costs(self, what: str = "steps") -> dict[str, Reals] | None:
        """By arm, the median ``steps`` or ``seconds`` to the target on every task (T,).

        The median is over seeds, misses counted as infinite. None without a target.
        """
        if any(result.spec["target"] is None for result in self.results.values()):
            return None
        key = {"steps": "target_step", "seconds": "target_seconds"}[what]
        costs: dict[str, list[float]] = {label: [] for label in self.arms}
        for result in self.results.values():
            for label in self.arms:
                ended = [
                    getattr(run, key)
                    for run in result.final_runs
                    if run.arm == label and run.status in ("done", "diverged", "failed")
                ]
                seen = sorted(math.inf if cost is None else float(cost) for cost in ended)
                middle = (seen[(len(seen) - 1) // 2] + seen[len(seen) // 2]) / 2 if seen else None
                costs[label].append(math.inf if middle is None else middle)
        return {label: np.array(of) for label, of in costs.items()}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per run with all settings, and the task in the first column.

        Raises:
            InputError: If pandas is not installed.
        """
        frames = [result.to_dataframe() for result in self.results.values()]
        for task, frame in zip(self.results, frames, strict=True):
            frame.insert(0, "task", task)
        import pandas as pd

        return pd.concat(frames, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """The aggregates as plain values; each task's own are those of its race."""
        return {
            "tasks": self.tasks,
            "arms": self.arms,
            "seeds": self.seeds,
            "level": self.level,
            "aggregate": [dict(vars(score)) for score in self.aggregate],
            "target_steps": _listed(self.target_costs("steps")),
            "target_seconds": _listed(self.target_costs("seconds")),
            "tasks_needed": self.tasks_needed,
            "claim": self.claim,
        }


def _listed(costs: Mapping[str, Reals] | None) -> dict[str, list[float]] | None:
    return None if costs is None else {label: of.tolist() for label, of in costs.items()}


def _values(result: Result, label: str, seeds: Sequence[int]) -> Reals:
    by_seed = {
        run.seed: run.metrics.get(result.metric, math.nan)
        for run in result.final_runs
        if run.arm == label
    }
    return np.array([by_seed[seed] for seed in seeds], np.float64)
