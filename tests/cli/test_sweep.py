"""``steepest sweep``: the answer, the drawing, the files, the JSON, and going on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from steepest.sweeping import sweep as sweeping

SMALL = ("--lr", "1e-4..100", "--rates", 12, "--seeds", 2, "--steps", 12)


@pytest.fixture
def sweep(steepest: Any, task_file: Path, tmp_path: Path) -> Any:
    """The command, on a small task and into a folder."""

    def run(*words: object) -> Any:
        return steepest("sweep", f"{task_file}:task", "--out", tmp_path / "s", *words)

    return run


def test_the_answer_is_said_drawn_and_written(sweep: Any, tmp_path: Path) -> None:
    picture = tmp_path / "sweep.svg"
    ended = sweep("--arm", "sgd", *SMALL, "--picture", picture)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Begin with")
    assert "falls the fastest per decade" in ended.out
    assert "12 rates × 2 seeds" in ended.out
    assert "▲" in ended.out
    assert f"picture: {picture}" in ended.out
    assert ended.out.splitlines()[-1] == f"report: {tmp_path / 's' / 'report.html'}"
    text = picture.read_text(encoding="utf-8")
    assert "suggestion" in text
    assert "learning rate" in text


def test_json_has_every_run_and_the_page_the_command(sweep: Any, tmp_path: Path) -> None:
    ended = sweep("--arm", "adam", *SMALL, "--json")
    body = json.loads(ended.out)
    assert ended.err == ""
    assert len(body["rates"]) == 12
    assert [len(row) for row in body["losses"]] == [2] * 12
    assert body["suggestion"]["low"] <= body["suggestion"]["lr"] <= body["suggestion"]["high"]
    assert body["kind"] == "held"
    page = tmp_path / "s" / "report.html"
    assert body["report"] == str(page)
    assert "picture" not in body
    assert "--arm adam" in page.read_text(encoding="utf-8")


def test_the_same_command_again_and_report_show_what_was_found(
    sweep: Any, steepest: Any, tmp_path: Path
) -> None:
    words = ("--arm", "sgd", *SMALL)
    first = sweep(*words)
    assert sweep(*words).out == first.out
    assert steepest("report", tmp_path / "s").out == first.out
    there = json.loads(sweep(*words, "--json").out)
    other, picture = tmp_path / "other.html", tmp_path / "p.svg"
    shown = steepest("report", tmp_path / "s", "--json", "--out", other, "--picture", picture)
    written = {"report": str(other), "picture": str(picture)}
    assert json.loads(shown.out) == there | written
    assert there["headline"] in other.read_text(encoding="utf-8")
    assert picture.is_file()
    # without its file nothing of the folder's task is needed
    (tmp_path / "my_task.py").unlink()
    assert steepest("report", tmp_path / "s").out == first.out
    assert sweep(*words, "--lr", "1e-3..1").code == 2


def test_what_stopped_says_how_it_goes_on_and_how_far_it_is(
    sweep: Any, steepest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--arm", "sgd", *SMALL)
    hold, pressed = sweeping.hold, []

    def press(task: Any, arm: Any, rates: Any, seed: int, **more: Any) -> Any:
        if seed == 1 and not pressed:
            pressed.append(seed)
            os.kill(os.getpid(), signal.SIGINT)
        return hold(task, arm, rates, seed, **more)

    monkeypatch.setattr(sweeping, "hold", press)
    ended = sweep(*words)
    assert ended.code == 130
    assert f"the seeds that are finished are kept in {tmp_path / 's'}" in ended.err
    assert "Give the same command again to go on" in ended.err
    ended = steepest("report", tmp_path / "s")
    assert ended.code == 2
    assert "not finished: measured are the grid of rates with 1 of 2 seeds" in ended.err
    assert sweep(*words).code == 0
    assert steepest("report", tmp_path / "s").code == 0


def test_other_commands_say_what_lies_there(sweep: Any, steepest: Any, tmp_path: Path) -> None:
    assert sweep("--arm", "sgd", *SMALL).code == 0
    folder, task = tmp_path / "s", f"{tmp_path / 'my_task.py'}:task"
    for words, said in (
        (("resume", folder), "is the folder of a study or a sweep, not of a race"),
        (("diagnose", folder), "holds no curves"),
        (("race", task, "--arms", "sgd()", "--out", folder), "of a study or a sweep"),
        (("average", task, "--arm", "sgd(lr=1)", "--out", folder), "holds a sweep of another kind"),
        (("report", folder, "--picture", "p.pdf"), "must end in .html, .svg, .png"),
    ):
        ended = steepest(*words)
        assert ended.code == 2, words
        assert said in ended.err
        assert "Traceback" not in ended.err


def test_the_classical_test_is_there_on_request(sweep: Any) -> None:
    ended = sweep("--arm", "sgd(lr=1e-4..100)", "--classical", "--seeds", 1)
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
        (["--arm", "adam", "--picture", "x.pdf"], "must end in"),
        (["--arm", "adam", "--out", "x.svg"], "to draw one, say --picture x.svg"),
        (["--arm", "adam", "--device", "cdua"], "cdua"),
    ],
)
def test_bad_input_is_one_message_with_exit_code_2(
    sweep: Any, tmp_path: Path, words: list[str], said: str
) -> None:
    ended = sweep(*words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "s").exists()
    assert "Traceback" not in ended.err
