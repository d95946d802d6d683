"""Tests that make no assumption about the size or shape of the noise, and that can be inverted.

Each test asks: how many of the equally likely re-arrangements of the data (signs flipped, arms
swapped) speak for a difference above θ at least as strongly as the data do? For all four tests the
answer depends on θ only through a count, the number of *typical values* that are ≤ θ:

    paired     finite      sign flips     means of all non-empty subsets of the differences
    paired     diverged    signed ranks   Walsh averages (d_i + d_j)/2, i <= j
    unpaired   finite      swaps          mean(A') - mean(B'), equally many of a and b swapped
    unpaired   diverged    rank sum       a_i - b_j

so one sorted list of typical values holds the p value for every θ and the interval at every level,
and the two can never contradict each other: θ lies in the interval at level 1 - α exactly when its
p value is above α (Hartigan, JASA 64:1303, 1969; Tukey's and Moses' intervals for the ranks).
"""

# d differences over seeds (n,); θ a difference to be tested; M re-arrangements, the data included

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level

__all__ = [
    "EXACT_LIMIT",
    "Inversion",
    "floor_p",
    "rank_sum",
    "seeds_to_decide_at_all",
    "sign_flip",
    "sign_flip_test",
    "signed_rank",
    "swap",
]

Array = npt.NDArray[np.float64]

EXACT_LIMIT = 2**20
"""All re-arrangements are counted up to this number; beyond it a random sample of them is."""

_DRAWN_NUMBERS = 3_000_000  # signs drawn past the limit: 20 to 30 ms on one core
_SLACK = 1 + 1e-12  # 1 - 0.9375 must reach 2/32 in floating point too


@dataclass(frozen=True, eq=False)
class Inversion:
    """A test with the interval that belongs to it.

    Attributes:
        typical: The typical values; NaN for a re-arrangement that says nothing about θ
            (nothing was moved, or a diverged run met another), which counts against every claim.
        tail: From the number of typical values on the far side of θ to the one-sided p value.
        rejected: From a one-sided error rate to the number of counts whose tail is at most that.
        method: The test's name.
        exact: All re-arrangements were counted.
    """

    typical: Array
    tail: Callable[[int], float]
    rejected: Callable[[float], int]
    method: str
    exact: bool

    def p_value(self, theta: float = 0.0, *, margin: float = 0.0) -> float:
        """Two-sided p value of "the difference lies in θ ± margin".

        Twice the smaller tail, and 1 where the data's centre lies within the margin.
        """
        silent = int(np.isnan(self.typical).sum())
        above = self.tail(int((self.typical <= theta + margin).sum()) + silent)
        below = self.tail(int((self.typical >= theta - margin).sum()) + silent)
        return min(1.0, 2 * above, 2 * below)

    def interval(self, alpha: float) -> tuple[float, float]:
        """The differences whose p value is above ``alpha``: a closed interval, or a half line."""
        k = self.rejected(alpha / 2)
        size = len(self.typical)
        if k == 0:
            return -math.inf, math.inf
        low = np.where(np.isnan(self.typical), -np.inf, self.typical)
        high = np.where(np.isnan(self.typical), np.inf, self.typical)
        return float(np.partition(low, k - 1)[k - 1]), float(np.partition(high, size - k)[size - k])


def floor_p(n: int) -> float:
    """The smallest p value that a two-sided sign-flip test of n differences can have.

    >>> floor_p(5), floor_p(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - n))


def seeds_to_decide_at_all(level: float = 0.95, pairs: int = 1) -> int:
    """The smallest number of seeds with which any pair can be decided at all.

    The sign-flip test of n differences has no p value below 2/2^n, and Holm's first step asks for
    α/pairs: with fewer seeds every pair comes out undecided, whatever the data.

    Args:
        level: Of the whole table, e.g. 0.95.
        pairs: How many pairs of arms are compared: k(k-1)/2 for k arms.

    >>> seeds_to_decide_at_all(0.95), seeds_to_decide_at_all(0.95, pairs=28)
    (6, 11)
    """
    alpha = check_level(level)
    if pairs < 1:
        raise InputError(f"pairs must be at least 1 (two arms make one pair), got {pairs}")
    n = 1
    while floor_p(n) > alpha / pairs * _SLACK:
        n += 1
    return n


def sign_flip_test(d: npt.ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p value of "the differences are symmetric about zero", from their mean.

    Under the null hypothesis (two arms that are the same in law) each difference is as likely to
    be d as -d, so all 2^n patterns of signs are equally likely: the p value is the share of
    patterns whose mean is at least as far from zero. Past 2^20 patterns: of a random sample
    of patterns, the data's own included (the "+1" of Phipson & Smyth, SAGMB 9:39, 2010).

    >>> sign_flip_test([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    0.03125
    """
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            "sign_flip_test: expected a one-dimensional array of at least one finite difference, "
            f"got shape {values.shape}; compare() knows what to do with diverged runs"
        )
    return sign_flip(values, seed=seed).p_value()


