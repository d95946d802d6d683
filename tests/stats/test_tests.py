"""The tests against brute force, against SciPy, and against published examples."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from steepest.errors import InputError
from steepest.stats import floor_p, seeds_to_decide_at_all, sign_flip_interval, sign_flip_test
from steepest.stats.tests import rank_sum, sign_flip, signed_rank, swap

# Darwin's maize: heights of 15 pairs, crossed minus self-fertilised, in eighths of an inch.
# Fisher (The Design of Experiments, 1935, §21) counted 863 of 32,768 sign patterns beyond the
# data on one side, those equal to it included.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def brute_force(d):
    d = np.asarray(d)
    patterns = np.array(list(itertools.product([1, -1], repeat=len(d))))
    return np.mean(np.abs(patterns @ d) >= abs(d.sum()) - 1e-9)


def test_fishers_count_for_darwins_maize():
    assert sign_flip_test(DARWIN) == 2 * 863 / 2**15


@pytest.mark.parametrize("n", range(1, 11))
def test_exact_p_value_is_the_share_of_all_sign_patterns(n):
    rng = np.random.default_rng(n)
    for d in (rng.normal(0.5, 1, n), rng.integers(-3, 5, n) * 0.1, rng.standard_t(2, n)):
        assert sign_flip_test(d) == pytest.approx(brute_force(d), abs=1e-12)


@pytest.mark.parametrize("n", [4, 7, 10])
def test_exact_p_value_is_scipys(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    expected = scipy.stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(d) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sampled_p_value_agrees_with_the_exact_one_and_is_never_zero():
    d = np.random.default_rng(3).normal(0.35, 1, 22)
    # meet in the middle: all 2^22 patterns, as sums over two halves
    halves = [
        np.array(list(itertools.product([1, -1], repeat=11))) @ part for part in (d[:11], d[11:])
    ]
    right = np.sort(halves[1])
    above = len(right) - np.searchsorted(right, d.sum() - halves[0] - 1e-12)
    exact = 2 * above.sum() / 2**22
    test = sign_flip(d)
    assert not test.exact
    assert test.p_value() == pytest.approx(exact, rel=0.08)
    assert sign_flip_test(d, seed=1) != sign_flip_test(d)
    assert sign_flip_test(d, seed=1) == sign_flip_test(d, seed=1)
    assert 0 < sign_flip_test(np.full(30, 1.0)) < 1e-4


def test_floor_is_reached_by_differences_of_one_sign():
    for n in range(1, 12):
        assert sign_flip_test(np.arange(1.0, n + 1)) == floor_p(n)


def test_least_number_of_seeds_is_where_the_floor_passes_holms_first_step():
    for level, pairs in itertools.product((0.9, 0.95, 0.99), (1, 3, 28)):
        n = seeds_to_decide_at_all(level, pairs)
        assert 2 / 2**n * pairs <= 1 - level + 1e-12 < 2 / 2 ** (n - 1) * pairs
    with pytest.raises(InputError, match="pairs must be at least 1"):
        seeds_to_decide_at_all(0.95, 0)
    with pytest.raises(InputError, match=r"did you mean 0\.95"):
        seeds_to_decide_at_all(95)


def test_interval_holds_exactly_the_differences_that_are_not_rejected():
    rng = np.random.default_rng(0)
    for n, level in itertools.product((6, 7, 9), (0.8, 0.95)):
        d = rng.normal(1, 1, n)
        low, high = sign_flip_interval(d, level)
        for theta in np.concatenate([rng.uniform(low - 1, high + 1, 40), [low, high]]):
            assert (brute_force(d - theta) > 1 - level + 1e-12) == (low <= theta <= high)


def test_exact_levels_are_reached():
    d = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert sign_flip_interval(d, 0.9375) == (1.0, 5.0)
    assert sign_flip_interval(d, 0.94) == (-math.inf, math.inf)


def test_ties_count_as_ties_in_spite_of_rounding():
    # in hundredths: 3, 3, -6 sums to zero, but not in binary floating point
    a, b = np.array([0.98, 0.97, 0.90, 0.95]), np.array([0.95, 0.94, 0.96, 0.95])
    whole = brute_force(np.round(100 * (a - b)))
    assert sign_flip(a - b, rounding=1e-14).p_value() == whole == 1.0


@pytest.mark.parametrize(("n", "m"), [(3, 4), (5, 5), (6, 3)])
def test_swap_test_is_the_permutation_test_of_two_samples(n, m):
    rng = np.random.default_rng(n * m)
    a, b = rng.normal(1, 1, n), rng.normal(0, 1, m)
    pooled = np.concatenate([a, b])
    gaps = []
    for chosen in itertools.combinations(range(n + m), n):
        mask = np.isin(np.arange(n + m), chosen)
        gaps.append(pooled[mask].mean() - pooled[~mask].mean())
    observed = a.mean() - b.mean()
    above = np.mean(np.array(gaps) >= observed - 1e-12)
    below = np.mean(np.array(gaps) <= observed + 1e-12)
    test = swap(a, b)
    assert test.exact
    assert test.p_value() == pytest.approx(min(1, 2 * above, 2 * below), abs=1e-12)


def test_sampled_swaps_agree_with_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, 30), rng.normal(0, 1, 25)
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y: x.mean() - y.mean(), n_resamples=4_000, rng=0
    )
    test = swap(a, b)
    assert not test.exact
    assert test.p_value() == pytest.approx(expected.pvalue, abs=0.02)


@pytest.mark.parametrize("n", [3, 8, 15])
def test_signed_ranks_are_wilcoxons(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    assert signed_rank(d).p_value() == pytest.approx(
        scipy.stats.wilcoxon(d, method="exact").pvalue, abs=1e-12
    )


@pytest.mark.parametrize(("n", "m"), [(4, 3), (7, 9), (60, 55)])
def test_rank_sum_is_mann_whitneys(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, m)
    method = "exact" if n < 50 else "asymptotic"
    expected = scipy.stats.mannwhitneyu(a, b, method=method).pvalue
    assert rank_sum(a, b).p_value() == pytest.approx(expected, rel=1e-6)


def test_hodges_lehmann_interval_of_a_textbook_example():
    # Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, example 3.1 (Hamilton
    # depression scale): W+ = 5 of n = 9, two-sided P = 2 x 0.0195; interval at 96.1 %
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    test = signed_rank(after - before)
    assert test.p_value() == pytest.approx(2 * 0.0195, abs=1e-4)
    low, high = test.interval(0.04)
    assert (round(low, 3), round(high, 3)) == (-0.786, -0.010)


def test_what_cannot_be_tested_is_refused_with_a_reason():
    for bad in ([], [[1.0, 2.0]], [1.0, math.nan]):
        with pytest.raises(InputError, match="at least one finite difference"):
            sign_flip_test(bad)
