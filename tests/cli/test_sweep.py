"""``steepest sweep``: the answer, the drawing, the file, the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--lr", "1e-4..100", "--rates", 12, "--seeds", 2, "--steps", 12)


def test_the_answer_is_said_drawn_and_written(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "sweep.svg"
    ended = steepest("sweep", f"{task_file}:task", "--arm", "sgd", *SMALL, "--out", picture)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Begin with")
    assert "falls the fastest per decade" in ended.out
    assert "12 rates × 2 seeds" in ended.out
    assert "▲" in ended.out
    assert f"picture: {picture}" in ended.out
    text = picture.read_text(encoding="utf-8")
    assert "suggestion" in text
    assert "learning rate" in text


def test_json_has_every_run_and_the_page_the_command(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "sweep.html"
    ended = steepest("sweep", f"{task_file}:task", "--arm", "adam", *SMALL, "--json", "--out", page)
    body = json.loads(ended.out)
    assert ended.err == ""
    assert len(body["rates"]) == 12
    assert [len(row) for row in body["losses"]] == [2] * 12
    assert body["suggestion"]["low"] <= body["suggestion"]["lr"] <= body["suggestion"]["high"]
    assert body["kind"] == "held"
    assert "--arm adam" in page.read_text(encoding="utf-8")


def test_the_classical_test_is_there_on_request(steepest: Any, task_file: Path) -> None:
    line = ("sweep", f"{task_file}:task", "--arm", "sgd(lr=1e-4..100)", "--classical", "--seeds", 1)
    ended = steepest(*line)
    assert ended.code == 0
    assert "1 run whose rate grows from step to step; as was asked for" in ended.out
    assert "upper bound" in ended.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "adm"], "did you mean 'adam'"),
        (["--arm", "adam", "--lr", "1..0.1"], "is empty"),
        (["--arm", "adam", "--lr", "1e-3"], "written low..high"),
        (["--arm", "adam", "--rates", "2"], "rates must be a whole number >= 5"),
        (["--arm", "adam", "--seeds", "0"], "at least one seed"),
        (["--arm", "adam", "--out", "x.pdf"], "must end in"),
        (["--arm", "adam", "--device", "cdua"], "cdua"),
    ],
)
def test_bad_input_is_one_message_with_exit_code_2(
    steepest: Any, task_file: Path, words: list[str], said: str
) -> None:
    ended = steepest("sweep", f"{task_file}:task", *words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
