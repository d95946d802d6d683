"""The verbs in Python: race, resume, load, and what a result offers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import steepest
from steepest.errors import InputError, LedgerError


def test_arms_are_texts_classes_and_functions_under_labels(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    result = steepest.race(
        small_task,
        {
            "text": "sgd(lr=0.1)",
            "class": torch.optim.Adam,
            "function": lambda params: torch.optim.SGD(params, lr=0.1),
        },
        out=tmp_path,
        seeds=2,
        steps=12,
        timing=0,
    )
    assert [arm.label for arm in result.arms] == ["text", "class", "function"]
    assert {run.status for run in result.runs} == {"done"}
    ours, theirs = (result.curves("train_loss", arm=arm) for arm in ("text", "function"))
    for seed in (0, 1):
        np.testing.assert_allclose(ours["text", seed][1], theirs["function", seed][1], rtol=1e-5)


def test_a_dataframe_has_one_row_per_run_with_its_settings_and_numbers(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    result = steepest.race(
        small_task, ["sgd(lr=0.1)", "adam(lr=0.01)"], out=tmp_path, seeds=3, steps=12, timing=0
    )
    frame = result.to_dataframe()
    assert len(frame) == 6
    assert set(frame["arm"]) == {"sgd(lr=0.1)", "adam(lr=0.01)"}
    assert sorted(frame["seed"].unique()) == [0, 1, 2]
    means = frame.groupby("arm")["test_accuracy"].mean()
    for row in result.ranking:
        assert row.mean == pytest.approx(means[row.label])


def test_load_reads_what_race_returned_without_the_task(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    raced = steepest.race(
        small_task, ["sgd(lr=0.1)", "adam(lr=0.01)"], out=tmp_path, seeds=2, steps=12, timing=0
    )
    loaded = steepest.load(tmp_path)
    assert loaded.verdict == raced.verdict
    assert loaded.ranking == raced.ranking
    page = loaded.report(tmp_path / "page.html")
    assert "sgd(lr=0.1)" in page.read_text(encoding="utf-8")


def test_racing_again_in_the_same_folder_reads_and_a_longer_race_is_refused(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    arms = ["sgd(lr=0.1)", "adam(lr=0.01)"]
    first = steepest.race(small_task, arms, out=tmp_path, seeds=2, steps=12, timing=0)
    digest = {run.run_id: run.seconds for run in first.runs}
    again = steepest.race(small_task, arms, out=tmp_path, seeds=2, steps=12, timing=0)
    assert {run.run_id: run.seconds for run in again.runs} == digest
    with pytest.raises(LedgerError, match="steps is 12 there and 13 here"):
        steepest.race(small_task, arms, out=tmp_path, seeds=2, steps=13, timing=0)


def test_resume_with_the_task_at_hand_finishes_what_is_left(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    arms = ["sgd(lr=0.1)", "adam(lr=0.01)"]
    done = steepest.race(small_task, arms, out=tmp_path, seeds=2, steps=12, timing=0)
    resumed = steepest.resume(tmp_path, task=small_task)
    assert resumed.verdict == done.verdict
    with pytest.raises(LedgerError, match="given as a Python object"):
        steepest.resume(tmp_path)


def test_the_default_folder_is_named_by_what_was_asked_for(
    small_task: steepest.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for steps in (5, 6, 5):
        steepest.race(small_task, ["sgd(lr=0.1)"], seeds=1, steps=steps, timing=0)
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(name.startswith("small-") for name in folders)


def test_a_mistake_is_an_input_error_before_anything_is_written(
    small_task: steepest.Task, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="did you mean 'adam'"):
        steepest.race(small_task, ["adm()"], out=tmp_path / "race")
    assert not (tmp_path / "race").exists()
