"""Scores on one scale, performance profiles and the interquartile mean."""

import math

import numpy as np
import pytest
import scipy.stats

from steepest.errors import InputError
from steepest.stats import (
    interquartile_mean,
    normalised_scores,
    performance_profile,
    score_profile,
)

NAN, INF = math.nan, math.inf


def test_performance_profile_by_hand():
    costs = {"a": [100, 300, INF, INF], "b": [200, 100, 50, INF], "c": [150, 400, NAN, INF]}
    profile = performance_profile(costs, [1, 1.5, 2, 3, 4, 1e9])
    assert profile["a"].tolist() == [0.25, 0.25, 0.25, 0.5, 0.5, 0.5]
    assert profile["b"].tolist() == [0.5, 0.5, 0.75, 0.75, 0.75, 0.75]
    assert profile["c"].tolist() == [0, 0.25, 0.25, 0.25, 0.5, 0.5]


def test_performance_profile_refuses_what_is_not_a_cost():
    for costs, ratios, message in [
        ({"a": [1, 2], "b": [1]}, [1], "every arm"),
        ({}, [1], "every arm"),
        ({"a": [0.0]}, [1], "> 0"),
        ({"a": [1.0]}, [0.5], ">= 1"),
    ]:
        with pytest.raises(InputError, match=message):
            performance_profile(costs, ratios)


@pytest.mark.parametrize("shape", [(4,), (7,), (10, 3)])
def test_interquartile_mean_is_the_trimmed_mean_of_all_runs(shape):
    scores = np.random.default_rng(0).normal(size=shape)
    mean, low, high = interquartile_mean(scores)
    assert mean == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None))
    assert low < mean < high


def test_interquartile_interval_resamples_runs_within_tasks():
    # tasks far apart, runs equal within each: there is no noise at all
    scores = np.tile([0.0, 10.0, 20.0, 30.0], (5, 1))
    assert interquartile_mean(scores) == (15.0, 15.0, 15.0)


def test_interquartile_interval_covers_with_many_runs():
    rng = np.random.default_rng(0)
    ends = [interquartile_mean(rng.normal(size=(20, 3)), resamples=500)[1:] for _ in range(200)]
    covered = np.mean([low <= 0 <= high for low, high in ends])
    assert covered >= 0.9


def test_diverged_runs_are_trimmed_while_few_and_ruin_the_mean_when_many():
    assert interquartile_mean([1.0, 1.0, 1.0, NAN])[0] == 1.0
    assert interquartile_mean([1.0, NAN, INF, NAN])[0] == -INF
    assert interquartile_mean([[1.0, 2.0]]) == (1.5, -INF, INF)
    with pytest.raises(InputError, match="runs by tasks"):
        interquartile_mean([])


def test_scores_are_one_for_the_best_arm_and_zero_for_the_worst_on_every_scale():
    accuracies = {"a": [0.90, 0.94], "b": [0.80, 0.84], "c": [0.70, NAN]}
    scores = normalised_scores(accuracies, higher_is_better=True)
    losses = {arm: [7 - 3 * x for x in of] for arm, of in accuracies.items()}
    turned = normalised_scores(losses, higher_is_better=False)
    for arm in accuracies:
        assert scores[arm] == pytest.approx(turned[arm])
    assert scores["a"].mean() == pytest.approx(1.0)
    assert scores["b"].tolist() == pytest.approx([0.10 / 0.22, 0.14 / 0.22])
    assert scores["c"].tolist() == [0.0, -INF]


def test_scores_without_a_scale():
    equal = normalised_scores({"a": [0.5, 0.5], "b": [0.5, INF]}, higher_is_better=True)
    assert equal["a"].tolist() == [1.0, 1.0]
    assert equal["b"].tolist() == [1.0, -INF]
    with pytest.raises(InputError, match="no run of any arm has a finite value"):
        normalised_scores({"a": [NAN]}, higher_is_better=True)


def test_the_score_profile_counts_runs_and_its_band_resamples_them_within_tasks():
    score_RT = np.array([[0.1, 0.9], [0.6, 0.7], [NAN, 0.8], [0.3, 1.1]])
    taus = np.linspace(-0.5, 1.2, 18)
    share, low, high = score_profile(score_RT, taus)
    counted = [[np.sum(np.nan_to_num(of, nan=-INF) > tau) / 4 for of in score_RT.T] for tau in taus]
    assert share == pytest.approx(np.mean(counted, axis=1))
    assert (low <= share).all()
    assert (share <= high).all()
    # a task whose runs agree adds no width: the band is that of the other task alone
    one = np.column_stack([score_RT[:, 0], np.full(4, 5.0)])
    of_two, of_one = score_profile(one, [0.2])[1:], score_profile(score_RT[:, 0], [0.2])[1:]
    assert of_two[1] - of_two[0] == pytest.approx((of_one[1] - of_one[0]) / 2, abs=0.13)
