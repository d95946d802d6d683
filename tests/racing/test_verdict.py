from __future__ import annotations

import json
import math

import numpy as np
import pytest

from steepest.racing.verdict import Sample, Verdict, judge


def runs(arm: str, values: list[float | str], *, start: str = "x") -> list[Sample]:
    """One sample per seed; a text is the status of a run without a value."""
    return [
        Sample(arm, seed, value, None, 3, start, f"o{seed}")
        if isinstance(value, str)
        else Sample(arm, seed, "done", value, 10, start, f"o{seed}")
        for seed, value in enumerate(values)
    ]


def decide(*samples: list[Sample], higher: bool = True, min_effect: float = 0.0) -> Verdict:
    return judge(
        [s for group in samples for s in group],
        metric="test_accuracy" if higher else "val_loss",
        higher_is_better=higher,
        level=0.95,
        min_effect=min_effect,
    )


GOOD = [0.95, 0.96, 0.94, 0.95, 0.97, 0.96]
POOR = [0.90, 0.91, 0.92, 0.89, 0.91, 0.90]


def test_a_clear_winner_is_named_with_the_numbers() -> None:
    verdict = decide(runs("adam", GOOD), runs("sgd", POOR))
    (pair,) = verdict.pairs
    assert pair.decision == "better"
    assert pair.p_adjusted == pytest.approx(3 / 2 * 2 / 2**6)  # the first look has 2/3 of α
    difference = np.mean(GOOD) - np.mean(POOR)
    assert pair.comparison.difference == pytest.approx(difference)
    (sentence,) = verdict.sentences
    assert sentence.startswith("adam is better than sgd in test accuracy: 95.5")
    assert "adjusted p = 0.047" in sentence


def test_the_winner_stands_first_whatever_the_order_and_the_side_that_is_good() -> None:
    assert "adam is better than sgd" in decide(runs("sgd", POOR), runs("adam", GOOD)).text
    verdict = decide(runs("adam", GOOD), runs("sgd", POOR), higher=False)
    assert verdict.pairs[0].decision == "worse"
    assert verdict.sentences[0].startswith("sgd is better than adam in validation loss")


def test_three_seeds_say_that_they_could_not_decide() -> None:
    verdict = decide(runs("adam", GOOD[:3]), runs("sgd", POOR[:3]))
    assert verdict.pairs[0].decision == "undecided"
    assert "cannot be told apart in test accuracy with 3 seeds" in verdict.text
    # 2 / 2**3, times 3/2 for the share of the first look
    assert "With 3 seeds even a perfect record gives an adjusted p of 0.38" in verdict.text
    needed = verdict.pairs[0].comparison.seeds_needed
    assert needed is not None
    # the second look has 2/9 of 0.05, which 8 seeds can reach
    assert f"about {max(needed, 8) - 3} more seeds would decide" in verdict.text


def test_enough_seeds_without_a_difference_say_what_more_would_cost() -> None:
    noise = [0.01, -0.008, 0.004, -0.012, 0.009, 0.001]
    close = [x + d for x, d in zip(GOOD, noise, strict=True)]
    verdict = decide(runs("a", GOOD), runs("b", close))
    (sentence,) = verdict.sentences
    needed = verdict.pairs[0].comparison.seeds_needed
    if needed is None:
        assert "No reasonable number of seeds would decide." in sentence
    else:
        assert f"If the difference is what it seems, about {needed - 6} more seeds" in sentence


def test_a_difference_too_small_to_matter_is_said_to_be_so() -> None:
    noise = [0.001, -0.0008, 0.0004, -0.0012, 0.0009, 0.0001]
    close = [x + d for x, d in zip(GOOD, noise, strict=True)]
    verdict = decide(runs("a", GOOD), runs("b", close), min_effect=0.02)
    assert verdict.pairs[0].decision == "undecided"
    assert "Any difference is below 2.00 points, the smallest that matters here." in verdict.text


def test_accuracies_in_per_cent_already_are_not_multiplied_again() -> None:
    percent = [runs(a, [100 * v for v in x]) for a, x in (("adam", GOOD), ("sgd", POOR))]
    assert "95.5 against 90.5, difference +5.0 (" in decide(*percent).text
    assert (
        "95.5\N{NO-BREAK SPACE}% against 90.5\N{NO-BREAK SPACE}%, difference +5.0 points ("
        in decide(runs("adam", GOOD), runs("sgd", POOR)).text
    )


def test_identical_arms_are_called_probably_the_same() -> None:
    verdict = decide(runs("a", GOOD), runs("b", GOOD))
    assert verdict.pairs[0].decision == "undecided"
    assert "exactly the same test accuracy on every seed" in verdict.text
    assert verdict.single_seed[0].ties == 6


