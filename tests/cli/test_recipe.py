"""``steepest recipe`` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

CommandLine = Callable[..., Any]


def test_a_shut_gate_exits_with_3_and_says_what_to_check(
    steepest: CommandLine, task_file: Path, tmp_path: Path
) -> None:
    text = task_file.read_text().replace(
        "loss=F.cross_entropy", "loss=lambda o, t: 9 * F.cross_entropy(o, t)"
    )
    task_file.write_text(text)
    words = ("recipe", f"{task_file}:task", "--arm", "adam", "--out", tmp_path / "r")
    done = steepest(*words)
    assert done.code == 3
    assert "1/7 shut" in done.err
    assert "is it a sum instead of a mean, or scaled?" in done.out
    assert (tmp_path / "r" / "recipe.html").exists()
    held = json.loads(steepest(*words, "--json").out)
    assert held["steps"][0]["passed"] is False
    assert held["complete"] is False


def test_an_arm_that_cannot_be_is_bad_input(
    steepest: CommandLine, task_file: Path, tmp_path: Path
) -> None:
    done = steepest("recipe", f"{task_file}:task", "--arm", "adm", "--out", tmp_path / "r")
    assert done.code == 2
    assert "did you mean 'adam'" in done.err
