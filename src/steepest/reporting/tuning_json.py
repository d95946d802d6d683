"""The tuning stage as plain values, for ``--json``: the numbers behind its figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.reporting.bought import gains
from steepest.reporting.sensitivity import sensitivities, tolerance_of
from steepest.reporting.spending import budget_says, incumbents, spent
from steepest.reporting.trials import candidates
from steepest.stats import best_of_k_band, expected_best_of_k

if TYPE_CHECKING:
    from steepest.racing.result import Result
    from steepest.racing.rows import TuningRow

__all__ = ["tuning_json"]


def tuning_json(result: Result) -> dict[str, Any] | None:
    """How the arms were tuned and what came of it; None where none was tuned.

    ``best_of_k`` has per arm and k the mean and median of the best of k trials, the range of the
    luck of the draw (``low``, ``high``) and the bootstrapped band of the median (``median_low``,
    ``median_high``); it is empty after successive halving, whose trials are not of one length.
    """
    tuning = result.tuning
    if tuning is None:
        return None
    return {
        **asdict(tuning),
        "equal": tuning.equal,
        "budget_text": budget_says(result, tuning),
        "spent": {label: asdict(cost) for label, cost in spent(result).items()},
        "trial_rows": [asdict(trial) for trial in result.trials],
        "near_best_tolerance": tolerance_of(result, tuning),
        "learning_rates": {
            row.arm: {
                "exact": row.exact,
                "near_best": None if row.near is None else asdict(row.near),
                "rates": row.line_rates.tolist(),
                "scores": row.line_scores.tolist(),
            }
            for row in sensitivities(result)
        },
        "best_of_k": _best_of_k(result, tuning),
        "anytime": {arm.label: _anytime(result, arm.label, tuning) for arm in result.arms},
        "bought": [asdict(gain) for gain in gains(result)],
    }


def _best_of_k(result: Result, tuning: TuningRow) -> dict[str, list[dict[str, Any]]]:
    if len(tuning.rungs) > 1:
        return {}
    found = {}
    for arm in result.arms:
        scores = np.array([trial.score for trial in candidates(result, arm.label)])
        if not len(scores):
            continue
        level, higher = float(result.spec["level"]), tuning.higher_is_better
        exact = expected_best_of_k(scores, higher_is_better=higher, level=level)
        _, low, high = best_of_k_band(scores, higher_is_better=higher, of="median", level=level)
        found[arm.label] = [
            {**asdict(best), "median_low": float(a), "median_high": float(b)}
            for best, a, b in zip(exact, low, high, strict=True)
        ]
    return found


def _anytime(result: Result, label: str, tuning: TuningRow) -> dict[str, list[float]]:
    runs = [run for run in result.tuning_runs if run.arm == label]
    curves = {
        cost: incumbents(
            runs,
            tuning.metric,
            seeds=len(tuning.seeds),
            higher_is_better=tuning.higher_is_better,
            cost=cost,
        )
        for cost in ("steps", "seconds")
    }
    return {
        "steps": curves["steps"][0].tolist(),
        "seconds": curves["seconds"][0].tolist(),
        "best": curves["steps"][1].tolist(),
    }
