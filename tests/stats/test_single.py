"""How often one seed would have named another winner, against plain enumeration."""

import itertools
import math

import numpy as np
import pytest

from steepest.errors import InputError
from steepest.stats import one_seed


@pytest.mark.parametrize("higher", [True, False])
def test_it_is_what_enumerating_all_choices_of_seeds_gives(higher):
    rng = np.random.default_rng(5)
    values = {
        arm: rng.normal(shift, 1.0, size=5)
        for arm, shift in zip("abc", (0.4, 0.2, 0.0), strict=True)
    }
    claims = one_seed(values, "a", higher_is_better=higher)
    pick = max if higher else min
    common = [pick("abc", key=lambda arm: values[arm][seed]) for seed in range(5)]
    assert claims.named == {arm: common.count(arm) for arm in "abc"}
    assert claims.wrong == pytest.approx(1 - common.count("a") / 5)
    own = [
        pick("abc", key=lambda arm: values[arm][choice["abc".index(arm)]])
        for choice in itertools.product(range(5), repeat=3)
    ]
    assert claims.wrong_unpaired == pytest.approx(1 - own.count("a") / 125)


def test_ties_are_shared_and_diverged_runs_lose():
    claims = one_seed({"a": [1.0, math.nan, 2.0], "b": [1.0, 0.5, 2.0]}, "b", higher_is_better=True)
    assert claims.named == {"a": 1.0, "b": 2.0}
    assert claims.wrong == pytest.approx(1 / 3)
    same = one_seed({"a": [1.0], "b": [1.0]}, "a", higher_is_better=False)
    assert (same.wrong, same.wrong_unpaired) == (0.5, 0.5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="every arm needs a value on every seed"):
        one_seed({"a": [1.0], "b": []}, "a", higher_is_better=True)
    with pytest.raises(InputError, match="'c' is none of the arms a"):
        one_seed({"a": [1.0]}, "c", higher_is_better=True)
