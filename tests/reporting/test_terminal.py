"""The result in a terminal and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from steepest.racing.result import Result
from steepest.reporting import print_result, result_json

Make = Callable[..., Result]


def printed(result: Result, width: int = 120, *, terminal: bool = False) -> str:
    file = io.StringIO()
    color = "truecolor" if terminal else None
    print_result(
        result, Console(file=file, width=width, force_terminal=terminal, color_system=color)
    )
    return file.getvalue()


def test_the_verdict_comes_first(hand_written_race: Make) -> None:
    text = printed(hand_written_race(gap=0.01))
    assert text.startswith("adadelta(lr=0.5) is better than adam(lr=0.001) in test accuracy.\n")
    for words in ("▲ A better", "6 of 6", "Optimizer step", "± "):
        assert words in text


def test_there_are_no_colour_codes_where_there_is_no_terminal(hand_written_race: Make) -> None:
    result = hand_written_race()
    assert "\x1b" not in printed(result)
    assert "\x1b" in printed(result, terminal=True)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_decision_is_cut(
    hand_written_race: Make, width: int
) -> None:
    arms = (
        "아다델타(학습률=0.5, 감쇠=0.9)",
        "adam(lr=0.001, beta1=0.9) + cosine(warmup=0.05)",
        "sgd()",
    )
    text = printed(hand_written_race(arms=arms, gap=0.01), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.count("undecided") + text.count("A better") >= 3
    assert "…" not in text


def test_wide_letters_keep_the_columns_straight(hand_written_race: Make) -> None:
    text = printed(hand_written_race(arms=("아다델타", "adam")))
    rows = [line for line in text.splitlines() if line.startswith((" 1 ", " 2 "))]
    assert len(rows) == 2
    assert len({cell_len(row.rstrip()) for row in rows}) == 1


def test_markup_in_labels_is_printed_as_it_stands(hand_written_race: Make) -> None:
    assert "[red]x[/red]" in printed(hand_written_race(arms=("[red]x[/red]", "b")))


def test_many_pairs_are_cut_to_the_decided_ones(hand_written_race: Make) -> None:
    text = printed(hand_written_race(arms=tuple("abcdefgh"), seeds=12, gap=0.01, steps=50), 160)
    assert "15 decided pairs of 28" in text


@pytest.mark.parametrize(
    "options",
    [{}, {"seeds": 1}, {"arms": ("a",)}, {"diverged": [(0, 0)]}, {"target": None},
     {"pending": [(a, s) for a in range(2) for s in range(6)], "timings": False},
     {"target": 0.9999}, {"arms": ("a",), "seeds": 1, "splits": ()}],
)  # fmt: skip
def test_every_state_prints_and_is_strict_json(
    hand_written_race: Make, options: dict[str, object]
) -> None:
    result = hand_written_race(**options)
    assert printed(result)
    values = result_json(result)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_json_carries_the_numbers_unrounded(hand_written_race: Make) -> None:
    result = hand_written_race(target=0.9999)
    values = result_json(result)
    assert values["ranking"][0]["mean"] == result.ranking[0].mean
    assert values["verdict"]["pairs"][0]["comparison"]["p_value"] == (
        result.verdict.pairs[0].comparison.p_value
    )
    assert len(values["runs"]) == 12
    assert values["runs"][0]["metrics"] == dict(result.runs[0].metrics)
    assert values["targets"]["adam(lr=0.001)"][0] == {
        "seed": 0, "steps": None, "seconds": None, "reached": False,
    }  # fmt: skip
