"""Decisions: their error rate, their power, and that they never contradict the intervals."""

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.stats import compare, decide_all, holm, seeds_for_power
from steepest.stats.tests import sign_flip

NAN, INF = math.nan, math.inf


def test_numbers_of_a_comparison_by_hand():
    a, b = [5.0, 6.0, 8.0, 9.0], [4.0, 6.0, 9.0, 5.0]
    c = compare(a, b, higher_is_better=True)
    assert (c.n, c.mean_a, c.mean_b, c.difference) == (4, 7.0, 6.0, 1.0)
    assert c.sd == pytest.approx(np.std([1, 0, -1, 4], ddof=1))
    assert c.prob_a_better == (2 + 0.5) / 4
    assert c.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert c.pairing_gain == pytest.approx((np.var(a, ddof=1) + np.var(b, ddof=1)) / c.sd**2)
    assert (c.low, c.high) == (-INF, INF)
    assert c.p_value == 0.75  # |±4 ±1 ±1| >= 4 in 6 of 8 patterns


def test_lower_is_better_turns_better_round_and_nothing_else():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(size=9)
    up, down = (compare(a, b, higher_is_better=h) for h in (True, False))
    assert (down.difference, down.low, down.high) == (up.difference, up.low, up.high)
    assert down.p_value == up.p_value
    assert down.prob_a_better == pytest.approx(1 - up.prob_a_better)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 30])
def test_identical_arms_are_undecided_with_a_difference_of_zero(n):
    x = np.random.default_rng(0).normal(size=n)
    (v,) = decide_all({"x": x, "y": x}, higher_is_better=True)
    c = v.comparison
    assert (v.decision, v.p_adjusted, c.difference, c.prob_a_better) == ("undecided", 1, 0, 0.5)
    assert (c.low, c.high) == ((0, 0) if n >= 6 else (-INF, INF))
    assert c.identical == (n >= 6)
    assert c.seeds_needed is None


def test_constant_difference_is_decided_as_soon_as_the_floor_allows():
    b = np.random.default_rng(0).normal(size=6)
    assert decide_all({"a": b + 1, "b": b}, higher_is_better=True)[0].decision == "better"
    (v,) = decide_all({"a": b[:4] + 1, "b": b[:4]}, higher_is_better=True)
    assert (v.decision, v.comparison.seeds_needed, v.comparison.further_seeds) == (
        "undecided",
        6,
        2,
    )


def test_one_and_two_seeds_say_nothing_but_break_nothing():
    one = compare([1.0], [2.0], higher_is_better=False)
    assert (one.p_value, one.seeds_needed, one.low, one.high) == (1.0, None, -INF, INF)
    assert math.isnan(one.sd)
    two = compare([1.0, 1.5], [2.0, 2.6], higher_is_better=False)
    assert two.p_value == 0.5
    assert two.seeds_needed == 6


def test_planted_winner_is_found():
    rng = np.random.default_rng(1)
    seeds = rng.normal(size=10)
    samples = {name: seeds + rng.normal(shift, 0.3, 10) for name, shift in [("a", 0), ("b", 1)]}
    (up,) = decide_all(samples, higher_is_better=True)
    (down,) = decide_all(samples, higher_is_better=False)
    assert (up.decision, down.decision) == ("worse", "better")
    assert up.comparison.pairing_gain > 2


def test_smallest_effect_that_matters_shifts_the_null_hypothesis():
    rng = np.random.default_rng(2)
    b = rng.normal(size=10)
    a = b + rng.normal(0.5, 0.1, 10)
    decisions = {
        effect: decide_all({"a": a, "b": b}, higher_is_better=True, min_effect=effect)[0]
        for effect in (0.0, 0.3, 0.5, 2.0)
    }
    assert [v.decision for v in decisions.values()] == [
        "better",
        "better",
        "undecided",
        "undecided",
    ]
    assert [v.comparison.negligible for v in decisions.values()] == [False, False, False, True]
    margin = compare(a, b, higher_is_better=True, min_effect=0.3)
    assert margin.p_value == compare(a, b + 0.3, higher_is_better=True).p_value


