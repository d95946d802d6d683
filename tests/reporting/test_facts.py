"""What a report says in words, for races in every state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steepest.racing.result import Result
from steepest.reporting.facts import flags, headline, sentences, target_words, to_target

Make = Callable[..., Result]
BOTH = [(arm, seed) for arm in range(2) for seed in range(6)]


def said(result: Result, kind: str) -> str:
    return " ".join(flag.text for flag in flags(result) if flag.kind == kind)


def test_a_clear_winner_is_named(hand_written_race: Make) -> None:
    result = hand_written_race(gap=0.01)
    assert headline(result) == "adadelta(lr=0.5) is better than adam(lr=0.001) in test accuracy."
    assert flags(result) == []
    assert len(sentences(result)) == 1


def test_the_winner_is_named_whichever_arm_comes_first(hand_written_race: Make) -> None:
    result = hand_written_race(gap=-0.01)
    assert headline(result) == "adam(lr=0.001) is better than adadelta(lr=0.5) in test accuracy."


def test_no_difference_is_no_verdict(hand_written_race: Make) -> None:
    result = hand_written_race(gap=0.0)
    assert headline(result) == (
        "adadelta(lr=0.5) and adam(lr=0.001) cannot be told apart with 6 seeds."
    )


def test_many_arms_have_one_headline(hand_written_race: Make) -> None:
    winner = hand_written_race(arms=("a", "b", "c"), seeds=8, gap=0.02)
    assert headline(winner) == "a is better than every other arm in test accuracy."
    none = hand_written_race(arms=("a", "b", "c"), seeds=8, gap=0.0)
    assert headline(none) == "None of the 3 arms can be told from another with 8 seeds."


def test_too_few_seeds_are_said_with_the_number_that_would_do(hand_written_race: Make) -> None:
    result = hand_written_race(seeds=3, gap=0.01)
    assert "At least 6 seeds" in said(result, "warn")
    assert "too few" not in said(hand_written_race(seeds=6), "warn")


def test_an_interrupted_race_is_reported_as_such(hand_written_race: Make) -> None:
    result = hand_written_race(pending=[(0, 5), (1, 4), (1, 5)])
    assert "3 of 12 runs are not finished" in said(result, "stop")
    assert f"steepest resume {result.folder}" in said(result, "stop")


def test_a_race_before_its_first_run_has_a_headline(hand_written_race: Make) -> None:
    result = hand_written_race(pending=BOTH, timings=False)
    assert headline(result) == "No run is finished yet."


def test_divergence_is_counted_per_arm(hand_written_race: Make) -> None:
    result = hand_written_race(diverged=[(1, 0), (1, 3)])
    assert "adam(lr=0.001) diverged in 2 of 6 seeds, at step 200." in said(result, "warn")
    assert "adadelta" not in said(result, "warn")
    lost = hand_written_race(diverged=BOTH)
    assert headline(lost) == "No run came to a good end."
    assert sentences(lost) == []


def test_failed_runs_are_named_with_their_message(hand_written_race: Make) -> None:
    result = hand_written_race(failed=[(0, 2)])
    assert "adadelta(lr=0.5), seed 2 failed after 200 steps: RuntimeError" in said(result, "warn")


def test_an_unfair_comparison_has_no_verdict(hand_written_race: Make) -> None:
    result = hand_written_race(unequal=True, gap=0.01)
    assert headline(result) == "This comparison is not fair, so there is no verdict."
    assert sentences(result) == []
    assert "With seed 0 the arms started from different weights" in said(result, "stop")


def test_one_arm_is_reported_without_an_opponent(hand_written_race: Make) -> None:
    result = hand_written_race(arms=("adam(lr=0.001)",), seeds=1)
    assert headline(result).startswith("adam(lr=0.001) reaches a test accuracy of 9")
    assert "one arm" in said(result, "note")


@pytest.mark.parametrize(
    ("splits", "words"), [(("val",), "no test data"), (("test",), "no validation data")]
)
def test_missing_data_is_noted(
    hand_written_race: Make, splits: tuple[str, ...], words: str
) -> None:
    assert words in said(hand_written_race(splits=splits), "note")


def test_misses_of_the_target_are_infinite(hand_written_race: Make) -> None:
    result = hand_written_race(target=0.9999)
    assert target_words(result) == "validation accuracy ≥ 99.99 %"
    assert {run["steps"] for run in to_target(result, "adam(lr=0.001)")} == {float("inf")}


def test_runs_that_never_started_have_not_missed_the_target(hand_written_race: Make) -> None:
    result = hand_written_race(pending=[(0, 5)])
    assert len(to_target(result, "adadelta(lr=0.5)")) == 5
