"""The commands as a user types them: what they print, what they exit with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ARMS = ("--arms", "torch.optim:SGD(lr=0.1)", "torch.optim:Adam(lr=0.01)")
SHORT = ("--steps", "12", "--seeds", "2", "--timing", "0")


def test_a_race_ends_with_the_verdict_and_the_path_of_the_report(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "race"
    ended = steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", out)
    assert ended.code == 0, ended.err
    assert "cannot be told apart in test accuracy with 2 seeds" in ended.out
    assert ended.out.rstrip().splitlines()[-1] == f"report: {out / 'report.html'}"
    assert (out / "report.html").stat().st_size > 100_000
    assert "2 seeds are too few to decide anything" in ended.err


def test_a_second_race_repeats_nothing_and_fresh_begins_again(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "race"
    line = ("race", f"{task_file}:task", *ARMS, *SHORT, "--out", out)
    assert steepest(*line).code == 0
    before = (out / "weights").stat().st_mtime_ns
    again = steepest(*line)
    assert again.code == 0
    assert "all runs are finished already" in again.err
    assert (out / "weights").stat().st_mtime_ns == before
    assert "all runs are finished already" not in steepest(*line, "--fresh").err
    assert (out / "weights").stat().st_mtime_ns != before


def test_json_is_one_document_with_the_whole_verdict(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    ended = steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", tmp_path / "r", "--json")
    body = json.loads(ended.out)
    assert ended.code == 0
    assert ended.err == ""
    pair = body["verdict"]["pairs"][0]
    assert {pair["a"], pair["b"]} == {arm.replace("0.10", "0.1") for arm in ARMS[1:]}
    assert pair["decision"] == "undecided"
    assert Path(body["report"]).exists()


def test_report_and_resume_show_a_finished_race(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "race"
    assert steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", out, "-q").code == 0
    page = tmp_path / "elsewhere.html"
    picture = tmp_path / "picture.svg"
    assert steepest("report", out, "--out", page, "--picture", picture).code == 0
    assert page.exists()
    assert picture.read_text(encoding="utf-8").lstrip().startswith("<svg")
    assert steepest("resume", out).code == 0


def test_rules_lists_every_rule_and_shows_one(steepest: Any) -> None:
    listed = json.loads(steepest("rules", "--json").out)
    assert {"sgd", "adam", "adamw", "nadam", "rprop"} <= {rule["name"] for rule in listed}
    shown = steepest("rules", "nadam")
    assert shown.code == 0
    assert "mu_product" in shown.out
    assert "momentum_decay" in shown.out


def test_tasks_lists_the_ready_made_ones(steepest: Any) -> None:
    assert set(json.loads(steepest("tasks", "--json").out)) >= {
        "mnist",
        "mnist-mlp",
        "mnist-logreg",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["race", "mnits", *ARMS], "did you mean 'mnist'"),
        (["race", "{task}", "--arms", "adm()"], "did you mean 'adam'"),
        (["race", "{task}", "--arms", "adam(lr=-1)"], "lr must be >= 0, got -1"),
        (["race", "{task}", "--arms", "adam(lr=abc)"], "lr must be a number"),
        (["race", "{task}", "--arms", "adam(lrr=1)"], "did you mean 'lr'"),
        (["race", "{task}", *ARMS, "--seeds", "0"], "at least one seed, got 0"),
        (["race", "{task}", *ARMS, "--epochs", "-1"], "epochs must be a number > 0"),
        (["race", "{task}", *ARMS, "--epochs", "1", "--steps", "5"], "leave one of them out"),
        (["race", "{task}", "--arms", "adam()", "adam()"], "adam()"),
        (["race", "{task}", "--arms", "adam(lr=1e-1..1e-4)"], "write the smaller end first"),
        (["race", "{task}", *ARMS, "--trials", "4"], "trials=4: this is about tuning"),
        (["race", "{task}", *ARMS, "--budget", "quick"], "every arm was given its setting"),
        (["race", "{task}", "--arms", "adam", "--trials", "0"], "trials must be a whole number"),
        (["race", "{task}", "--arms", "adam", "--method", "sobel"], "did you mean 'sobol'"),
        (["race", "{task}", "--arms", "adam", "--train-on", "all"], "all of it is trained on"),
        (["race", "{task}", *ARMS, "--target", "acc=0.9"], "did you mean 'accuracy'"),
        (["race", "{task}", *ARMS, "--device", "cdua"], "cdua"),
        (["race", "{task}", *ARMS, "--level", "95"], "level"),
        (["race", "{folder}/nothing.py:task", *ARMS], "nothing.py"),
        (["race", "{folder}/my_task.py:tsk", *ARMS], "tasks there: task"),
        (["report", "{folder}/nothing"], "nothing"),
        (["resume", "{folder}"], "{folder}"),
        (["rules", "adm"], "did you mean 'adam'"),
    ],
)
def test_bad_input_is_one_message_with_exit_code_2(
    steepest: Any, task_file: Path, words: list[str], said: str
) -> None:
    fill = {"task": f"{task_file}:task", "folder": str(task_file.parent)}
    ended = steepest(*(word.format(**fill) for word in words))
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert said.format(**fill) in ended.err
    assert "Traceback" not in ended.err
    assert list(task_file.parent.glob("runs")) == []


def test_a_task_file_that_raises_is_named_with_its_line(steepest: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import torch\n\nx = 1 / 0\n")
    ended = steepest("race", f"{broken}:task", *ARMS)
    assert ended.code == 2
    assert "broken.py:3" in ended.err
    assert "ZeroDivisionError" in ended.err
    assert "Traceback" not in ended.err


def test_a_folder_with_another_race_is_not_touched(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "race"
    assert steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", out, "-q").code == 0
    before = (out / "ledger.sqlite").read_bytes()
    ended = steepest("race", f"{task_file}:task", *ARMS, "--steps", "13", "--out", out)
    assert ended.code == 2
    assert "holds another race" in ended.err
    assert "steps is 12 there and 13 here" in ended.err
    assert (out / "ledger.sqlite").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused_before_training(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    ended = steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", locked / "race")
    assert ended.code == 2
    assert "locked" in ended.err


def test_out_below_a_file_is_refused_before_training(steepest: Any, task_file: Path) -> None:
    ended = steepest("race", f"{task_file}:task", *ARMS, *SHORT, "--out", task_file / "race")
    assert ended.code == 2
    assert "my_task.py" in ended.err


def test_a_diverging_arm_is_recorded_and_the_race_goes_on(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    ended = steepest(
        "race", f"{task_file}:task", *SHORT,
        "--arms", "torch.optim:SGD(lr=1e38, weight_decay=1)", "torch.optim:SGD(lr=0.1)",
        "--out", tmp_path / "r",
    )  # fmt: skip
    assert ended.code == 0
    assert "diverged" in ended.out
    assert "diverged torch.optim:SGD(lr=1e38, weight_decay=1), seed 0" in ended.err
    assert "done torch.optim:SGD(lr=0.1), seed 1" in ended.err


def test_a_run_whose_code_raises_is_recorded_and_exits_with_1(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    optimizer = tmp_path / "fragile.py"
    optimizer.write_text(
        "import torch\n\n\nclass Fragile(torch.optim.SGD):\n    taken = 0\n\n"
        "    def step(self, closure=None):\n        self.taken += 1\n"
        "        if self.taken > 5:\n            raise RuntimeError('the sixth step is too much')\n"
        "        return super().step(closure)\n"
    )
    ended = steepest(
        "race", f"{task_file}:task", "--arms", f"{optimizer}:Fragile(lr=0.1)",
        "torch.optim:SGD(lr=0.1)", *SHORT, "--out", tmp_path / "r",
    )  # fmt: skip
    assert ended.code == 1
    assert "failed" in ended.out
    assert "done torch.optim:SGD(lr=0.1), seed 1" in ended.err


def test_several_tasks_are_one_command_and_one_report(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(task_file.read_text().replace('name="points"', 'name="other points"'))
    out = tmp_path / "races"
    line = ("race", f"{task_file}:task", f"{other}:task", *ARMS, *SHORT, "--engine", "solo")
    ended = steepest(*line, "--out", out)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Over 2 tasks ")
    assert ended.out.rstrip().splitlines()[-1] == f"report: {out / 'report.html'}"
    for page in (out, out / "points", out / "other-points"):
        assert (page / "report.html").stat().st_size > 100_000
    body = json.loads(steepest("report", out, "--json").out)
    assert body["tasks"] == ["points", "other points"]
    assert len(body["races"]["other points"]["runs"]) == 4
    again = steepest("report", out, "--picture", tmp_path / "a.svg")
    assert again.code == 2
    assert str(out / "points") in again.err
    missing = steepest("race", f"{task_file}:task", "mnst", *ARMS, *SHORT, "--out", out)
    assert missing.code == 2
    assert "did you mean 'mnist'" in missing.err
