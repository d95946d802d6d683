"""``steepest schedules``: the list, the drawing, the file, the JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from steepest import schedules


def test_the_list_has_every_schedule_with_its_arguments(steepest: Any) -> None:
    listed = steepest("schedules")
    assert listed.code == 0
    for name in schedules.names():
        assert name in listed.out
    assert "warmup=0" in listed.out
    assert "pct_start=0.3" in listed.out


def test_json_has_the_rate_of_every_step(steepest: Any) -> None:
    body = json.loads(
        steepest("schedules", "cosine(warmup=0.1)", "--steps", 200, "--lr", 0.5, "--json").out
    )
    (one,) = body["schedules"]
    expected = [
        0.5 * (s / 20 if s < 20 else 0.5 * (1 + math.cos(math.pi * (s - 20) / 180)))
        for s in range(200)
    ]
    assert one["lr"] == pytest.approx(expected)
    assert one["step"] == list(range(200))
    assert one["text"] == "cosine(warmup=0.1)"
    assert one["arguments"] == {"final": 0.0, "warmup": 0.1}


def test_json_of_a_long_run_is_thinned_and_keeps_both_ends(steepest: Any) -> None:
    (one,) = json.loads(steepest("schedules", "linear", "--steps", 50_000, "--json").out)[
        "schedules"
    ]
    assert len(one["step"]) == 1000
    assert (one["step"][0], one["step"][-1]) == (0, 49_999)
    assert one["lr"][-1] == pytest.approx(1 / 50_000)


def test_a_drawing_shows_the_shape_and_the_file_is_named(steepest: Any, tmp_path: Path) -> None:
    picture = tmp_path / "lr.svg"
    ended = steepest("schedules", "linear()", "--steps", 100, "--out", picture)
    assert ended.code == 0
    assert str(picture) in ended.out
    lines = ended.out.splitlines()
    assert lines[0] == "linear()"
    dots = [max(i for i, c in enumerate(line) if c > "\u2800") for line in lines[1:9]]
    assert dots == sorted(dots)  # it falls from left to right
    assert lines[9].split() == ["0", "99"]
    assert "linear()" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cosin"], "did you mean 'cosine'"),
        (["cosine_restarts(period=200)", "--steps", "100"], "longer than"),
        (["cosine", "--steps", "0"], "steps must be a whole number >= 1"),
        (["cosine", "--lr", "-1", "--out", "x.svg"], "lr must be a number > 0"),
        (["cosine", "--out", "x.pdf"], "must end in .html, .svg, .png"),
    ],
)
def test_bad_input_is_one_message_with_exit_code_2(
    steepest: Any, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = steepest("schedules", *words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []
