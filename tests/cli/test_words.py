"""Several arms after one --arms."""

from __future__ import annotations

import pytest

from steepest.cli.words import split_arms, spread


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["t", "--arms", "a()", "b()"], ["t", "--arms", "a()", "--arms", "b()"]),
        (["t", "--arms", "a()", "--arms", "b()"], ["t", "--arms", "a()", "--arms", "b()"]),
        (["--arms", "a()", "--seeds", "3"], ["--arms", "a()", "--seeds", "3"]),
        (["t", "--arms"], ["t", "--arms"]),
        (["t", "--arms", "--seeds", "3"], ["t", "--arms", "--seeds", "3"]),
        (["t", "--seeds", "3"], ["t", "--seeds", "3"]),
    ],
)
def test_every_word_up_to_the_next_option_is_an_arm(line: list[str], expected: list[str]) -> None:
    assert spread(line, "--arms") == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["adam(),sgd()"], ["adam()", "sgd()"]),
        (["adam(lr=1,beta1=0.9)"], ["adam(lr=1,beta1=0.9)"]),
        (["m:C(betas=(0.9,0.99)), sgd(lr={1,2})"], ["m:C(betas=(0.9,0.99))", "sgd(lr={1,2})"]),
        (["adam(), "], ["adam()"]),
    ],
)
def test_only_commas_outside_brackets_separate_arms(texts: list[str], expected: list[str]) -> None:
    assert split_arms(texts) == expected
