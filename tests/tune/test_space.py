"""Ranges on their scales, positions, edges and widening: against the formulas, by properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.racing.grammar import read
from steepest.rules import DOMAINS
from steepest.tune import EDGE_SHARE, Choice, Edge, Range, Space, customary_scale

CLOSE = 1 / 2000  # what Space.at promises


def logs(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log10(low), math.log10(high)).map(lambda e: 10.0**e)


log_ranges = st.tuples(logs(1e-8, 1e2), logs(1.01, 1e6)).map(lambda t: Range(t[0], t[0] * t[1]))
one_minus = st.tuples(logs(1e-6, 0.5), logs(1.01, 2)).map(
    lambda t: Range(1 - t[0] * t[1], 1 - t[0], "one_minus_log")
)
linear = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3)).map(
    lambda t: Range(t[0], t[0] + t[1], "linear")
)
choices = st.lists(st.text("abc", max_size=3), min_size=1, max_size=5, unique=True).map(
    lambda values: Choice(tuple(values))
)
spaces = st.dictionaries(
    st.sampled_from(["lr", "eps", "weight_decay"]), log_ranges, min_size=1
).flatmap(
    lambda logs_: st.fixed_dictionaries(
        {}, optional={"beta1": one_minus, "x": linear, "mode": choices}
    ).map(lambda others: Space({**logs_, **others}, {"amsgrad": True}))
)


@given(spaces, st.data())
def test_a_position_is_that_of_its_setting_within_the_promised_closeness(space, data):
    unit = np.array(data.draw(st.lists(st.floats(0, 1), min_size=space.dim, max_size=space.dim)))
    setting = space.at(unit)
    assert list(setting) == [*space.dimensions, "amsgrad"]
    back = space.position(setting)
    for (name, d), u, b in zip(space.dimensions.items(), unit, back, strict=True):
        if isinstance(d, Choice):
            assert abs(b - u) <= 0.5 / len(d.values) + 1e-12
        else:
            assert d.low <= setting[name] <= d.high
            assert abs(b - u) <= CLOSE + 1e-9
    again = space.position(space.at(np.clip(back, 0, 1)))
    assert np.abs(again - back).max() <= CLOSE + 1e-9  # choices exactly


@given(st.one_of(log_ranges, one_minus, linear))
def test_the_ends_of_a_range_are_exact(dimension):
    space = Space({"lr": dimension})
    assert space.at([0.0]) == {"lr": dimension.low}
    assert space.at([1.0]) == {"lr": dimension.high}


def test_scales_spread_what_they_say():
    space = Space(
        {
            "lr": Range(1e-5, 1e-1),
            "beta1": Range(0.9, 0.9999),
            "d": Range(1.0, 3.0),
            "weight_decay": Range(0.0, 0.4),
        }
    )
    got = space.at([0.25, 1 / 3, 0.25, 0.25])
    assert got == pytest.approx({"lr": 1e-4, "beta1": 0.99, "d": 1.5, "weight_decay": 0.1})


@pytest.mark.parametrize(
    ("name", "low", "scale"),
    [
        ("lr", 1e-4, "log"),
        ("learning_rate", 1e-4, "log"),
        ("weight_decay", 1e-4, "log"),
        ("weight_decay", 0.0, "linear"),
        ("epsilon", 1e-8, "log"),
        ("betas[0]", 0.8, "one_minus_log"),
        ("momentum", 0.0, "one_minus_log"),
        ("dampening", 0.1, "linear"),
        ("what_is_this", 0.1, "linear"),
    ],
)
def test_customary_scales(name, low, scale):
    assert customary_scale(name, low) == scale


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_hyperparameter_of_the_rules_can_be_searched_on_its_customary_scale(name):
    domain = DOMAINS[name]
    low = max(domain.low, 0.0) + 0.25 if math.isfinite(domain.low) else 0.25
    if domain.high == 0.0:
        low = -0.9
    high = min(domain.high, low + 0.5) - 0.01 if math.isfinite(domain.high) else low + 0.5
    space = Space({name: Range(low, high)})
    assert low < space.at([0.5])[name] < high


def test_fixed_values_and_tuples_are_part_of_every_setting():
    space = Space.of({"betas": (0.9, Range(0.9, 0.999)), "lr": 0.1, "name": "x"})
    assert list(space.dimensions) == ["betas[1]"]
    setting = space.at([0.0])
    assert setting == {"betas": (0.9, 0.9), "lr": 0.1, "name": "x"}
    assert space.position(setting) == pytest.approx([0.0])
    assert str(space) == "betas=(0.9, 0.9..0.999), lr=0.1, name=x"


@given(spaces)
def test_the_text_of_a_space_reads_back_as_the_space(space):
    arguments = read(f"a({space})").arguments
    assert arguments is not None
    assert Space.of(arguments) == space


@given(spaces)
def test_a_space_survives_json(space):
    assert Space.from_spec(json.loads(json.dumps(space.spec(), allow_nan=False))) == space


def test_infinity_and_tuples_survive_json():
    space = Space({"d_coef": Range(0.5, 2)}, {"growth_rate": math.inf, "betas": (0.9, 0.99)})
    assert Space.from_spec(json.loads(json.dumps(space.spec(), allow_nan=False))) == space


# ---- edges and widening ----


@given(st.floats(0, 1))
def test_an_edge_is_the_outermost_tenth(unit):
    space = Space({"lr": Range(1e-6, 1e-1)})
    setting = space.at([unit])
    place = space.position(setting)[0]
    sides = [edge.side for edge in space.edges(setting)]
    assert sides == (["low"] if place <= EDGE_SHARE else ["high"] if place >= 0.9 else [])


def test_an_end_of_the_domain_and_a_choice_are_no_edges():
    space = Space(
        {
            "weight_decay": Range(0, 0.1),
            "beta2_decay": Range(-0.8, 0.0),
            "momentum": Range(0.0, 0.9),
            "nesterov": Choice((True, False)),
        }
    )
    at_ends = {"weight_decay": 0.0, "beta2_decay": 0.0, "momentum": 0.0, "nesterov": True}
    assert space.edges(at_ends) == ()
    others = {"weight_decay": 0.1, "beta2_decay": -0.8, "momentum": 0.9, "nesterov": False}
    assert [(e.name, e.side) for e in space.edges(others)] == [
        ("weight_decay", "high"),
        ("beta2_decay", "low"),
        ("momentum", "high"),
    ]


@given(spaces, st.sampled_from(["low", "high"]), st.floats(0.05, 2))
def test_widening_moves_only_flagged_ends_by_the_share_of_the_width(space, side, factor):
    ranges = {n: d for n, d in space.dimensions.items() if isinstance(d, Range)}
    edges = [Edge(name, side, 0.0, 0.0) for name in ranges]
    wider = space.widened(factor, edges)
    assert space.widened(factor, []) == space
    for name, before in ranges.items():
        after = wider.dimensions[name]
        assert (after.high == before.high) if side == "low" else (after.low == before.low)
        assert (after.low < before.low) if side == "low" else (after.high > before.high)
        assert after.scale == before.scale
        inner = Space({name: after}).position({name: getattr(before, side)})[0]
        share = inner if side == "low" else 1 - inner
        # the old width is 1 / (1 + factor) of the new one, unless the domain ended before
        assert np.all(share <= factor / (1 + factor) + 2e-3)
        if name in ("lr", "eps", "weight_decay"):  # nothing stops a logarithm
            assert np.all(share >= factor / (1 + factor) - 2e-3)


@pytest.mark.parametrize(
    ("name", "rule", "dimension", "side", "end"),
    [
        ("beta1", "adam", Range(0.1, 0.9), "low", 0.0),  # closed: reached
        ("eta_minus", "rprop", Range(0.2, 0.8), "high", 0.9),  # open: half of the way
        ("d", "adafactor", Range(1.5, 3.0), "low", 1.0),
        ("beta2_decay", "adafactor", Range(-0.8, -0.1), "high", 0.0),
    ],
)
def test_widening_stops_at_the_domain(name, rule, dimension, side, end):
    space = Space({name: dimension}, rule=rule)
    wider = space.widened(5.0, [Edge(name, side, 0.0, 0.0)])
    assert getattr(wider.dimensions[name], side) == pytest.approx(end)


def test_widening_a_coefficient_never_reaches_one():
    space = Space({"beta1": Range(0.9, 0.99)}, rule="adam")
    for _ in range(60):
        space = space.widened(2.0, [Edge("beta1", "high", 0.0, 0.0)])
    assert space.dimensions["beta1"].high < 1


def test_both_ends_can_be_widened_at_once():
    space = Space({"lr": Range(1e-3, 1e-1)})
    edges = [Edge("lr", "low", 1e-3, 1e-3), Edge("lr", "high", 0.1, 0.1)]
    assert str(space.widened(0.5, edges)) == "lr=0.0001..1.0"


# ---- what is refused ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(2, 1), "is empty"),
        (lambda: Range(1, 1), "is a single value; write 1.0"),
        (lambda: Range(math.nan, 1), "must be finite"),
        (lambda: Range(0, math.inf), "must be finite"),
        (lambda: Range("a", 1), "numbers, got 'a'"),
        (lambda: Range(0, 1, "log"), "begins above 0"),
        (lambda: Range(0, 1, "one_minus_log"), "ends below 1"),
        (lambda: Range(0, 1, "cubic"), "log, linear, one_minus_log"),
        (lambda: Choice(()), "at least one value"),
        (lambda: Choice((1, 1)), "1 twice"),
        (lambda: Choice((Range(1, 2),)), "among plain values"),
        (
            lambda: Space({"lr": Range(-1, 1)}),
            "lr: the range -1.0..1.0 cannot be searched",
        ),
        (lambda: Space({"momentum": Range(0.5, 1)}), "momentum: .* ends below 1"),
        (lambda: Space({"lr": Range(-1, 1, "linear")}, rule="adam"), "adam: lr must be >= 0"),
        (lambda: Space({"eta_plus": Range(0.5, 2)}, rule="rprop"), "eta_plus must be > 1"),
        (lambda: Space({"lr": Choice((0.1, -0.1))}, rule="adam"), "adam: lr must be >= 0"),
        (
            lambda: Space({"lr": Range(0.1, 1)}, {"beta1": 1.5}, "adam"),
            "beta1 must be in",
        ),
        (lambda: Space({"lrr": Range(0.1, 1)}, rule="adam"), "did you mean 'lr'"),
        (lambda: Space({"lr": Range(0.1, 1)}, {"lr": 1}), "both searched and fixed"),
        (lambda: Space({"lr": 1.0}), "must be a Range or a Choice"),
        (lambda: Space({"ns_steps": Range(3, 7)}, rule="muon"), "write the choice"),
        (lambda: Space({"decay": Range(3, 7)}, rule="adam"), "must be one of"),
        (lambda: Space({"lr": Range(0.1, 1)}).at([0.1, 0.2]), "expected 1 numbers"),
        (lambda: Space({"lr": Range(0.1, 1)}).at([1.1]), "from 0 to 1"),
        (lambda: Space({"lr": Range(0.1, 1)}).at([math.nan]), "from 0 to 1"),
        (lambda: Space({"lr": Range(0.1, 1)}).position({"lr": 2.0}), "not in 0.1..1.0"),
        (lambda: Space({"lr": Range(0.1, 1)}).position({"lr": "x"}), "not in"),
        (lambda: Space({"lr": Range(0.1, 1)}).position({}), "no lr"),
        (lambda: Space({"x": Choice((1, 2))}).position({"x": 3}), "not in {1, 2}"),
        (lambda: Space({"lr": Range(0.1, 1)}).widened(0, []), "must be > 0"),
        (lambda: Space({}).widened(1, [Edge("lr", "low", 1, 1)]), "lr is no range"),
        (lambda: Space({}, {"f": print}).spec(), "cannot be kept in a ledger"),
    ],
)
def test_what_cannot_be_a_space_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@given(st.floats(), st.floats(), st.sampled_from(["log", "linear", "one_minus_log", None]))
def test_any_two_numbers_make_a_range_or_a_clear_error(low, high, scale):
    try:
        made = Range(low, high, scale)
    except InputError:
        assume(False)
    assert made.low < made.high
