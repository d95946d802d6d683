"""``steepest race --precision`` and ``steepest search --precision``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steepest.racing.result import Result

Steepest = Callable[..., Any]


@pytest.fixture
def words(task_file: Path, tmp_path: Path) -> list[object]:
    words = ["race", f"{task_file}:task", "--arms", "sgd(lr=0.1)", "adam(lr=0.01)", "--seeds", 2]
    return [*words, "--steps", 12, "--timing", 0, "--out", tmp_path / "race"]


def test_a_race_in_bf16_says_so_and_is_another_race_than_one_in_float32(
    steepest: Steepest, words: list[object], tmp_path: Path
) -> None:
    code, out, _ = steepest(*words, "--precision", "bf16", "--quiet")
    assert code == 0
    assert "All runs computed in bf16" in out
    page = (tmp_path / "race" / "report.html").read_text()
    assert "All runs computed in bf16" in page
    assert "bf16: forward pass and loss under autocast" in page  # the protocol's line
    command = shlex.split(Result(tmp_path / "race").protocol()["command"])
    assert command[command.index("--precision") + 1] == "bf16"
    code, _, err = steepest(*words)
    assert code == 2
    assert "precision is bf16 there and float32 here" in " ".join(err.split())
    code, out, _ = steepest("resume", tmp_path / "race", "--seeds", "+1", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["spec"]["precision"] == "bf16"
    assert len(found["runs"]) == 6


def test_float32_is_a_line_of_the_protocol(
    steepest: Steepest, words: list[object], tmp_path: Path
) -> None:
    code, out, _ = steepest(*words, "--quiet")
    assert code == 0
    assert "computed in" not in out
    assert "float32: IEEE float32" in (tmp_path / "race" / "report.html").read_text()


@pytest.mark.parametrize(
    ("precision", "said"),
    [("half", "'half' is not one of"), ("tf32", "'tf32' is a format of CUDA's matrix units")],
)
def test_what_cannot_be_is_refused(
    steepest: Steepest, words: list[object], tmp_path: Path, precision: str, said: str
) -> None:
    code, _, err = steepest(*words, "--precision", precision)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "race").exists()


def test_a_search_has_it_too(steepest: Steepest, task_file: Path, tmp_path: Path) -> None:
    words = ["search", f"{task_file}:task", "--arm", "sgd(lr=1e-3..1)", "--trials", 2, "--seeds", 2]
    words += ["--steps", 5, "--out", tmp_path, "--precision", "bf16", "--json"]
    code, out, _ = steepest(*words)
    assert code == 0
    assert json.loads(out)["spec"]["precision"] == "bf16"
