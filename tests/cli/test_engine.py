"""``steepest race --engine``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steepest.racing.ledger import Ledger

Steepest = Callable[..., Any]


@pytest.mark.parametrize("engine", ["population", "processes"])
def test_the_engine_that_is_asked_for_carries_out_the_race(
    steepest: Steepest, task_file: Path, tmp_path: Path, engine: str
) -> None:
    out = tmp_path / "race"
    words = ["race", f"{task_file}:task", "--arms", "sgd(lr=0.1)", "adam(lr=0.01)", "--seeds", 2]
    words += ["--steps", 12, "--timing", 0, "--out", out, "--json"]
    code, printed, _ = steepest(*words, "--engine", engine)
    assert code == 0
    assert len(json.loads(printed)["ranking"]) == 2
    with Ledger.read(out) as ledger:
        assert ledger.meta()["engine"]["name"] == engine
        assert {run["status"] for run in ledger.runs()} == {"done"}
    assert "populations of 4" in (out / "report.html").read_text() or engine == "processes"
    assert steepest(*words)[0] == 0  # finished: shown, whatever the engine


def test_an_unknown_engine_is_refused(steepest: Steepest, task_file: Path) -> None:
    code, _, err = steepest("race", f"{task_file}:task", "--arms", "sgd()", "--engine", "threads")
    assert code == 2
    assert "threads" in err
