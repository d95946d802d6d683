"""Better, worse or undecided: from the runs of two arms, or of many, to decisions.

Two arms are compared seed by seed. A run that diverged (a metric that is NaN or infinite) is the
worst possible outcome, not a missing one: where there are any, ranks take the place of means.
"""

# a, b  the final metrics of two arms, one number per seed (n,)
# gain  a metric turned so that more is better, -inf where the run diverged

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level, sample
from steepest.stats.intervals import share_interval
from steepest.stats.power import seeds_for_power
from steepest.stats.tests import Inversion, rank_sum, sign_flip, signed_rank, swap

__all__ = ["Comparison", "Decision", "PairVerdict", "compare", "decide_all", "holm"]

Array = npt.NDArray[np.float64]
Decision = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arm a against arm b, from their runs on common seeds.

    Differences are a - b in the metric's own units: positive is good for a when higher is better,
    bad when lower is. "Better" in names always means better.

    Attributes:
        n: Seeds (the smaller arm's number of runs, if unpaired).
        mean_a: Mean of a's runs that did not diverge; NaN if all did.
        mean_b: The same of b.
        difference: Mean difference over the seeds where neither diverged; NaN if there are none.
        sd: Standard deviation of these differences; NaN for fewer than two.
        low: Lower end of the interval, -inf where the seeds are too few to say.
        high: Upper end. The interval holds exactly the differences that the test does not reject
            at 1 - ``level``; for ``method`` signed-rank or rank-sum it is one for the median
            difference, with a diverged run infinitely bad.
        level: Nominal coverage of ``low`` … ``high`` and of ``prob_low`` … ``prob_high``: the
            level asked for, or the stricter one that Holm's procedure used for this pair.
        min_effect: The smallest difference that matters.
        p_value: Two-sided, of "the difference is at most ``min_effect`` in size".
        prob_a_better: Share of seeds on which a beats b; a tie counts half.
        prob_low: Lower end of its interval.
        prob_high: Upper end of its interval.
        correlation: Between the arms' results over seeds; NaN for fewer than three seeds, constant
            results, or unpaired runs.
        pairing_gain: How many times more seeds would be needed for the same precision without
            common seeds (below 1: common seeds did harm); NaN where it cannot be told.
        seeds_needed: All seeds, those at hand included, with which a difference of the observed
            size and variance is decided with probability 0.8; n itself if it is decided; None if
            more than 1,000, or if it cannot be told (one seed, no difference beyond min_effect).
        diverged_a: Runs of a that diverged.
        diverged_b: Runs of b that diverged.
        method: sign-flip, signed-rank (some run diverged), swap or rank-sum (the same, unpaired).
        exact: All re-arrangements were counted (up to 2^20), not a sample.
    """

    n: int
    mean_a: float
    mean_b: float
    difference: float
    sd: float
    low: float
    high: float
    level: float
    min_effect: float
    p_value: float
    prob_a_better: float
    prob_low: float
    prob_high: float
    correlation: float
    pairing_gain: float
    seeds_needed: int | None
    diverged_a: int
    diverged_b: int
    method: str
    exact: bool

    @property
    def direction(self) -> Literal[-1, 0, 1]:
        """Where the interval lies: 1 above ``min_effect``, -1 below its negative, else 0."""
        if self.low > self.min_effect:
            return 1
        return -1 if self.high < -self.min_effect else 0

    @property
    def negligible(self) -> bool:
        """The whole interval lies within ± ``min_effect``: any difference is too small to matter.

        It holds for this pair at ``level``; it is no statement about all pairs at once.
        """
        return self.min_effect > 0 and -self.min_effect <= self.low <= self.high <= self.min_effect

    @property
    def identical(self) -> bool:
        """The arms gave the same result on every seed: probably they are the same thing."""
        return self.difference == 0 and self.low == self.high == 0

    @property
    def further_seeds(self) -> int | None:
        """How many seeds to add, so that there are ``seeds_needed``."""
        return None if self.seeds_needed is None else max(0, self.seeds_needed - self.n)


@dataclass(frozen=True, kw_only=True)
class PairVerdict:
    """What is said about arm ``a`` against arm ``b``.

    Attributes:
        a: Label of the first arm.
        b: Label of the second arm.
        comparison: The numbers; its interval is the one that Holm's procedure used for this pair,
            so it excludes ± min_effect exactly when the pair is decided.
        p_adjusted: Holm's p value over all pairs.
        decision: Of a against b.
    """

    a: str
    b: str
    comparison: Comparison
    p_adjusted: float
    decision: Decision


def compare(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    higher_is_better: bool,
    level: float = 0.95,
    min_effect: float = 0.0,
    paired: bool = True,
    seed: int = 0,
) -> Comparison:
    """Compare the final metrics of two arms over seeds.

    Args:
        a: One number per seed; NaN or infinite where the run diverged.
        b: The same for the other arm, on the same seeds in the same order (if paired).
        higher_is_better: True for accuracies, False for losses.
        level: Nominal coverage of the interval.
        min_effect: Smallest difference that matters, in the metric's units, >= 0.
        paired: The i-th runs share their seed (start, batches, noise).
        seed: Of the Monte-Carlo sample past 2^20 re-arrangements.

    >>> a = [0.990, 0.991, 0.989, 0.992, 0.990, 0.991]
    >>> b = [0.986, 0.988, 0.987, 0.989, 0.986, 0.985]
    >>> c = compare(a, b, higher_is_better=True)
    >>> round(c.difference, 4), round(c.low, 4), round(c.high, 4), c.p_value, c.prob_a_better
    (0.0037, 0.002, 0.006, 0.03125, 1.0)
    """
    alpha = check_level(level)
    evidence = _Evidence(
        a, b, higher_is_better=higher_is_better, min_effect=min_effect, paired=paired, seed=seed
    )
    return evidence.at(alpha)


def decide_all(
    samples: Mapping[str, npt.ArrayLike],
    *,
    higher_is_better: bool,
    level: float = 0.95,
    min_effect: float = 0.0,
    paired: bool = True,
    seed: int = 0,
) -> list[PairVerdict]:
    """Decide every pair of arms, with at most 1 - ``level`` risk of any wrong decision at all.

    Holm's procedure (Scand. J. Stat. 6:65, 1979): the pair with the smallest p value is tested at
    α/m, the next at α/(m-1), and so on up to the first that is not decided; all that remain are
    tested at that last level, and stay undecided. Each pair's interval has its own level.

    Args:
        samples: Per arm one number per seed, seeds in the same order for all arms.
        higher_is_better: True for accuracies, False for losses.
        level: One minus the risk that any pair is decided wrongly.
        min_effect: Smallest difference that matters: "better" means better by more than this.
        paired: The arms share their seeds.
        seed: Of the Monte-Carlo sample past 2^20 re-arrangements.

    Returns:
        One verdict per pair, in the order of ``samples``.

    >>> same = {"adam": [0.98, 0.97, 0.99], "adam again": [0.98, 0.97, 0.99]}
    >>> [verdict.decision for verdict in decide_all(same, higher_is_better=True)]
    ['undecided']
    """
    alpha = check_level(level)
    _check_samples(samples, paired=paired)
    pairs = list(itertools.combinations(samples, 2))
    evidence = [
        _Evidence(
            samples[a],
            samples[b],
            higher_is_better=higher_is_better,
            min_effect=min_effect,
            paired=paired,
            seed=seed,
            names=(a, b),
        )
        for a, b in pairs
    ]
    p_values = [item.p_value for item in evidence]
    comparisons: dict[int, Comparison] = {}
    step = 0
    for index in sorted(range(len(pairs)), key=lambda i: p_values[i]):
        comparisons[index] = evidence[index].at(alpha / (len(pairs) - step))
        if step == len(comparisons) - 1 and comparisons[index].direction != 0:
            step += 1
    sign = 1 if higher_is_better else -1
    words: dict[int, Decision] = {1: "better", 0: "undecided", -1: "worse"}
    return [
        PairVerdict(
            a=a,
            b=b,
            comparison=comparisons[i],
            p_adjusted=p_adjusted,
            decision=words[sign * comparisons[i].direction],
        )
        for i, ((a, b), p_adjusted) in enumerate(zip(pairs, holm(p_values), strict=True))
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: reject those that are <= α, and the family-wise risk is <= α.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    m = len(p_values)
    adjusted, largest = [1.0] * m, 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _check_samples(samples: Mapping[str, npt.ArrayLike], *, paired: bool) -> None:
    if len(samples) < 2:
        raise InputError(f"decide_all needs at least two arms, got {len(samples)}: {list(samples)}")
    sizes = {label: sample(values, label).size for label, values in samples.items()}
    if paired and len(set(sizes.values())) > 1:
        raise InputError(
            f"arms that are compared seed by seed need the same seeds, got {sizes} runs; "
            "finish the race first, or pass NaN for a run that diverged"
        )


class _Evidence:
    """All that two arms' runs say, ready to be asked at any level."""

    def __init__(
        self,
        a: npt.ArrayLike,
        b: npt.ArrayLike,
        *,
        higher_is_better: bool,
        min_effect: float,
        paired: bool,
        seed: int,
        names: tuple[str, str] = ("a", "b"),
    ) -> None:
        self.a, self.b = sample(a, names[0]), sample(b, names[1])
        self.paired, self.min_effect = paired, float(min_effect)
        self.sign = 1.0 if higher_is_better else -1.0
        if not 0 <= self.min_effect < math.inf:
            raise InputError(f"min_effect must be a finite number >= 0, got {min_effect!r}")
        if not self.a.size or not self.b.size:
            raise InputError(
                f"no seeds to compare: '{names[0]}' has {self.a.size} runs, "
                f"'{names[1]}' has {self.b.size}"
            )
        if paired and self.a.size != self.b.size:
            raise InputError(
                f"paired arms need the same seeds: '{names[0]}' has {self.a.size} runs, "
                f"'{names[1]}' has {self.b.size}; pass paired=False for other seeds"
            )
        self.lost_a, self.lost_b = ~np.isfinite(self.a), ~np.isfinite(self.b)
        self.inversion = self._invert(seed)
        self.p_value = self.inversion.p_value(margin=self.min_effect)

    def _invert(self, seed: int) -> Inversion:
        gain_a = np.where(self.lost_a, -np.inf, self.sign * self.a)
        gain_b = np.where(self.lost_b, -np.inf, self.sign * self.b)
        self.gains = _minus(gain_a, gain_b) if self.paired else _minus(gain_a[:, None], gain_b)
        # the last digits of a - b are those of a and b, not of the difference
        finite = np.abs(np.concatenate([self.a[~self.lost_a], self.b[~self.lost_b]]))
        ties = {
            "rounding": 8 * float(np.finfo(np.float64).eps * finite.max(initial=0.0)),
            "snap": self.min_effect,
        }
        if self.lost_a.any() or self.lost_b.any():
            if self.paired:
                return signed_rank(self.gains, **ties)
            return rank_sum(gain_a, gain_b, **ties)
        if self.paired:
            return sign_flip(self.gains, seed=seed, **ties)
        return swap(gain_a, gain_b, seed=seed, **ties)

    def at(self, alpha: float) -> Comparison:
        """The comparison with its intervals at level 1 - alpha."""
        n = min(self.a.size, self.b.size)
        low, high = self.inversion.interval(alpha)
        share = float(np.mean(self.gains > 0) + np.mean(self.gains == 0) / 2)
        share_low, share_high = share_interval(share * n, n, alpha)
        finite_a, finite_b = self.a[~self.lost_a], self.b[~self.lost_b]
        mean_a, mean_b = _mean(finite_a), _mean(finite_b)
        difference, sd = self._difference(mean_a, mean_b, finite_a, finite_b)
        comparison = Comparison(
            n=n,
            mean_a=mean_a,
            mean_b=mean_b,
            difference=difference,
            sd=sd,
            low=low if self.sign > 0 else -high + 0.0,
            high=high if self.sign > 0 else -low + 0.0,
            level=1 - alpha,
            min_effect=self.min_effect,
            p_value=self.p_value,
            prob_a_better=share,
            prob_low=share_low,
            prob_high=share_high,
            correlation=self._correlation(),
            pairing_gain=self._pairing_gain(sd),
            seeds_needed=None,
            diverged_a=int(self.lost_a.sum()),
            diverged_b=int(self.lost_b.sum()),
            method=self.inversion.method,
            exact=self.inversion.exact,
        )
        return replace(comparison, seeds_needed=self._seeds_needed(comparison, alpha))

    def _difference(
        self, mean_a: float, mean_b: float, finite_a: Array, finite_b: Array
    ) -> tuple[float, float]:
        if not self.paired:
            return mean_a - mean_b, math.sqrt(_variance(finite_a) + _variance(finite_b))
        both = ~(self.lost_a | self.lost_b)
        differences = self.a[both] - self.b[both]
        return _mean(differences), math.sqrt(_variance(differences))

    def _correlation(self) -> float:
        both = ~(self.lost_a | self.lost_b) if self.paired else np.zeros(0, dtype=bool)
        if both.sum() < 3:
            return math.nan
        a, b = self.a[both], self.b[both]
        if _constant(a) or _constant(b):
            return math.nan
        return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))

    def _pairing_gain(self, sd: float) -> float:
        both = ~(self.lost_a | self.lost_b) if self.paired else np.zeros(0, dtype=bool)
        if both.sum() < 3 or sd == 0:
            return math.nan
        return (_variance(self.a[both]) + _variance(self.b[both])) / sd**2

    def _seeds_needed(self, comparison: Comparison, alpha: float) -> int | None:
        if comparison.direction != 0:
            return comparison.n
        mean, sd, margin = comparison.difference, comparison.sd, self.min_effect
        if comparison.method == "signed-rank":
            mean, sd, margin = _signed_rank_effect(self.gains, margin)
        elif comparison.method == "rank-sum":
            return None  # two samples, some runs lost: no estimate that would keep its promise
        if not math.isfinite(mean) or math.isnan(sd) or not abs(mean) > margin:
            return None
        needed = seeds_for_power((abs(mean) - margin) / sd if sd > 0 else math.inf, alpha=alpha)
        return None if needed is None else max(needed, comparison.n + 1)


