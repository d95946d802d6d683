"""Intervals for means, differences and shares.

`sign_flip_interval` is the one that decisions are made with: it is the exact test turned round, so
it can never contradict it. `student_interval` and `bca_interval` are there for description and
because readers know them; docs/statistics.md has the measured coverage of all of them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level, sample
from steepest.stats.tests import sign_flip

__all__ = [
    "bca_interval",
    "mean_interval",
    "median_interval",
    "sign_flip_interval",
    "student_interval",
]


def mean_interval(x: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """``(mean, low, high)`` of one arm's runs: Student's t over the finite ones.

    For description: decisions are made on paired differences. Runs that diverged are left out,
    so say how many there were beside it. One run has the interval (-inf, inf); none, NaN.

    >>> [round(v, 3) for v in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    values = sample(x, "mean_interval")
    finite = values[np.isfinite(values)]
    low, high = student_interval(finite, level)
    return (float(finite.mean()) if finite.size else math.nan), low, high


def median_interval(x: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """``(median, low, high)`` without any assumption but independence: order statistics.

    The interval lies between the k-th smallest and the k-th largest value, with the largest k for
    which a fair coin falls fewer than k times on one side with probability at most α/2 (the sign
    test, turned round). Too few values for that give (-∞, ∞): below six at 95 %.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    (4.5, 1.0, 8.0)
    >>> median_interval([1.0, 2.0, 3.0])
    (2.0, -inf, inf)
    """
    from scipy.special import bdtr

    alpha = check_level(level)
    values = np.sort(_finite(x, "x"))
    n = values.size
    if n == 0:
        return math.nan, -math.inf, math.inf
    k = int((bdtr(np.arange(n), n, 0.5) <= alpha / 2).sum())
    middle = float(np.median(values))
    return (middle, float(values[k - 1]), float(values[-k])) if k else (middle, -math.inf, math.inf)


def student_interval(x: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    r"""Student's interval of the mean.

    .. math:: \bar x \pm t_{n-1,\,1-\alpha/2} \; s / \sqrt n

    Exact for normal values; see docs/statistics.md for skewed and heavy-tailed ones.

    Args:
        x: Finite values. None at all give NaN, one gives the whole line.
        level: Nominal coverage.

    >>> [round(v, 4) for v in student_interval([1.0, 2.0, 3.0, 4.0], 0.9)]
    [0.9809, 4.0191]
    """
    from scipy.special import stdtrit

    values, alpha = _finite(x, "student_interval"), check_level(level)
    n = values.size
    if n < 2:
        return (-math.inf, math.inf) if n else (math.nan, math.nan)
    half = float(stdtrit(n - 1, 1 - alpha / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    mean = float(values.mean())
    return mean - half, mean + half


def sign_flip_interval(
    d: npt.ArrayLike, level: float = 0.95, *, seed: int = 0
) -> tuple[float, float]:
    """All θ that the two-sided sign-flip test does not reject: the interval of the verdict.

    For differences that are symmetric about θ it covers θ with at least the nominal probability,
    at every n and whatever the tails; where n is too small for any rejection (n < 6 at 95 %) it is
    the whole line.

    >>> sign_flip_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    (1.0, 6.0)
    >>> sign_flip_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    (-inf, inf)
    """
    values, alpha = _finite(d, "sign_flip_interval"), check_level(level)
    if not values.size:
        return math.nan, math.nan
    return sign_flip(values, seed=seed).interval(alpha)


def bca_interval(
    d: npt.ArrayLike, level: float = 0.95, *, resamples: int = 9_999, seed: int = 0
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (`scipy.stats.bootstrap`).

    Efron (JASA 82:171, 1987). Its coverage is asymptotic: with 3 to 10 seeds it covers far less
    often than it says (docs/statistics.md), so no decision here is made with it.

    Args:
        d: Finite values. None give NaN, one gives the whole line, equal ones that value twice.
        level: Nominal coverage.
        resamples: Bootstrap samples.
        seed: Of the bootstrap samples.

    >>> low, high = bca_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    >>> round(low, 1), round(high, 1)
    (2.2, 4.8)
    """
    from scipy.stats import bootstrap

    values, alpha = _finite(d, "bca_interval"), check_level(level)
    if values.size < 2:
        return (-math.inf, math.inf) if values.size else (math.nan, math.nan)
    if np.ptp(values) <= 16 * np.finfo(np.float64).eps * np.abs(values).max():
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        confidence_level=1 - alpha,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def share_interval(successes: float, n: int, alpha: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a share; a tie counts as half a success.

    The test turned round is the sign test, whose floor is that of the sign-flip test, so it too
    claims nothing with fewer than 6 seeds at 95 %. Splitting a tie by a coin would make the count
    exactly binomial; half a success is the mean of that, with less variance.
    """
    from scipy.special import betaincinv

    failures = n - successes
    low = float(betaincinv(successes, failures + 1, alpha / 2)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - alpha / 2)) if failures > 0 else 1.0
    return low, high


def _finite(x: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    values = sample(x, name)
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite; "
            "compare() ranks diverged runs last, mean_interval() leaves them out"
        )
    return values
