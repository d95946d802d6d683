"""Numbers are written with the digits that they deserve."""

from __future__ import annotations

import math

import pytest

from steepest.numbers import Unit, decimals_for, fixed, p_text, significant, unit_of

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("half_width", "decimals"),
    [(0.05, 2), (0.049, 2), (0.19, 2), (0.354, 2), (0.356, 1), (1.3, 1), (3.6, 0), (120.0, 0),
     (math.inf, 2), (math.nan, 2), (0.0, 2), (1e-12, 8)],
)  # fmt: skip
def test_decimals_follow_the_half_width(half_width: float, decimals: int) -> None:
    assert decimals_for(half_width) == decimals


def test_a_mean_and_its_interval_have_equal_decimals() -> None:
    assert Unit(True).mean(0.98971, 0.98918, 0.99024) == f"98.97{NBSP}% ± 0.05"
    assert Unit(False).mean(0.03456, 0.03156, 0.03756) == "0.0346 ± 0.0030"
    assert Unit(True).mean(0.98971, -math.inf, math.inf) == f"98.97{NBSP}%"
    assert Unit(True).mean(math.nan, math.nan, math.nan) == "–"
    assert Unit(True).mean(0.5, 0.5, 0.5) == f"50.00{NBSP}% ± 0"


def test_differences_of_shares_are_points_and_carry_their_sign() -> None:
    assert Unit(True).difference(0.0012, -0.0003, 0.0027) == "+0.12 points"
    assert Unit(True).difference(-0.0012) == "−0.12 points"
    assert Unit(True).interval(-0.0003, 0.0027) == "−0.03 to +0.27"
    assert Unit(True).interval(-math.inf, math.inf) == "unbounded"


def test_zero_has_no_sign_and_infinity_is_a_sign_of_its_own() -> None:
    assert fixed(-0.0001, 2, sign=True) == "0.00"
    assert fixed(math.inf, 2) == "∞"
    assert significant(-math.inf) == "−∞"


def test_p_values_are_never_written_as_zero() -> None:
    assert p_text(1e-9) == "< 0.001"
    assert p_text(0.0312) == "0.031"


def test_accuracies_out_of_a_hundred_are_not_multiplied_again() -> None:
    assert unit_of("accuracy", [0.97, 0.99]).share
    assert not unit_of("accuracy", [97.0, 99.0]).share
    assert not unit_of("loss", [0.97]).share
    assert not unit_of("accuracy", [math.nan]).share
