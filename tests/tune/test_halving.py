"""Successive halving: rungs, their cost, and who goes on."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.tune import Rung, promote, rungs, total_steps


@given(st.integers(2, 4), st.integers(0, 300), st.integers(1, 20), st.integers(1, 5000))
def test_rungs_shrink_by_eta_and_end_with_whole_runs(eta, more, min_steps, steps):
    trials = eta + more
    steps += eta * min_steps
    plan = rungs(trials, steps, eta=eta, min_steps=min_steps)
    assert plan[0].trials == trials
    assert plan[-1].steps == steps
    assert len(plan) >= 2
    for before, after in itertools.pairwise(plan):
        assert 1 <= after.trials < before.trials
        assert before.steps < after.steps <= before.steps * eta
    assert [rung.trials for rung in plan] == [trials // eta**k for k in range(len(plan))]
    assert plan[0].steps >= min_steps
    # there is no room for another rung: nobody would be left, or the first would be too short
    assert plan[-1].trials < eta or math.ceil(steps / eta ** len(plan)) <= min_steps


def test_the_cost_is_the_documented_sum():
    plan = rungs(27, 2700)
    assert plan == (Rung(27, 100), Rung(9, 300), Rung(3, 900), Rung(1, 2700))
    assert total_steps(plan) == 27 * 100 + 9 * 300 + 3 * 900 + 2700
    assert total_steps(plan) == 4 * 27 * 2700 // 3**3  # K n R / eta^(K-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 2}, "at least 3 trials"),
        ({"trials": 0}, "whole number >= 1, got 0"),
        ({"steps": 29}, r"at least 30 steps \(eta × min_steps\), got 29"),
        ({"eta": 1}, "eta must be a whole number >= 2, got 1"),
        ({"eta": 2.5}, "eta must be a whole number"),
        ({"min_steps": 0}, "min_steps must be"),
    ],
)
def test_too_little_for_two_rungs_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        rungs(**{"trials": 9, "steps": 900, **arguments})


def test_the_better_go_on_in_their_old_order_and_failed_ones_last():
    scores = [[0.2, 0.4], [0.9, None], [0.1, 0.1], [math.nan, math.inf], [0.5, 0.3]]
    assert promote(scores, 2, higher_is_better=True) == (0, 4)
    assert promote(scores, 2, higher_is_better=False) == (0, 2)
    assert promote(scores, 4, higher_is_better=True) == (0, 1, 2, 4)
    assert promote(scores, 5, higher_is_better=True) == (0, 1, 2, 3, 4)
    assert promote([[1.0], [1.0], [1.0]], 1, higher_is_better=True) == (0,)
    for keep in (0, 6):
        with pytest.raises(InputError, match="keep must be from 1 to 5"):
            promote(scores, keep, higher_is_better=True)