def test_an_arm_that_diverges_on_every_seed_loses_against_one_that_never_does() -> None:
    verdict = decide(runs("good", GOOD), runs("wild", ["diverged"] * 6))
    assert verdict.pairs[0].decision == "better"
    assert "good is better than wild" in verdict.text
    assert "against diverged on every seed" in verdict.text


def test_a_run_that_diverges_counts_as_worse_than_any_value() -> None:
    half = ["diverged", 0.99, 0.99, 0.99, 0.99, 0.99]
    verdict = decide(runs("steady", GOOD), runs("half", half))
    assert verdict.single_seed[0].a_ahead == 1
    assert verdict.pairs[0].comparison.diverged_b == 1
    assert "half diverged with seed 0; that counts as worse than any value" in verdict.text


def test_a_metric_that_is_no_number_counts_as_diverged() -> None:
    verdict = decide(runs("a", GOOD), runs("b", [*POOR[:5], math.nan]))
    assert verdict.pairs[0].comparison.diverged_b == 1


def test_failed_and_missing_runs_are_left_out_seed_by_seed_and_named() -> None:
    verdict = decide(
        runs("a", GOOD), runs("b", [*POOR[:5], "pending"]), runs("broken", ["failed"] * 6)
    )
    assert verdict.seeds == (0, 1, 2, 3, 4)
    assert [(p.a, p.b) for p in verdict.pairs] == [("a", "b")]
    assert "The race is not finished (17 of 18 runs)" in verdict.text
    assert "broken failed with seeds 0, 1, 2, 3, 4, 5" in verdict.text


def test_unequal_starts_make_the_verdict_invalid_and_are_said_first() -> None:
    verdict = decide(runs("a", GOOD), runs("b", POOR, start="y"))
    assert not verdict.valid
    assert verdict.sentences[0].startswith("This comparison is not fair: with seed 0 the arms")


def test_orders_are_compared_between_runs_of_equal_length_only() -> None:
    short = [Sample("b", 0, "diverged", None, 3, "x", "other")]
    assert decide(runs("a", [0.5]), short).valid
    long = [Sample("b", 0, "done", 0.4, 10, "x", "other")]
    assert not decide(runs("a", [0.5]), long).valid


def test_holm_is_over_all_pairs() -> None:
    verdict = decide(runs("a", GOOD), runs("b", POOR), runs("c", POOR[::-1]))
    assert len(verdict.pairs) == 3
    assert verdict.pairs[0].p_adjusted == pytest.approx(3 / 2 * 3 * 2 / 2**6)
    assert verdict.pairs[0].decision == "undecided"


def test_one_arm_alone_is_described_and_not_compared() -> None:
    verdict = decide(runs("a", GOOD))
    assert verdict.pairs == ()
    assert "there is no other arm to compare it with" in verdict.text


def test_nothing_finished_is_no_verdict() -> None:
    verdict = decide(runs("a", ["running"]), runs("b", ["pending"]))
    assert verdict.pairs == ()
    assert verdict.sentences == ("The race is not finished (0 of 2 runs): this is how it stands.",)


def test_a_verdict_survives_json() -> None:
    verdict = decide(runs("a", GOOD[:3]), runs("b", [*POOR[:2], "diverged"]), runs("c", POOR[:3]))
    again = Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))
    assert str(again.to_dict()) == str(verdict.to_dict())
    assert again.text == verdict.text
    assert again.pairs[0].comparison.n == 3


def test_what_one_seed_would_have_claimed_is_said_where_there_are_two_arms() -> None:
    values = [0.95, 0.96, 0.94, 0.95, 0.97, 0.96]
    other = [0.94, 0.97, 0.94, 0.93, 0.96, 0.95]
    text = decide(runs("a", values), runs("b", other)).text
    assert (
        "A comparison on one seed would have named a on 4 seeds, b on 1 and neither on 1." in text
    )
    three = decide(runs("a", values), runs("b", other), runs("c", values)).text
    assert "on one seed would" not in three


def test_numbers_stand_in_the_order_in_which_the_sentence_names_the_arms() -> None:
    low = [0.60, 0.61, 0.62, 0.63, 0.64, 0.65]
    high = [0.90, 0.92, 0.91, 0.94, 0.93, 0.95]
    text = decide(runs("bad", low), runs("good", high)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("good is better than bad in test accuracy: 92.5 % against 62.5 %, ")
    assert "difference +30.0 points (95 % interval +29" in text