def sign_flip(d: Array, *, seed: int = 0, rounding: float = 0.0, snap: float = 0.0) -> Inversion:
    """The sign-flip test: typical values are the means of subsets of the differences.

    Flipping the signs of a subset S of d - θ leaves the sum at least as large as it was exactly
    when the sum over S was <= 0, that is, when θ is at least the mean of d over S.

    Args:
        d: Finite differences.
        seed: Of the sample of patterns, past `EXACT_LIMIT`.
        rounding: Typical values this close to 0 or ±snap are moved onto it: with accuracies,
            which are multiples of 1/test set, ties are the rule and must count as ties.
        snap: The other point where rounding must not decide.
    """
    n = len(d)
    exact = 2**n <= EXACT_LIMIT
    if exact:
        sums, counts = np.zeros(1), np.zeros(1)
        for value in d:
            sums = np.concatenate([sums, sums + value])
            counts = np.concatenate([counts, counts + 1])
        means = sums[1:] / counts[1:]
    else:
        means = _random_subset_means(d, seed=seed)
    rounding = max(rounding, 16 * np.finfo(np.float64).eps * float(np.abs(d).max()))
    return _counting(_snapped(means, rounding, snap), "sign-flip", exact=exact)


def _random_subset_means(d: Array, *, seed: int) -> Array:
    """Subsets with their complements, so that the two-sided p value is twice the tail."""
    n = len(d)
    draws = min(99_999, max(9_999, _DRAWN_NUMBERS // n))
    bits = np.random.default_rng(seed).bytes(draws * math.ceil(n / 8))
    packed = np.frombuffer(bits, dtype=np.uint8).reshape(draws, -1)
    chosen = np.unpackbits(packed, axis=1, count=n).astype(np.float64)
    sums, counts = chosen @ d, chosen.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside, outside = sums / counts, (d.sum() - sums) / (n - counts)
    return np.concatenate([inside, outside, [d.mean()]])


def swap(
    a: Array, b: Array, *, seed: int = 0, rounding: float = 0.0, snap: float = 0.0
) -> Inversion:
    """The two-sample permutation test of the difference of means, for arms without common seeds.

    Exchanging A' out of a - θ for as many B' out of b leaves the difference of the means at least
    as large as it was exactly when θ is at least mean(A') - mean(B').
    """
    exact = math.comb(len(a) + len(b), len(a)) <= EXACT_LIMIT // 4 and max(len(a), len(b)) <= 20
    if exact:
        means_a, means_b = _means_by_size(a), _means_by_size(b)
        typical = np.concatenate(
            [
                np.subtract.outer(means_a[size], means_b[size]).ravel()
                for size in range(1, min(len(a), len(b)) + 1)
            ]
        )
    else:
        typical = _random_swaps(a, b, seed=seed)
    largest = float(max(np.abs(a).max(), np.abs(b).max()))
    rounding = max(rounding, 16 * np.finfo(np.float64).eps * largest)
    return _counting(_snapped(typical, rounding, snap), "swap", exact=exact)


def _means_by_size(x: Array) -> list[Array]:
    sums, counts = np.zeros(1), np.zeros(1, dtype=np.int64)
    for value in x:
        sums = np.concatenate([sums, sums + value])
        counts = np.concatenate([counts, counts + 1])
    return [sums[counts == size] / max(size, 1) for size in range(len(x) + 1)]


def _random_swaps(a: Array, b: Array, *, seed: int) -> Array:
    n, both = len(a), np.concatenate([a, b])
    draws = max(2_000, min(19_999, _DRAWN_NUMBERS // 4 // len(both)))
    keys = np.random.default_rng(seed).random((draws, len(both)))
    in_a = np.argpartition(keys, n - 1, axis=1)[:, :n]
    from_b = in_a >= n
    moved = from_b.sum(axis=1)
    sum_new = both[in_a].sum(axis=1)
    # sum(A') - sum(B') = sum(a) - sum(a after the exchange)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(moved > 0, (a.sum() - sum_new) / moved, np.nan)


def signed_rank(d: Array, *, rounding: float = 0.0, snap: float = 0.0) -> Inversion:
    """Wilcoxon's signed-rank test, for differences some of which are ±inf (a run diverged).

    The typical values are the Walsh averages; inf met with -inf says nothing (NaN). Ties and
    zeros count against the claim, so the error rate is at most the nominal one.
    """
    n = len(d)
    i, j = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        walsh = (d[i] + d[j]) / 2
    return _ranking(_snapped(walsh, rounding, snap), _signed_rank_cdf(n), "signed-rank")


def rank_sum(a: Array, b: Array, *, rounding: float = 0.0, snap: float = 0.0) -> Inversion:
    """The Mann-Whitney test, for unpaired runs some of which diverged (-inf)."""
    with np.errstate(invalid="ignore"):
        typical = np.subtract.outer(a, b).ravel()
    return _ranking(_snapped(typical, rounding, snap), _rank_sum_cdf(len(a), len(b)), "rank-sum")


def _snapped(typical: Array, rounding: float, snap: float) -> Array:
    for point in {0.0, snap, -snap}:
        typical[np.abs(typical - point) <= rounding] = point
    return typical


def _counting(typical: Array, method: str, *, exact: bool) -> Inversion:
    arrangements = len(typical) + 1  # and the data as they are
    return Inversion(
        typical,
        tail=lambda count: (1 + count) / arrangements,
        rejected=lambda alpha: math.floor(alpha * arrangements * _SLACK),
        method=method,
        exact=exact,
    )


def _ranking(typical: Array, cdf: Array, method: str) -> Inversion:
    return Inversion(
        typical,
        tail=lambda count: float(cdf[count]),
        rejected=lambda alpha: int(np.searchsorted(cdf, alpha * _SLACK, side="right")),
        method=method,
        exact=True,
    )


@lru_cache(maxsize=64)
def _signed_rank_cdf(n: int) -> Array:
    """P(W <= w), w = 0 … n(n+1)/2: each rank 1 … n is in the sum or not; normal past n = 200."""
    total = n * (n + 1) // 2
    if n > 200:
        return _normal_cdf(total, n * (n + 1) * (2 * n + 1) / 24)
    mass = np.zeros(total + 1)
    mass[0] = 1.0
    for rank in range(1, n + 1):
        mass[rank:] = mass[rank:] + mass[:-rank]
        mass /= 2
    return np.minimum(np.cumsum(mass), 1.0)


@lru_cache(maxsize=64)
def _rank_sum_cdf(n: int, m: int) -> Array:
    """P(U <= u), u = 0 … nm, from the Gaussian binomial coefficient; normal past nm = 2,500."""
    total = n * m
    if total > 2_500:
        return _normal_cdf(total, n * m * (n + m + 1) / 12)
    mass = [1] + [0] * total  # exact integers: the division below would lose digits in floats
    for i in range(1, min(n, m) + 1):
        step = max(n, m) + i
        for u in range(total, step - 1, -1):
            mass[u] -= mass[u - step]
        for u in range(i, total + 1):
            mass[u] += mass[u - i]
    ways, cumulated = math.comb(n + m, n), 0
    cdf = np.empty(total + 1)
    for u, count in enumerate(mass):
        cumulated += count
        cdf[u] = cumulated / ways
    return cdf


def _normal_cdf(total: int, variance: float) -> Array:
    from scipy.special import ndtr

    at = (np.arange(total + 1) + 0.5 - total / 2) / math.sqrt(variance)
    cdf: Array = np.asarray(ndtr(at), dtype=np.float64)
    cdf[-1] = 1.0
    return cdf
