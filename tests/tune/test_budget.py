"""Budgets and the seeds of the two stages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.stats import seeds_to_decide_at_all
from steepest.tune import BUDGETS, FIRST_TUNING_SEED, Budget, resolve, tuning_seeds


def test_named_budgets_and_what_replaces_their_numbers():
    assert BUDGETS["quick"] == Budget(8, 1, 6)
    assert BUDGETS["standard"] == Budget(16, 1, 10)
    assert BUDGETS["thorough"] == Budget(32, 3, 20)
    assert resolve() == BUDGETS["standard"]
    assert resolve("quick", trials=5, tuning_seeds=2, seeds=7) == Budget(5, 2, 7)
    assert resolve(Budget(1, 1, 1), seeds=2) == Budget(1, 1, 2)
    assert BUDGETS["thorough"].runs == 32 * 3 + 20


def test_the_seeds_of_budgets_can_decide_as_their_comment_says():
    assert BUDGETS["quick"].seeds >= seeds_to_decide_at_all(0.95, 1)
    assert BUDGETS["standard"].seeds >= seeds_to_decide_at_all(0.95, 7 * 6 // 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "standart"}, "did you mean 'standard'"),
        ({"budget": 7}, "unknown budget '7'"),
        ({"trials": 0}, "the number of trials must be a whole number >= 1, got 0"),
        ({"tuning_seeds": -1}, "the number of tuning seeds must"),
        ({"seeds": 1.5}, "the number of seeds must"),
        ({"seeds": True}, "the number of seeds must"),
    ],
)
def test_what_is_no_budget_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        resolve(**arguments)


@given(st.integers(1, 50), st.lists(st.integers(0, 10**9 - 1), max_size=20))
def test_tuning_seeds_are_no_final_seeds(count, finals):
    seeds = tuning_seeds(count, finals=finals)
    assert len(set(seeds)) == count
    assert not set(seeds) & set(finals)
    assert seeds == tuning_seeds(count + 5, finals=finals)[:count]


def test_a_final_seed_among_the_tuning_seeds_is_refused():
    assert tuning_seeds(2, finals=[FIRST_TUNING_SEED + 2])
    with pytest.raises(InputError, match="choose seeds below 1000000000"):
        tuning_seeds(3, finals=[FIRST_TUNING_SEED + 2])
    with pytest.raises(InputError, match="number of tuning seeds"):
        tuning_seeds(0, finals=[])
