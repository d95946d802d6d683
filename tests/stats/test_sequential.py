"""Looking again keeps the error rate, and keeps what was decided."""

import math

import numpy as np
import pytest

from steepest.errors import InputError
from steepest.stats import compare, decide_all, decide_looks, look_level


def test_looks_never_spend_more_than_there_is():
    for level in (0.9, 0.95, 0.99):
        spent = np.cumsum([1 - look_level(level, look) for look in range(1, 40)])
        assert spent[0] == pytest.approx((1 - level) * 2 / 3)
        assert spent[-1] == pytest.approx(1 - level)
        assert (spent <= (1 - level) * (1 + 1e-9)).all()


def test_one_look_is_decide_all_at_its_level():
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    (looked,) = decide_looks({"a": a, "b": b}, [9], higher_is_better=True)
    (once,) = decide_all({"a": a, "b": b}, higher_is_better=True, level=look_level(0.95, 1))
    assert (looked.comparison.low, looked.comparison.high) == (
        once.comparison.low,
        once.comparison.high,
    )
    assert looked.p_adjusted == pytest.approx(min(1, once.p_adjusted * 1.5))
    assert looked.decision == once.decision


def test_two_arms_can_be_decided_from_six_seeds_at_the_first_look():
    a = np.arange(6.0)
    assert decide_looks({"a": a + 1, "b": a}, [6], higher_is_better=True)[0].decision == "better"


def test_same_arms_under_many_looks_are_told_apart_at_most_at_the_nominal_rate():
    rng, looks, repeats = np.random.default_rng(0), [6, 8, 10, 12], 300
    wrong = naive = 0
    for _ in range(repeats):
        a, b = rng.standard_t(3, size=(2, looks[-1]))
        samples = {"a": a, "b": b}
        (v,) = decide_looks(samples, looks, higher_is_better=True, level=0.9)
        wrong += v.decision != "undecided"
        assert (v.decision != "undecided") == (v.p_adjusted <= 0.1 + 1e-9)
        naive += any(compare(a[:n], b[:n], higher_is_better=True).p_value <= 0.1 for n in looks)
    assert wrong / repeats <= 0.1 + 2.5 * math.sqrt(0.09 / repeats)
    assert naive / repeats > 0.13  # what the rule is there to prevent


def test_what_was_decided_stays_decided():
    rng = np.random.default_rng(1)
    b = rng.normal(size=14)
    gain = np.concatenate([rng.normal(1, 0.1, 8), rng.normal(0.2, 1.5, 6)])
    first = decide_looks({"a": b[:8] + gain[:8], "b": b[:8]}, [8], higher_is_better=True)[0]
    both = decide_looks({"a": b + gain, "b": b}, [8, 14], higher_is_better=True)[0]
    late = decide_all({"a": b + gain, "b": b}, higher_is_better=True, level=look_level(0.95, 2))[0]
    assert (first.decision, both.decision, late.decision) == ("better", "better", "undecided")
    assert both.comparison.low == max(first.comparison.low, late.comparison.low) > 0


def test_looks_that_contradict_each_other_claim_nothing():
    b = np.zeros(20)
    a = np.concatenate([np.full(8, 1.0), np.full(12, -9.0)]) + np.linspace(0, 0.01, 20)
    (v,) = decide_looks({"a": a, "b": b}, [8, 20], higher_is_better=True)
    assert v.decision == "undecided"
    assert v.comparison.low < 0 < v.comparison.high


def test_seeds_needed_is_for_the_next_and_stricter_look():
    rng = np.random.default_rng(4)
    b = rng.normal(size=8)
    samples = {"a": b + rng.normal(0.3, 0.6, 8), "b": b}
    (now,) = decide_all(samples, higher_is_better=True)
    (looked,) = decide_looks(samples, [8], higher_is_better=True)
    assert looked.comparison.seeds_needed > now.comparison.seeds_needed


def test_looks_that_cannot_be_are_refused():
    samples = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 4.0]}
    for looks in ([], [2], [3, 3], [3, 2], [0, 3], [2, 4]):
        with pytest.raises(InputError, match="looks must be rising"):
            decide_looks(samples, looks, higher_is_better=True)
    with pytest.raises(InputError, match="counted from 1"):
        look_level(0.95, 0)
