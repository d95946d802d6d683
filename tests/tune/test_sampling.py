"""Which settings are proposed: as many as asked for, the same every time, spread as promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from steepest.errors import InputError
from steepest.tune import Choice, Range, Space, grid_levels, propose

TWO = Space({"lr": Range(1e-5, 1e-1), "beta1": Range(0.5, 0.98)}, {"amsgrad": True})
MIXED = Space({"lr": Range(1e-5, 1e-1), "decay": Choice(("l2", "decoupled", "none"))})
SWITCHES = Space({"a": Choice((1, 2, 3)), "b": Choice((True, False))})


@pytest.mark.parametrize(
    ("method", "trials"), [("sobol", 1), ("sobol", 6), ("random", 1), ("random", 6), ("grid", 6)]
)
@pytest.mark.parametrize("space", [TWO, MIXED, SWITCHES], ids=["ranges", "mixed", "choices"])
def test_every_method_gives_exactly_that_many_different_settings_every_time(method, space, trials):
    first = propose(space, method=method, trials=trials, seed=3)
    assert first == propose(space, method=method, trials=trials, seed=3)
    assert len(first) == trials
    assert len({str(setting) for setting in first}) == trials
    for setting in first:
        assert set(setting) == {*space.dimensions, *space.fixed}
        space.position(setting)  # raises unless inside


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_another_seed_gives_other_settings_and_a_longer_search_begins_with_the_shorter(method):
    assert propose(TWO, method=method, trials=8, seed=0) != propose(
        TWO, method=method, trials=8, seed=1
    )
    long = propose(TWO, method="sobol", trials=13, seed=0)
    assert long[:5] == propose(TWO, method="sobol", trials=5, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_sobol_puts_one_of_sixteen_trials_into_each_sixteenth_of_every_dimension(seed):
    # the (0, m, 2)-net property, which survives scrambling; chance does it with 16!/16^16 = 1e-6
    units = np.array([TWO.position(s) for s in propose(TWO, method="sobol", trials=16, seed=seed)])
    for column in units.T:
        # settings are decimals close to their place, so a cell's edge may be crossed by 1/2000
        assert np.abs(np.sort(column) - (np.arange(16) + 0.5) / 16).max() <= 0.5 / 16 + 1 / 2000


def test_sobol_is_more_even_than_chance():
    def discrepancy(method: str, seed: int) -> float:
        trials = propose(TWO, method=method, trials=32, seed=seed)
        return qmc.discrepancy(np.array([TWO.position(s) for s in trials]))

    sobol = [discrepancy("sobol", seed) for seed in range(20)]
    chance = [discrepancy("random", seed) for seed in range(20)]
    assert max(sobol) < np.median(chance)


def test_random_is_uniform_on_the_scale():
    space = Space({"lr": Range(1e-4, 1.0)})
    units = [space.position(s)[0] for s in propose(space, method="random", trials=4000, seed=0)]
    counts, _ = np.histogram(units, bins=4, range=(0, 1))
    assert np.abs(counts - 1000).max() < 4 * math.sqrt(4000 * 0.25 * 0.75)


def test_a_grid_has_the_values_of_geomspace_and_of_the_choices():
    space = Space({"lr": Range(1e-5, 1e2), "nesterov": Choice((True, False))})
    trials = propose(space, method="grid", trials=16, seed=0)
    rates = sorted({s["lr"] for s in trials})
    assert rates == pytest.approx(np.geomspace(1e-5, 1e2, 8), rel=0.01)
    assert len(trials) == 16 == len({(s["lr"], s["nesterov"]) for s in trials})


def test_a_grid_that_falls_short_is_filled_up_with_sobol():
    trials = propose(TWO, method="grid", trials=7, seed=5)
    levels = grid_levels(TWO, 7)
    assert levels == {"lr": 3, "beta1": 2}
    assert trials[6:] == propose(TWO, method="sobol", trials=1, seed=5)
    assert len(trials) == 7


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 4),
    st.lists(st.integers(1, 4), max_size=2),
)
def test_grid_levels_leave_no_room_for_another_value(trials, ranges, choices):
    dimensions = {f"x{i}": Range(0, 1) for i in range(ranges)}
    dimensions |= {f"c{i}": Choice(tuple(range(n))) for i, n in enumerate(choices)}
    space = Space(dimensions)
    if math.prod(choices) > trials:
        with pytest.raises(InputError, match="cannot hold the"):
            grid_levels(space, trials)
        return
    levels = grid_levels(space, trials)
    counts = [levels[f"x{i}"] for i in range(ranges)]
    assert math.prod(levels.values()) <= trials
    assert [levels[f"c{i}"] for i in range(len(choices))] == choices
    for name in [f"x{i}" for i in range(ranges)]:  # no range can have one more
        assert math.prod((levels | {name: levels[name] + 1}).values()) > trials
    assert counts == sorted(counts, reverse=True)  # the first range has the most


def test_a_space_of_choices_is_tried_completely_and_no_further():
    assert SWITCHES.size == 6
    all_six = propose(SWITCHES, method="sobol", trials=6, seed=0)
    assert {(s["a"], s["b"]) for s in all_six} == {(a, b) for a in (1, 2, 3) for b in (True, False)}
    with pytest.raises(InputError, match="only 6 different settings; ask for at most 6"):
        propose(SWITCHES, method="random", trials=7, seed=0)


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (Space({}), {}, "nothing to search: the space has no dimension"),
        (Space({}, {"lr": 0.1}), {}, "only the fixed values lr=0.1"),
        (TWO, {"method": "soboll"}, "did you mean 'sobol'"),
        (TWO, {"trials": 0}, "whole number >= 1, got 0"),
        (TWO, {"trials": 2.0}, "whole number >= 1, got 2.0"),
        (TWO, {"seed": -1}, "seed of a search must be a whole number >= 0"),
        (MIXED, {"method": "grid", "trials": 2}, "cannot hold the 3 combinations"),
    ],
)
def test_what_cannot_be_searched_is_refused(space, arguments, message):
    with pytest.raises(InputError, match=message):
        propose(space, **{"method": "sobol", "trials": 4, "seed": 0, **arguments})
