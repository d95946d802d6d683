"""``steepest search`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHORT = ("--steps", "12", "--seeds", "2", "--trials", "6", "--engine", "solo")


def test_a_search_ends_with_the_setting_what_matters_and_the_report(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    line = ("search", f"{task_file}:task", "--arm", "sgd(lr=1e-4..1)", *SHORT, "--out", out)
    ended = steepest(*line)
    assert ended.code == 0, ended.err
    assert "The best of 6 settings of" in ended.out
    assert "Its setting: sgd(lr=" in ended.out
    assert "With 6 trials: sobol tried 6 values of lr" in ended.out
    assert ended.out.rstrip().splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "6 trials (sobol)" in ended.err
    again = steepest(*line)
    assert "all runs are finished already" in again.err
    assert steepest("resume", out).code == 0


def test_json_holds_the_search(steepest: Any, task_file: Path, tmp_path: Path) -> None:
    ended = steepest(
        "search", f"{task_file}:task", "--arm", "sgd(lr=1e-4..1)", "--method", "grid", *SHORT,
        "--out", tmp_path / "s", "--json",
    )  # fmt: skip
    body = json.loads(ended.out)
    assert body["searches"][0]["coverage"][0] == {
        "method": "grid", "ran": True, "values": 6,
        "widest_gap": body["searches"][0]["coverage"][0]["widest_gap"],
    }  # fmt: skip
    assert abs(body["searches"][0]["coverage"][0]["widest_gap"] - 0.2) < 1e-3
    assert body["verdict"]["pairs"] == []


def test_mistakes_are_said_without_a_traceback(
    steepest: Any, task_file: Path, tmp_path: Path
) -> None:
    ended = steepest("search", f"{task_file}:task", "--arm", "sgd()", "--out", tmp_path / "s")
    assert ended.code == 2
    assert "there is nothing to search: 'sgd()' is one setting" in ended.err
    assert "Traceback" not in ended.err


def test_help_has_an_example(steepest: Any) -> None:
    ended = steepest("search", "--help")
    assert ended.code == 0
    assert "Example: steepest search mnist-mlp --arm adamw" in ended.out
