"""What the trials of an arm tell about its hyperparameters, and what other methods would have seen.

Everything here is computed from a result; nothing is trained and nothing is decided by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from steepest.errors import InputError
from steepest.racing.result import Result
from steepest.racing.rows import TrialRow, TuningRow
from steepest.stats import Importances, importances
from steepest.tune import METHODS, Choice, Space, propose

__all__ = ["Coverage", "Searched", "searched"]


@dataclass(frozen=True)
class Coverage:
    """What a method saw of one hyperparameter.

    Attributes:
        method: Its name.
        ran: Whether these are the trials of the search; if not, they are what the method would
            have tried with as many trials, and nothing was trained for them.
        points: Shape (n, d): the places of its trials in the unit cube.
        values: How many different values of the hyperparameter are among them.
        gap: The widest stretch of its range without a trial, as a share of the range in its own
            scale; NaN for a choice, which has no stretches.
    """

    method: str
    ran: bool
    points: NDArray[np.float64]
    values: int
    gap: float


@dataclass(frozen=True)
class Searched:
    """The tuning stage of one arm, looked at as a search.

    Attributes:
        arm: Its label.
        space: What was searched, after all widenings.
        trials: Those that came to an end, in the order in which they were planned.
        scores: Of each, the mean validation metric over the tuning seeds after runs of equal
            length (those of the first rung, where there were rungs); NaN if a run did not end well.
        importances: Which hyperparameters these differ by.
        focus: The hyperparameter that explains most, if any could be told from noise; otherwise
            the learning rate, or the first one.
        coverage: What the search saw of it, and what other methods would have seen; empty for a
            search that is not over.
    """

    arm: str
    space: Space
    trials: tuple[TrialRow, ...]
    scores: tuple[float, ...]
    importances: Importances
    focus: str
    coverage: tuple[Coverage, ...]


def searched(result: Result, arm: str | None = None) -> Searched:
    """Look at the tuning stage of an arm.

    Args:
        result: A race with a tuned arm.
        arm: Its label; default: the only tuned arm.

    Raises:
        InputError: If no arm, or not this one, was tuned, or there are several to choose from.
    """
    tuning = result.tuning
    if tuning is None:
        raise InputError(
            f"no arm of {result.folder} was tuned, so there is no search to look at; write a bare "
            "name (adam) or a range (adam(lr=1e-4..1e-1))"
        )
    if arm is None:
        if len(result.tuned) > 1:
            raise InputError(f"several arms were tuned, name one: {', '.join(result.tuned)}")
        arm = result.tuned[0]
    if arm not in result.tuned:
        raise InputError(f"the arm '{arm}' was not tuned; tuned: {', '.join(result.tuned)}")
    space = Space.from_spec(result.protocol()["spaces"][arm][-1])
    trials = [t for t in result.trials if t.arm == arm and t.role == "candidate" and t.runs]
    by_trial = _first_rung(result, tuning)
    scores = [fmean(by_trial[trial.trial_id]) for trial in trials]
    points = np.array([space.position(trial.values) for trial in trials]).reshape(-1, space.dim)
    names = list(space.dimensions)
    found = importances(
        points,
        scores,
        names=names,
        levels=[
            len(d.values) if isinstance(d, Choice) else None for d in space.dimensions.values()
        ],
        higher_is_better=tuning.higher_is_better,
        level=result.spec["level"],
    )
    focus = found.clear[0].name if found.clear else "lr" if "lr" in names else names[0]
    return Searched(
        arm,
        space,
        tuple(trials),
        tuple(scores),
        found,
        focus,
        _coverages(space, points, focus, tuning) if tuning.over else (),
    )


def _first_rung(result: Result, tuning: TuningRow) -> dict[int, list[float]]:
    """The validation metric of every run of the first rung, which all trials have, by trial."""
    found: dict[int, list[float]] = {}
    for run in result.tuning_runs:
        if run.rung == 0:
            value = run.metrics.get(tuning.metric, math.nan)
            found.setdefault(run.trial, []).append(value)
    return found


def _coverages(
    space: Space, points: NDArray[np.float64], focus: str, tuning: TuningRow
) -> tuple[Coverage, ...]:
    # halving begins with the settings of a Sobol sequence; the others are known by their name
    own = "sobol" if tuning.method == "halving" else tuning.method
    rows = []
    for method in METHODS:
        if method == own:
            continue
        try:
            settings = propose(space, method=method, trials=len(points), seed=0)
        except InputError:  # a grid may need more trials for its choices than there are
            continue
        places = np.array([space.position(setting) for setting in settings])
        rows.append(_coverage(space, method, places, focus, ran=False))
    return (_coverage(space, tuning.method, points, focus, ran=True), *rows)


def _coverage(
    space: Space, method: str, points: NDArray[np.float64], focus: str, *, ran: bool
) -> Coverage:
    column = np.unique(points[:, list(space.dimensions).index(focus)].round(9))
    gap = math.nan
    if not isinstance(space.dimensions[focus], Choice):
        gap = float(np.diff(column, prepend=0.0, append=1.0).max())
    return Coverage(method, ran, points, len(column), gap)
