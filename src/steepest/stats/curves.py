"""What is read off a curve, and off the trials of a search.

A value that is NaN or infinite is a run that diverged: the worst outcome, never a missing one,
except in `moving_average`, which is for looking at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level, sample

__all__ = [
    "BestOfK",
    "NearBest",
    "best_of_k_band",
    "expected_best_of_k",
    "moving_average",
    "near_best_width",
    "steps_to_target",
    "upper_envelope",
]

Array = npt.NDArray[np.float64]


def steps_to_target(
    steps: npt.ArrayLike, values: npt.ArrayLike, target: float, higher_is_better: bool
) -> float:
    """The first step at which the target is reached; inf where it never is.

    Nothing is interpolated: what was not measured was not reached.

    >>> steps_to_target([100, 200, 300], [0.5, 0.9, 0.95], 0.9, higher_is_better=True)
    200.0
    >>> steps_to_target([100, 200, 300], [0.5, 0.9, 0.95], 0.99, higher_is_better=True)
    inf
    """
    at, seen = sample(steps, "steps"), sample(values, "values")
    if at.size != seen.size:
        raise InputError(f"steps_to_target: {at.size} steps, but {seen.size} values")
    if math.isnan(target):
        raise InputError("steps_to_target: the target is NaN; give a number")
    reached = np.isfinite(seen) & (seen >= target if higher_is_better else seen <= target)
    return float(at[reached].min()) if reached.any() else math.inf


def moving_average(x: npt.ArrayLike, window: int) -> Array:
    """Mean over a centred window, which is cut off at the ends; as long as ``x``.

    Values that are not finite are left out of the mean; where a window holds no finite one, the
    result is NaN. An even window reaches one further back than forward.

    >>> moving_average([1.0, 2.0, 6.0, float("nan"), 4.0], 3).tolist()
    [1.5, 3.0, 4.0, 5.0, 4.0]
    """
    if window < 1 or window != int(window):
        raise InputError(f"moving_average: window must be a whole number >= 1, got {window!r}")
    values = sample(x, "moving_average")
    if not values.size:
        return values
    finite = np.isfinite(values)
    centre = float(values[finite].mean()) if finite.any() else 0.0  # keeps the running sum small
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values - centre, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(values.size)
    first = np.maximum(index - window // 2, 0)
    last = np.minimum(index + (window - 1) // 2 + 1, values.size)
    held = counts[last] - counts[first]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(held > 0, (sums[last] - sums[first]) / held + centre, np.nan)


@dataclass(frozen=True, kw_only=True)
class BestOfK:
    """The best of k trials, over all choices of k out of those that were made.

    Attributes:
        k: Trials that one can afford.
        mean: Expected best metric; infinitely bad while all k may have diverged.
        median: Median best metric.
        low: Lower end of the range in which the best of k lies with the asked probability.
        high: Upper end of it.
    """

    k: int
    mean: float
    median: float
    low: float
    high: float


def expected_best_of_k(
    values: npt.ArrayLike, *, higher_is_better: bool, level: float = 0.95
) -> list[BestOfK]:
    r"""How good an arm is if one can only afford k trials, for every k from 1 to their number n.

    Exact over all choices of k of the n trials, nothing is drawn. With x ascending in quality,

    .. math::
        P(\text{best of } k \le x_{(i)}) = \binom{i}{k} \Big/ \binom{n}{k}, \qquad
        E_k = \sum_i x_{(i)} \binom{i-1}{k-1} \Big/ \binom{n}{k}

    which is unbiased for k fresh random trials (Tang et al., ACL 2020; the plug-in estimator of
    Dodge et al., EMNLP 2019, draws with replacement and is biased downwards). ``low`` … ``high``
    is the central range of that distribution: the luck of the k draws, given these n trials.

    Args:
        values: One metric per trial, NaN or infinite where it diverged.
        higher_is_better: True for accuracies, False for losses.
        level: Probability of the range.

    >>> for best in expected_best_of_k([1.0, 2.0, 3.0], higher_is_better=True):
    ...     print(best.k, round(best.mean, 3), best.median)
    1 2.0 2.0
    2 2.667 3.0
    3 3.0 3.0
    """
    alpha, trials = check_level(level), sample(values, "expected_best_of_k")
    n = trials.size
    if not n:
        raise InputError("expected_best_of_k: no trials")
    sign = 1.0 if higher_is_better else -1.0
    quality = np.sort(np.where(np.isfinite(trials), sign * trials, -np.inf))
    curve = []
    for k in range(1, n + 1):
        ways = math.comb(n, k)
        cdf = np.array([math.comb(i, k) / ways for i in range(1, n + 1)])
        mass = np.array([math.comb(i - 1, k - 1) / ways for i in range(1, n + 1)])
        mean = float(quality[mass > 0] @ mass[mass > 0])
        worst, middle, best = (
            float(quality[min(int(np.searchsorted(cdf, q * (1 - 1e-12))), n - 1)])
            for q in (alpha / 2, 0.5, 1 - alpha / 2)
        )
        low, high = (worst, best) if higher_is_better else (-best, -worst)
        curve.append(BestOfK(k=k, mean=sign * mean, median=sign * middle, low=low, high=high))
    return curve


def best_of_k_band(
    values: npt.ArrayLike,
    *,
    higher_is_better: bool,
    of: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    """``(middle, low, high)`` for k = 1 … n: `expected_best_of_k`, and how well n trials know it.

    The trials are drawn anew with replacement, and each draw's curve is computed; the band is
    their central range at every k. It is for description: with few trials the best possible
    setting was probably never tried, and no resampling knows it.

    Args:
        values: One metric per trial, NaN or infinite where it diverged.
        higher_is_better: True for accuracies, False for losses.
        of: The mean of the best of k, which is infinitely bad as soon as all k may have diverged;
            or its median.
        level: Nominal coverage at every k.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    >>> middle, low, high = best_of_k_band([0.1, 0.5, 0.9], higher_is_better=True)
    >>> middle.round(3).tolist(), float(high[-1])
    ([0.5, 0.767, 0.9], 0.9)
    """
    alpha, trials = check_level(level), sample(values, "best_of_k_band")
    n = trials.size
    if not n:
        raise InputError("best_of_k_band: no trials")
    sign = 1.0 if higher_is_better else -1.0
    quality = np.where(np.isfinite(trials), sign * trials, -np.inf)
    drawn = quality[np.random.default_rng(seed).integers(n, size=(resamples, n))]
    sorted_BN = np.sort(np.vstack([quality, drawn]), axis=1)  # the first row is the data itself
    ways = np.array([[math.comb(i, k) / math.comb(n, k) for i in range(n + 1)] for k in _upto(n)])
    if of == "median":
        first_K = (ways[:, 1:] < 0.5 * (1 - 1e-12)).sum(axis=1)
        curve_BK = sorted_BN[:, first_K]
    else:
        mass_KN = np.diff(ways, axis=1)
        finite = np.isfinite(sorted_BN)
        curve_BK = np.where(finite, sorted_BN, 0.0) @ mass_KN.T
        curve_BK[(~finite).astype(float) @ (mass_KN > 0).T > 0] = -np.inf
    low, high = np.quantile(curve_BK[1:], [alpha / 2, 1 - alpha / 2], axis=0, method="inverted_cdf")
    if not higher_is_better:
        low, high = -high, -low
    middle: Array = sign * curve_BK[0]
    return middle, low, high


def _upto(n: int) -> range:
    return range(1, n + 1)


def upper_envelope(
    rates: npt.ArrayLike, values: npt.ArrayLike, *, higher_is_better: bool, groups: int
) -> tuple[Array, Array]:
    """The best value in each of several neighbouring groups of rates: ``(rates, values)``.

    For trials in which other settings vary too: what a rate can reach if the others suit it, and
    not what it gives on average. Sorted by rate the trials are cut into groups of (nearly) equal
    size, and the best trial of each stands for it. A group in which all diverged has the value
    NaN, at the middle of its rates.

    Args:
        rates: One per trial, > 0.
        values: The metric of each trial, NaN or infinite where it diverged.
        higher_is_better: True for accuracies, False for losses.
        groups: Into how many; at most the number of trials.

    >>> rates, best = upper_envelope(
    ...     [1, 2, 10, 20], [0.1, 0.3, 0.9, 0.5], higher_is_better=True, groups=2)
    >>> rates.tolist(), best.tolist()
    ([2.0, 10.0], [0.3, 0.9])
    """
    at, seen = sample(rates, "rates"), sample(values, "values")
    if at.size != seen.size or not at.size:
        raise InputError(
            f"upper_envelope: expected as many values as rates, at least one; "
            f"got {at.size} rates and {seen.size} values"
        )
    if groups < 1:
        raise InputError(f"upper_envelope: groups must be >= 1, got {groups!r}")
    order = np.argsort(at, kind="stable")
    quality = np.where(np.isfinite(seen), seen if higher_is_better else -seen, -np.inf)
    found = []
    for members in np.array_split(order, min(groups, at.size)):
        top = members[int(np.argmax(quality[members]))]
        lost = not math.isfinite(quality[top])
        found.append((float(np.median(at[members])), math.nan) if lost else (at[top], seen[top]))
    table = np.array(found, np.float64)
    return table[:, 0], table[:, 1]


@dataclass(frozen=True, kw_only=True)
class NearBest:
    """The learning rates (or any other positive setting) that are about as good as the best.

    Attributes:
        best: The rate with the best mean.
        low: Lower end of the region around it within the tolerance.
        high: Upper end.
        decades: log10(high/low): how far off one may be without harm.
        open_low: The region reaches the smallest rate tried: it may be wider than this.
        open_high: The same for the largest.
    """

    best: float
    low: float
    high: float
    decades: float
    open_low: bool
    open_high: bool


def near_best_width(
    rates: npt.ArrayLike, values: npt.ArrayLike, *, tolerance: float, higher_is_better: bool
) -> NearBest:
    """How wide the region of near-best learning rates is, in decades.

    Several values at one rate are averaged (one that diverged makes the rate bad). The region is
    the stretch around the best rate where the mean stays within ``tolerance`` of the best; its
    ends are interpolated in log10(rate), and never into a rate that diverged.

    Args:
        rates: One per trial, > 0.
        values: The metric of each trial.
        tolerance: In the metric's units, >= 0.
        higher_is_better: True for accuracies, False for losses.

    >>> near = near_best_width(
    ...     [1e-4, 1e-3, 1e-2, 1e-1], [0.5, 0.9, 0.9, 0.1], tolerance=0.2, higher_is_better=True)
    >>> round(near.decades, 2), near.best, near.open_low
    (1.75, 0.001, False)
    """
    at, seen = sample(rates, "rates"), sample(values, "values")
    if at.size != seen.size or not at.size:
        raise InputError(
            f"near_best_width: expected as many values as rates, at least one; "
            f"got {at.size} rates and {seen.size} values"
        )
    if not (np.isfinite(at).all() and (at > 0).all()):
        raise InputError(f"near_best_width: rates must be finite and > 0, got {at.min():g}")
    if not tolerance >= 0:
        raise InputError(f"near_best_width: tolerance must be >= 0, got {tolerance!r}")
    quality = np.where(np.isfinite(seen), seen if higher_is_better else -seen, -np.inf)
    unique, where = np.unique(at, return_inverse=True)
    means = np.array([quality[where == i].mean() for i in range(unique.size)])
    top = int(np.argmax(means))
    if not math.isfinite(means[top]):
        raise InputError("near_best_width: every learning rate has a run that diverged")
    x, bar = np.log10(unique), float(means[top]) - tolerance
    low, open_low = _edge(x[top::-1], means[top::-1], bar)
    high, open_high = _edge(x[top:], means[top:], bar)
    return NearBest(
        best=float(unique[top]),
        low=10.0**low,
        high=10.0**high,
        decades=high - low,
        open_low=open_low,
        open_high=open_high,
    )


def _edge(x: Array, means: Array, bar: float) -> tuple[float, bool]:
    """Walk from the best rate outwards to where the curve falls through the bar."""
    below = np.flatnonzero(means < bar)
    if not below.size:
        return float(x[-1]), True
    i = int(below[0])
    if not math.isfinite(means[i]):
        return float(x[i - 1]), False
    share = (means[i - 1] - bar) / (means[i - 1] - means[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1])), False