def test_holm_is_the_textbook_procedure():
    # Holm (1979): ordered p times m, m-1, …, made monotone
    assert holm([0.0121, 0.0142, 0.1986, 0.0001]) == pytest.approx([0.0363, 0.0363, 0.1986, 0.0004])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


runs = st.lists(
    st.one_of(st.integers(-8, 8).map(lambda v: v / 7), st.sampled_from([NAN, INF])),
    min_size=8,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@example(
    [
        [0.0] * 8,
        [0.0, NAN, 0.0, NAN, NAN, 0.0, NAN, 0.0],  # where one is lost the other is not
        [NAN, 0.0, NAN, 0.0, 0.0, NAN, 0.0, NAN],
    ],
    False,
    0.0,
)
@given(st.lists(runs, min_size=2, max_size=4), st.booleans(), st.sampled_from([0.0, 0.2]))
def test_decision_interval_and_p_value_never_contradict_each_other(arms, higher, effect):
    samples = {str(i): np.array(row) + 3 * i for i, row in enumerate(arms)}
    verdicts = decide_all(samples, higher_is_better=higher, level=0.9, min_effect=effect)
    for v in verdicts:
        c = v.comparison
        excluded = c.low > effect or c.high < -effect
        assert (v.decision != "undecided") == excluded == (v.p_adjusted <= 0.1 + 1e-9)
        assert c.low <= c.high
        if excluded:
            assert (v.decision == "better") == ((c.low > effect) == higher)
        if c.diverged_a == c.diverged_b == 0 and math.isfinite(c.low):
            assert c.low - 1e-9 <= c.difference <= c.high + 1e-9


def test_diverged_run_is_the_worst_outcome_not_a_missing_one():
    b = np.linspace(0.1, 0.2, 10)
    a = b - 0.05  # lower is better: a wins wherever it survives
    assert decide_all({"a": a, "b": b}, higher_is_better=False)[0].decision == "better"
    lost = a.copy()
    lost[[0, 4]] = NAN, INF
    (v,) = decide_all({"a": lost, "b": b}, higher_is_better=False)
    c = v.comparison
    assert (v.decision, c.method, c.diverged_a, c.diverged_b) == ("undecided", "signed-rank", 2, 0)
    assert c.difference == pytest.approx(-0.05)  # over the eight seeds where both survived
    assert (c.prob_a_better, c.high) == (0.8, INF)
    (all_lost,) = decide_all({"a": np.full(10, NAN), "b": b}, higher_is_better=False)
    assert all_lost.decision == "worse"
    assert math.isnan(all_lost.comparison.difference)
    (both,) = decide_all({"a": np.full(10, NAN), "b": np.full(10, INF)}, higher_is_better=True)
    assert (both.decision, both.comparison.prob_a_better) == ("undecided", 0.5)


def test_infinite_accuracy_is_no_victory():
    a = np.full(8, INF)
    assert decide_all({"a": a, "b": np.ones(8)}, higher_is_better=True)[0].decision == "worse"


def test_arms_without_common_seeds():
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 1, 8), rng.normal(0, 1, 12)
    c = compare(a, b, higher_is_better=True, paired=False)
    assert c.n == 8
    assert c.prob_a_better == pytest.approx(
        scipy.stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    )
    assert c.low > 0
    assert math.isnan(c.correlation)
    with_lost = np.append(a, NAN)
    assert compare(with_lost, b, higher_is_better=True, paired=False).method == "rank-sum"


@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("lost", [0.0, 0.2])
def test_same_arms_are_told_apart_at_most_at_the_nominal_rate(arms, lost):
    rng, repeats = np.random.default_rng(arms), 300
    wrong = covered = 0
    for _ in range(repeats):
        x = rng.standard_t(3, size=(arms, 9)) + rng.normal(size=9)
        x[rng.random(x.shape) < lost] = NAN
        verdicts = decide_all(
            {str(i): row for i, row in enumerate(x)}, higher_is_better=True, level=0.9
        )
        wrong += any(v.decision != "undecided" for v in verdicts)
        first = verdicts[0].comparison
        covered += first.low <= 0 <= first.high
    error = math.sqrt(0.1 * 0.9 / repeats)
    assert wrong / repeats <= 0.1 + 2.5 * error
    assert covered / repeats >= 0.9 - 2.5 * error