def _minus(x: Array, y: Array) -> Array:
    """The difference of gains; two runs that both diverged are a tie."""
    with np.errstate(invalid="ignore"):
        difference: Array = x - y
    return np.where(np.isnan(difference), 0.0, difference)


def _signed_rank_effect(gains: Array, margin: float) -> tuple[float, float, float]:
    """Mean and deviation of the signed ranks: they stand for the differences in the power."""
    from scipy.stats import rankdata

    # half of the seeds lost by one arm and half by the other have no middle: neither side leads
    middle = np.sort(gains)[[(gains.size - 1) // 2, gains.size // 2]]
    centre = float(np.sign(_minus(middle[1], -middle[0])))
    shifted = gains - centre * margin
    signed = np.sign(shifted) * rankdata(np.abs(shifted))
    mean = float(signed.mean())
    return mean if mean * centre >= 0 else 0.0, math.sqrt(_variance(signed)), 0.0


def _mean(x: Array) -> float:
    return float(x.mean()) if x.size else math.nan


def _variance(x: Array) -> float:
    if x.size < 2:
        return math.nan
    return 0.0 if _constant(x) else float(x.var(ddof=1))


def _constant(x: Array) -> bool:
    return bool(np.ptp(x) <= 16 * np.finfo(np.float64).eps * np.abs(x).max())
