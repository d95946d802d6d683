"""What is read off curves and trials, against plain loops and enumeration."""

import itertools
import math

import numpy as np
import pytest

from steepest.errors import InputError
from steepest.stats import (
    best_of_k_band,
    expected_best_of_k,
    moving_average,
    near_best_width,
    steps_to_target,
    upper_envelope,
)

NAN, INF = math.nan, math.inf


def test_steps_to_target_is_the_first_evaluation_that_reaches_it():
    steps, loss = [10, 20, 30, 40], [NAN, 0.5, 0.3, 0.4]
    assert steps_to_target(steps, loss, 0.4, higher_is_better=False) == 30
    assert steps_to_target(steps, loss, 0.1, higher_is_better=False) == INF
    assert steps_to_target(steps, loss, 0.5, higher_is_better=True) == 20
    assert steps_to_target([1], [INF], 0.5, higher_is_better=True) == INF  # diverged, not won
    assert steps_to_target([], [], 0.5, higher_is_better=True) == INF
    with pytest.raises(InputError, match="2 steps, but 1 values"):
        steps_to_target([1, 2], [1], 0.5, higher_is_better=True)
    with pytest.raises(InputError, match="NaN"):
        steps_to_target([1], [1], NAN, higher_is_better=True)


@pytest.mark.parametrize("window", [1, 2, 5, 8, 100])
def test_moving_average_is_the_mean_of_the_finite_values_in_the_window(window):
    x = np.random.default_rng(0).normal(1e6, 1, 40)
    x[[3, 4, 5, 6, 7, 20]] = NAN
    x[30] = INF
    expected = []
    for i in range(len(x)):
        part = x[max(0, i - window // 2) : i + (window - 1) // 2 + 1]
        part = part[np.isfinite(part)]
        expected.append(part.mean() if part.size else NAN)
    np.testing.assert_allclose(moving_average(x, window), expected, rtol=1e-12)


def test_moving_average_of_odd_cases():
    assert moving_average([], 3).size == 0
    assert np.isnan(moving_average([NAN, NAN], 3)).all()
    for window in (0, -1, 1.5):
        with pytest.raises(InputError, match="whole number >= 1"):
            moving_average([1.0], window)


@pytest.mark.parametrize("higher", [True, False])
def test_expected_best_of_k_is_the_mean_over_all_choices(higher):
    values = np.random.default_rng(0).normal(size=7)
    sign = 1 if higher else -1
    for best in expected_best_of_k(values, higher_is_better=higher, level=0.8):
        bests = [max(c) for c in itertools.combinations(sign * values, best.k)]
        worst, middle, top = np.quantile(bests, [0.1, 0.5, 0.9], method="inverted_cdf")
        assert best.mean == pytest.approx(sign * np.mean(bests))
        assert best.median == pytest.approx(sign * middle)
        assert sorted([sign * worst, sign * top]) == pytest.approx([best.low, best.high])


def test_expected_best_of_k_is_unbiased_for_fresh_trials():
    rng, k = np.random.default_rng(1), 3
    estimates = [
        expected_best_of_k(rng.exponential(size=8), higher_is_better=True)[k - 1].mean
        for _ in range(1500)
    ]
    truth = 1 + 1 / 2 + 1 / 3  # the largest of three exponentials
    assert abs(np.mean(estimates) - truth) <= 3 * np.std(estimates) / math.sqrt(1500)


def test_diverged_trials_are_the_worst_ones():
    curve = expected_best_of_k([1.0, NAN, 3.0, INF], higher_is_better=True)
    assert [best.mean for best in curve[:2]] == [-INF, -INF]
    assert curve[2].mean == pytest.approx((1 + 3 + 3 + 3) / 4 - 0.0)
    assert curve[3].mean == 3
    assert expected_best_of_k([1.0, NAN], higher_is_better=False)[0].mean == INF
    with pytest.raises(InputError, match="no trials"):
        expected_best_of_k([], higher_is_better=True)


def test_near_best_width_of_a_parabola_in_log_lr():
    rates = np.logspace(-4, 0, 401)
    quality = 1 - (np.log10(rates) + 2) ** 2
    near = near_best_width(rates, quality, tolerance=0.25, higher_is_better=True)
    assert near.best == pytest.approx(1e-2)
    assert near.decades == pytest.approx(1.0, abs=1e-3)
    assert (near.open_low, near.open_high) == (False, False)
    as_loss = near_best_width(rates, -quality, tolerance=0.25, higher_is_better=False)
    assert as_loss == near


def test_near_best_region_ends_before_a_rate_that_diverged_and_says_when_it_is_open():
    near = near_best_width(
        [1e-3, 1e-2, 1e-2, 1e-1, 1e-1],
        [0.9, 0.95, 0.93, 0.9, NAN],
        tolerance=0.1,
        higher_is_better=True,
    )
    assert (near.best, near.low, near.high) == pytest.approx((1e-2, 1e-3, 1e-2))
    assert (near.open_low, near.open_high) == (True, False)
    assert near_best_width([0.1], [1.0], tolerance=0, higher_is_better=True).decades == 0


def test_near_best_width_refuses_what_it_cannot_read():
    for rates, values, tolerance, message in [
        ([], [], 0, "at least one"),
        ([1.0, 2.0], [1.0], 0, "as many values"),
        ([0.0], [1.0], 0, "> 0"),
        ([1.0], [1.0], -1, "tolerance"),
        ([1.0], [NAN], 0, "diverged"),
    ]:
        with pytest.raises(InputError, match=message):
            near_best_width(rates, values, tolerance=tolerance, higher_is_better=True)


@pytest.mark.parametrize("higher", [True, False])
def test_the_band_of_best_of_k_is_around_the_exact_curve(higher):
    trials = np.random.default_rng(3).normal(size=9)
    exact = expected_best_of_k(trials, higher_is_better=higher)
    for of in ("mean", "median"):
        middle, low, high = best_of_k_band(trials, higher_is_better=higher, of=of)
        assert middle == pytest.approx([getattr(best, of) for best in exact])
        assert (low <= middle).all()
        assert (middle <= high).all()
    # k = 1 is the mean of the trials: its bootstrap is known
    middle, low, high = best_of_k_band(trials, higher_is_better=higher)
    width = 2 * 1.96 * trials.std() / 3
    assert high[0] - low[0] == pytest.approx(width, rel=0.08)


def test_the_band_of_best_of_k_covers_the_truth_for_fresh_trials():
    # uniform trials: E(best of k) = k / (k + 1)
    rng = np.random.default_rng(1)
    truth = 4 / 5
    inside = []
    for _ in range(300):
        _, low, high = best_of_k_band(rng.random(24), higher_is_better=True, resamples=300)
        inside.append(low[3] <= truth <= high[3])
    assert 0.88 <= np.mean(inside) <= 1.0


def test_diverged_trials_make_the_mean_infinite_and_the_median_only_when_they_are_likely():
    trials = [0.5, 0.7, math.nan, math.inf]
    mean = best_of_k_band(trials, higher_is_better=True)[0]
    assert mean.tolist() == pytest.approx([-INF, -INF, 0.65, 0.7])  # three of four: 3/4 hold 0.7
    median = best_of_k_band(trials, higher_is_better=True, of="median")[0]
    assert median.tolist() == [-math.inf, 0.5, 0.7, 0.7]


def test_the_envelope_is_the_best_of_each_group_whatever_the_order():
    rates = np.array([100.0, 1.0, 2.0, 10.0, 3.0, 200.0, 20.0, 30.0])
    losses = np.array([math.nan, 0.9, 0.4, 0.3, 0.8, math.inf, 0.2, 0.25])
    at, best = upper_envelope(rates, losses, higher_is_better=False, groups=3)
    assert at.tolist()[:2] == [2.0, 20.0]
    assert best.tolist()[:2] == [0.4, 0.2]
    assert at[2] == 150.0
    assert math.isnan(best[2])
    assert upper_envelope([1.0], [2.0], higher_is_better=True, groups=5)[1].tolist() == [2.0]
    with pytest.raises(InputError, match="as many values"):
        upper_envelope([], [], higher_is_better=True, groups=2)
