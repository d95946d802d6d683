"""Several tasks at once: scores on one scale, performance profiles, the interquartile mean."""

# arms A, tasks T, runs R

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level, sample

__all__ = ["interquartile_mean", "normalised_scores", "performance_profile", "score_profile"]

Array = npt.NDArray[np.float64]


def performance_profile(
    costs: Mapping[str, npt.ArrayLike], ratios: npt.ArrayLike
) -> dict[str, Array]:
    r"""For each arm the share of tasks that it solves within τ times the best arm's cost.

    .. math:: \rho_a(\tau) = \frac1T \#\{t : c_{a,t} \le \tau \min_{a'} c_{a',t}\}

    Dolan & Moré (Math. Program. 91:201, 2002). At τ = 1 it is the share of tasks on which the arm
    is the cheapest, and at large τ the share that it solves at all. A task that no arm solves
    counts in the denominator: nobody gets it.

    Args:
        costs: Per arm one cost per task (steps or seconds to target), > 0; inf or NaN: missed.
        ratios: The τ at which to evaluate, >= 1.

    >>> profile = performance_profile({"a": [1, 4], "b": [2, float("inf")]}, [1, 2])
    >>> {arm: shares.tolist() for arm, shares in profile.items()}
    {'a': [1.0, 1.0], 'b': [0.0, 0.5]}
    """
    arrays = {arm: sample(values, arm) for arm, values in costs.items()}
    taus = sample(ratios, "ratios")
    sizes = {arm: values.size for arm, values in arrays.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise InputError(f"performance_profile: every arm needs a cost on every task, got {sizes}")
    if not (taus >= 1).all():
        raise InputError(f"performance_profile: ratios to the best must be >= 1, got {taus.min()}")
    cost_AT = np.stack(list(arrays.values()))
    cost_AT = np.where(np.isnan(cost_AT), np.inf, cost_AT)
    if (cost_AT <= 0).any():
        raise InputError(f"performance_profile: costs must be > 0, got {cost_AT.min():g}")
    best_T = cost_AT.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio_AT = np.where(np.isfinite(cost_AT), cost_AT / best_T, np.inf)
    return {
        arm: (ratio_T[:, None] <= taus * (1 + 1e-12)).mean(axis=0)
        for arm, ratio_T in zip(arrays, ratio_AT, strict=True)
    }


def normalised_scores(
    values: Mapping[str, npt.ArrayLike], *, higher_is_better: bool
) -> dict[str, Array]:
    r"""One task's final metrics on a scale that tasks share: 1 is the best arm, 0 the worst.

    .. math:: s_{a,r} = \frac{x_{a,r} - \min_{a'} \bar x_{a'}}
                           {\max_{a'} \bar x_{a'} - \min_{a'} \bar x_{a'}}

    with the means over an arm's runs that did not diverge (turned round where lower is better).
    Single runs may lie below 0 and above 1; one that diverged is -inf. The scale is made by the
    arms at hand: with other arms beside them the same runs get other scores. Where all means are
    equal there is no scale and every run scores 1.

    Args:
        values: Per arm the final metric of every run (R,); NaN or infinite where it diverged.
        higher_is_better: True for accuracies, False for losses.

    Raises:
        InputError: Without an arm, or where every run of every arm diverged.

    >>> scores = normalised_scores({"a": [3.0, 5.0], "b": [1.0, 1.0]}, higher_is_better=True)
    >>> {arm: of.tolist() for arm, of in scores.items()}
    {'a': [0.666..., 1.333...], 'b': [0.0, 0.0]}
    """
    sign = 1.0 if higher_is_better else -1.0
    quality = {arm: sign * sample(of, arm) for arm, of in values.items()}
    means = [of[np.isfinite(of)].mean() for of in quality.values() if np.isfinite(of).any()]
    if not means:
        raise InputError("normalised_scores: no run of any arm has a finite value")
    low, span = min(means), max(means) - min(means)
    return {
        arm: np.where(np.isfinite(of), (of - low) / span if span > 0 else 1.0, -np.inf)
        for arm, of in quality.items()
    }


def score_profile(
    scores: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    r"""``(share, low, high)``: the share of runs with a score above each threshold.

    .. math:: \hat F(\tau) = \frac1T \sum_t \frac1R \#\{r : s_{r,t} > \tau\}

    The run-score distribution of Agarwal et al. (NeurIPS 2021, section 4.3), also called a
    performance profile: an arm whose curve lies above another's everywhere is better whatever
    summary one prefers. The band is pointwise, by the stratified bootstrap of
    `interquartile_mean`.

    Args:
        scores: Runs by tasks (R, T), higher better, on one scale; NaN or -inf where a run diverged.
        thresholds: The τ.
        level: Nominal coverage of the band at each τ.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    >>> share, low, high = score_profile([[0.2, 0.9], [0.4, 1.0]], [0.0, 0.5, 0.95])
    >>> share.tolist()
    [1.0, 0.5, 0.25]
    """
    alpha, taus = check_level(level), sample(thresholds, "thresholds")
    score_RT = _runs_by_tasks(scores, "score_profile")
    R, T = score_RT.shape
    above = (score_RT[..., None] > taus).astype(np.float64)  # (R, T, τ)
    drawn = np.random.default_rng(seed).integers(R, size=(resamples, R, T))
    counts = np.zeros((resamples, R, T))  # how often each run of each task was drawn
    rows, columns = np.arange(resamples)[:, None, None], np.arange(T)
    np.add.at(counts, (rows, drawn, columns), 1.0)
    shares = np.einsum("brt,rtk->bk", counts, above) / (R * T)
    low, high = np.quantile(shares, [alpha / 2, 1 - alpha / 2], axis=0, method="inverted_cdf")
    return above.mean(axis=(0, 1)), low, high


def interquartile_mean(
    scores: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """``(mean, low, high)``: the mean of the middle half of all runs, with a bootstrap interval.

    Agarwal et al. (NeurIPS 2021): less noisy than the median, and one task or a few lucky runs
    cannot decide it. The bootstrap is stratified: runs are drawn anew within each task, the tasks
    are fixed. It is a percentile bootstrap, so it is for description; see docs/statistics.md.

    Args:
        scores: Runs by tasks (R, T), or (R,) for one task, higher better, on comparable scales
            (accuracies, or scores normalised per task); NaN or infinite where a run diverged,
            which counts as -inf.
        level: Nominal coverage.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    >>> interquartile_mean([0.0, 1.0, 2.0, 9.0])[0]
    1.5
    """
    alpha = check_level(level)
    score_RT = _runs_by_tasks(scores, "interquartile_mean")
    R, T = score_RT.shape
    if R < 2:
        return float(_middle_mean(score_RT.reshape(1, -1))[0]), -math.inf, math.inf
    drawn = np.random.default_rng(seed).integers(R, size=(resamples, R, T))
    means = _middle_mean(score_RT[drawn, np.arange(T)].reshape(resamples, -1))
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    return float(_middle_mean(score_RT.reshape(1, -1))[0]), float(low), float(high)


def _runs_by_tasks(scores: npt.ArrayLike, name: str) -> Array:
    """Scores as a table (R, T), with -inf for what is not finite."""
    table = np.asarray(scores, dtype=np.float64)
    score_RT = table[:, None] if table.ndim == 1 else table
    if score_RT.ndim != 2 or not score_RT.size:
        raise InputError(f"{name}: expected runs by tasks, at least one of each, got {table.shape}")
    return np.where(np.isfinite(score_RT), score_RT, -np.inf)


def _middle_mean(rows: Array) -> Array:
    """Each row's mean without its smallest and its largest quarter (rounded down)."""
    cut = rows.shape[1] // 4
    ordered = np.sort(rows, axis=1)
    mean: Array = ordered[:, cut : rows.shape[1] - cut].mean(axis=1)
    return mean
