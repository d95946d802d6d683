"""What ``steepest bench population`` prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steepest.racing import bench


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_BLOCK", 0.0)


@pytest.mark.slow
def test_every_way_is_measured_beside_the_plain_loop(steepest: Callable[..., Any]) -> None:
    threads = torch.get_num_threads()
    words = ["bench", "population", "mnist-logreg", "--members", 3, "--rounds", 1, "--json"]
    code, out, _ = steepest(*words, "--threads", threads)
    rows = json.loads(out)
    assert code == 0
    assert [(row["way"], row["members"]) for row in rows] == [
        ("plain loop", 1),
        ("solo", 1),
        ("2 processes", 2),
        ("2 processes of 16", 32),
        ("population", 3),
        ("recorded", 3),
        ("as written", 3),
    ]
    forward = 2 * 32 * 784 * 10  # one product forward, one for the weights' gradient
    for row in rows:
        assert row["flops"] * row["step"] == pytest.approx(2 * forward)
        assert row["memory"] > 0
        assert row["share"] > 0
    assert rows[0]["speedup"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet", "transformer", "lstm"])
def test_the_other_models_train_in_a_population(steepest: Callable[..., Any], model: str) -> None:
    words = ["bench", "population", model, "--members", 2, "--rounds", 1, "--processes", 0]
    code, out, _ = steepest(*words, "--precision", "bf16")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.strip().startswith(model)] == [
        "plain",
        "solo",
        "population",
        "recorded",
        "as",
    ]
    assert "nan" not in out
    assert "bf16" in out


def test_an_unknown_model_is_refused(steepest: Callable[..., Any]) -> None:
    code, _, err = steepest("bench", "population", "mlp")
    assert code == 2
    assert "unknown model 'mlp'" in err


@pytest.mark.slow
def test_more_runs_than_are_the_fastest_at_once_take_turns(steepest: Callable[..., Any]) -> None:
    words = ["bench", "population", "mnist-logreg", "--members", 20, "--rounds", 1, "--json"]
    code, out, _ = steepest(*words, "--processes", 0, "--arm", "adam")
    rows = json.loads(out)
    assert code == 0
    assert [(row["way"], row["members"]) for row in rows][2:] == [
        ("population", 20),
        ("in turns", 20),
        ("recorded", 20),
        ("as written", 20),
    ]


def test_an_unknown_optimizer_is_refused(steepest: Callable[..., Any]) -> None:
    code, _, err = steepest("bench", "population", "mnist-mlp", "--arm", "sdg")
    assert code == 2
    assert "unknown optimizer 'sdg'" in err


def test_a_population_of_nobody_is_refused(steepest: Callable[..., Any]) -> None:
    code, _, err = steepest("bench", "population", "mnist-logreg", "--members", 0)
    assert code == 2
    assert "both numbers start at 1" in err
