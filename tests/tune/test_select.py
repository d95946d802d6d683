"""Which trial is chosen."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.tune import best, ranked

NAN, INF = math.nan, math.inf


@given(
    st.integers(1, 4).flatmap(
        lambda seeds: st.lists(
            st.lists(st.floats(-1e6, 1e6), min_size=seeds, max_size=seeds), min_size=1, max_size=8
        )
    ),
    st.booleans(),
)
def test_the_best_mean_wins_and_its_spread_is_told(scores, higher):
    means = [statistics.fmean(s) for s in scores]
    chosen = best(scores, higher_is_better=higher)
    assert chosen.mean == pytest.approx((max if higher else min)(means), abs=1e-9)
    assert means[chosen.index] == pytest.approx(chosen.mean, abs=1e-9)
    assert chosen.failed == 0
    if len(scores[0]) > 1:
        assert chosen.spread == pytest.approx(statistics.stdev(scores[chosen.index]), abs=1e-6)
    else:
        assert math.isnan(chosen.spread)
    if len(scores) > 1:
        second = sorted(means, reverse=higher)[1]
        assert chosen.margin == pytest.approx(abs(chosen.mean - second), abs=1e-6)
    else:
        assert math.isnan(chosen.margin)


@pytest.mark.parametrize("bad", [None, NAN, INF, -INF])
@pytest.mark.parametrize("higher", [True, False])
def test_a_trial_with_a_failed_run_is_worse_than_any_without(bad, higher):
    good, awful = (1e9, -1e9) if higher else (-1e9, 1e9)
    assert best([[good, bad], [awful, awful]], higher_is_better=higher).index == 1
    assert ranked([[bad, bad], [good, bad], [awful, bad]], higher_is_better=higher) == (1, 2, 0)


def test_where_all_failed_it_is_told():
    chosen = best([[NAN], [None]], higher_is_better=True)
    assert (chosen.index, chosen.failed) == (0, 1)
    assert math.isnan(chosen.mean)
    assert math.isnan(chosen.margin)
    part = best([[1.0, None], [2.0, 3.0]], higher_is_better=False)
    assert (part.index, part.mean, part.failed) == (1, 2.5, 0)
    assert math.isnan(part.margin)  # the other's mean is not one of the same seeds


def test_of_equals_the_first_is_chosen():
    assert best([[2.0], [1.0], [1.0]], higher_is_better=False).index == 1


@pytest.mark.parametrize(
    ("scores", "message"), [([], "no trials"), ([[1.0], []], "trial 1 has no")]
)
def test_nothing_to_choose_from_is_refused(scores, message):
    with pytest.raises(InputError, match=message):
        best(scores, higher_is_better=True)