def test_nominal_rate_is_used_up_where_the_test_is_fine_enough():
    d = np.random.default_rng(0).normal(size=(1500, 9))
    rejected = np.mean([sign_flip(row).p_value() <= 0.1 for row in d])
    assert abs(rejected - math.floor(0.1 * 2**8) / 2**8) <= 3 * math.sqrt(0.09 / 1500)


@pytest.mark.parametrize(
    ("effect", "alpha"), [(2.0, 0.05), (1.5, 0.05 / 3), (1.0, 0.05), (0.8, 0.05)]
)
def test_promised_number_of_seeds_keeps_its_promise(effect, alpha):
    n, repeats = seeds_for_power(effect, alpha=alpha), 600
    assert n is not None
    rng = np.random.default_rng(n)
    error = math.sqrt(0.8 * 0.2 / repeats)
    found = {
        size: np.mean(
            [sign_flip(rng.normal(effect, 1, size)).p_value() <= alpha for _ in range(repeats)]
        )
        for size in (n, n - 2)
    }
    assert found[n] >= 0.8 - 2.5 * error
    assert found[n - 2] <= 0.8 + 2.5 * error  # nor is it far too large


def test_seeds_needed_respects_the_floor_and_the_cap():
    assert seeds_for_power(math.inf) == 6
    assert seeds_for_power(math.inf, alpha=0.05 / 28) == 11
    assert seeds_for_power(0.0) is None
    assert seeds_for_power(0.05) is None
    assert seeds_for_power(0.05, cap=5_000) == pytest.approx(
        (1.96 + 0.8416) ** 2 / 0.05**2, rel=0.01
    )


def test_seeds_needed_counts_on_from_an_undecided_comparison():
    rng = np.random.default_rng(4)
    b = rng.normal(size=8)
    c = compare(b + rng.normal(0.3, 0.6, 8), b, higher_is_better=True)
    assert c.direction == 0
    assert c.seeds_needed == max(9, seeds_for_power(c.difference / c.sd))
    assert c.further_seeds == c.seeds_needed - 8


@pytest.mark.parametrize("n", [3, 20, 21, 100, 1000])
def test_one_comparison_takes_less_than_50_ms(n):
    a, b = np.random.default_rng(0).normal(size=(2, n))
    compare(a, b, higher_is_better=True)
    times = []
    for _ in range(5):
        start = time.process_time()
        compare(a, b, higher_is_better=True)
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def test_bad_input_is_refused_with_what_to_do():
    good = [1.0, 2.0]
    for arguments, message in [
        (([], []), "no seeds to compare"),
        ((good, [1.0]), "paired=False"),
        ((good, ["x", "y"]), "one number per seed"),
        (([good], [good]), "one-dimensional"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(*arguments, higher_is_better=True)
    for keywords, message in [
        ({"level": 95}, r"did you mean 0\.95"),
        ({"level": 0}, "between 0 and 1"),
        ({"min_effect": -1}, "min_effect must be"),
        ({"min_effect": NAN}, "min_effect must be"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(good, good, higher_is_better=True, **keywords)
    with pytest.raises(InputError, match="at least two arms"):
        decide_all({"a": good}, higher_is_better=True)
    with pytest.raises(InputError, match="same seeds"):
        decide_all({"a": good, "b": [1.0]}, higher_is_better=True)


def test_pairs_come_in_the_order_of_the_arms():
    samples = {name: [1.0, 2.0] for name in "zab"}
    verdicts = decide_all(samples, higher_is_better=True)
    assert [(v.a, v.b) for v in verdicts] == list(itertools.combinations("zab", 2))
