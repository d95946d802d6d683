"""Intervals: against textbooks and SciPy, and their coverage by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from steepest.errors import InputError
from steepest.stats import (
    bca_interval,
    mean_interval,
    median_interval,
    sign_flip_interval,
    student_interval,
)
from steepest.stats.intervals import share_interval


def test_student_interval_is_scipys():
    x = np.random.default_rng(0).normal(size=7)
    expected = scipy.stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert student_interval(x, 0.9) == pytest.approx((expected.low, expected.high))


def test_mean_interval_leaves_diverged_runs_out():
    x = [1.0, 2.0, math.nan, 3.0, math.inf]
    assert mean_interval(x) == pytest.approx((2.0, *student_interval([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("interval", [student_interval, sign_flip_interval, bca_interval])
def test_degenerate_samples_have_honest_intervals(interval):
    assert all(math.isnan(end) for end in interval([]))
    assert interval([3.0]) == (-math.inf, math.inf)
    low, high = interval([0.1] * 8)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    with pytest.raises(InputError, match="not finite"):
        interval([1.0, math.nan])
    with pytest.raises(InputError, match="one-dimensional"):
        interval([[1.0, 2.0]])
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        interval([1.0, 2.0], 1.0)


def test_bca_interval_is_scipys_bootstrap():
    x = np.random.default_rng(1).exponential(size=12)
    expected = scipy.stats.bootstrap((x,), np.mean, method="BCa", rng=np.random.default_rng(0))
    low, high = expected.confidence_interval
    assert bca_interval(x) == pytest.approx((low, high))


def test_share_interval_is_clopper_pearsons():
    for wins, n in [(0, 6), (6, 6), (3, 10)]:
        expected = scipy.stats.binomtest(wins, n).proportion_ci(0.95, "exact")
        assert share_interval(wins, n, 0.05) == pytest.approx((expected.low, expected.high))


def test_share_interval_covers_with_ties_counted_half():
    rng, n, repeats = np.random.default_rng(0), 10, 2_000
    p = np.array([0.3, 0.3, 0.4])  # worse, tie, better: the share is 0.55
    counts = rng.multinomial(n, p, size=repeats)
    ends = [share_interval(c[2] + c[1] / 2, n, 0.05) for c in counts]
    assert np.mean([low <= 0.55 <= high for low, high in ends]) >= 0.95


@pytest.mark.parametrize("n", [6, 8, 13])
@pytest.mark.parametrize("shape", ["normal", "heavy"])
def test_sign_flip_interval_covers_symmetric_differences_as_promised(n, shape):
    rng, repeats = np.random.default_rng(n), 600
    size = (repeats, n)
    d = rng.normal(size=size) if shape == "normal" else rng.standard_t(2, size=size)
    ends = np.array([sign_flip_interval(row, 0.9) for row in d + 5.0])
    covered = np.mean((ends[:, 0] <= 5.0) & (ends[:, 1] >= 5.0))
    assert covered >= 0.9 - 2.5 * math.sqrt(0.09 / repeats)


def test_bca_covers_too_seldom_with_few_seeds_which_is_why_it_decides_nothing():
    d = np.random.default_rng(0).normal(size=(300, 5))
    ends = np.array([bca_interval(row, resamples=999) for row in d])
    assert np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)) < 0.9


def test_the_median_interval_holds_the_median_as_often_as_it_promises() -> None:
    rng = np.random.default_rng(5)
    for n in (7, 12, 25):
        held = 0
        for _ in range(2000):
            _, low, high = median_interval(rng.exponential(size=n))
            held += low <= math.log(2) <= high
        assert held / 2000 >= 0.94
    assert median_interval([1.0] * 5)[1:] == (-math.inf, math.inf)
