"""Tuned arms on the command line, from the race to its extension."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steepest as package

QUICK = ["--trials", "3", "--seeds", "2", "--steps", "10", "--timing", "0"]


@pytest.fixture
def raced(steepest: Callable[..., Any], task_file: Path, tmp_path: Path) -> tuple[Path, Any]:
    words = ["race", f"{task_file}:task", "--arms", "adamw,sgd(lr=1e-2..1)", "adam(lr=0.01)"]
    folder = tmp_path / "r"
    return folder, steepest(*words, *QUICK, "--defaults", "--out", folder)


def test_a_tuned_race_says_its_stages_its_choices_and_what_was_given(
    raced: tuple[Path, Any], steepest: Callable[..., Any]
) -> None:
    folder, ended = raced
    assert ended.code == 0, ended
    assert "2 arms × 3 trials (sobol) × 1 tuning seed, then" in ended.err
    assert "adam(lr=0.01): given, not tuned" in ended.err
    body = json.loads(steepest("report", folder, "--json").out)
    sentences = " ".join(body["verdict"]["tuning_sentences"])
    assert "adamw was tuned to lr=" in sentences
    assert "adam(lr=0.01) was given, not tuned" in sentences
    tuning = body["protocol"]["tuning"]
    assert tuning["trials_per_arm"] == {"adamw": 3, "sgd(lr=0.01..1.0)": 3}
    assert len(set(tuning["steps_per_arm"].values())) == 1
    assert len(body["protocol"]["trials"]) == 3 + 3 + 2 + 1
    assert body["protocol"]["looks"] == [[0, 1]]


def test_resume_adds_seeds_and_refuses_what_is_no_number(
    raced: tuple[Path, Any], steepest: Callable[..., Any]
) -> None:
    folder, _ = raced
    assert steepest("resume", folder, "--seeds", "ten").code == 2
    ended = steepest("resume", folder, "--seeds", "+2", "--json")
    assert ended.code == 0, ended
    body = json.loads(ended.out)
    assert body["protocol"]["looks"] == [[0, 1], [0, 1, 2, 3]]
    assert body["verdict"]["seeds"] == [0, 1, 2, 3]
    result = package.resume(folder, seeds=1)
    assert result.seeds == [0, 1, 2, 3, 4]
    assert steepest("resume", folder.parent / "nothing", "--seeds", "+2").code == 2
