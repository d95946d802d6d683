"""Races over several tasks: one folder each, one plan before the first, aggregates by hand."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import steepest
from steepest.errors import InputError, LedgerError
from steepest.racing.run import StoppedError
from steepest.racing.several import folder_names, is_several

ARMS = ["sgd(lr=0.1)", "adam(lr=0.01)", "sgd(lr=1e-4)"]
SHORT: dict[str, Any] = {"seeds": 3, "steps": 12, "timing": 0, "engine": "solo"}


def make_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return (outputs.argmax(1) == targets).double().mean().item()


def make_task(name: str, noise: float) -> steepest.Task:
    """Two classes of points, the easier to tell apart the less noise there is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(360, 4, generator=generator)
    y = (x[:, 0] + noise * torch.randn(360, generator=generator) > 0).long()
    return steepest.Task(
        name=name, model=make_model, loss=torch.nn.functional.cross_entropy,
        train=(x[:200], y[:200]), val=(x[200:280], y[200:280]), test=(x[280:], y[280:]),
        metrics={"accuracy": accuracy}, batch_size=20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_tasks() -> list[steepest.Task]:
    return [make_task("small", 1.0), make_task("easy", 0.1)]


@pytest.fixture(scope="module")
def raced(
    two_tasks: list[steepest.Task], tmp_path_factory: pytest.TempPathFactory
) -> steepest.MultiResult:
    folder = tmp_path_factory.mktemp("several") / "races"
    return steepest.race(two_tasks, ARMS, out=folder, target=0.7, **SHORT)


@pytest.fixture
def copied(raced: steepest.MultiResult, tmp_path: Path) -> Path:
    """The folder once more, to do something to it."""
    return Path(shutil.copytree(raced.folder, tmp_path / "copy"))


def test_every_task_is_a_race_of_its_own(
    raced: steepest.MultiResult, two_tasks: list[steepest.Task], tmp_path: Path
) -> None:
    assert raced.tasks == ["small", "easy"]
    alone = steepest.race(two_tasks[1], ARMS, out=tmp_path / "alone", target=0.7, **SHORT)
    ours = steepest.load(raced.folder / "easy")
    assert [run.metrics for run in ours.runs] == [run.metrics for run in alone.runs]
    assert raced["easy"].verdict == alone.verdict
    assert repr(raced).endswith("races: small, easy>")
    with pytest.raises(InputError, match="did you mean 'easy'"):
        raced["eazy"]


def test_load_knows_a_folder_of_several(raced: steepest.MultiResult) -> None:
    loaded = steepest.load(raced.folder)
    assert isinstance(loaded, steepest.MultiResult)
    assert loaded.to_dict() == raced.to_dict()


@pytest.mark.slow  # resuming has the timing pass, six seconds a task
def test_a_race_that_is_stopped_in_the_first_task_finds_the_second_again(
    two_tasks: list[steepest.Task], tmp_path: Path
) -> None:
    class Impatient:
        """Raises as Ctrl-C does, in the middle of the first task."""

        def started(self, plan: Any, done: Any) -> None: ...
        def advanced(self, *of: Any) -> None: ...
        def note(self, text: str) -> None: ...
        def run_finished(self, *of: Any) -> None:
            raise KeyboardInterrupt

    folder = tmp_path / "races"
    with pytest.raises(StoppedError, match=f"steepest resume {folder}$"):
        steepest.race(two_tasks, ARMS, out=folder, observer=Impatient(), **SHORT)
    half = steepest.load(folder)
    assert not half.complete
    assert half.aggregate == []
    assert len(half["easy"].runs) == 9
    done = steepest.resume(folder, task=two_tasks)
    straight = steepest.race(two_tasks, ARMS, out=tmp_path / "straight", **SHORT)
    assert done.complete
    assert done.to_dict()["aggregate"] == straight.to_dict()["aggregate"]


def test_aggregates_are_those_of_the_runs(raced: steepest.MultiResult) -> None:
    tables = {}
    for label in ("sgd(lr=0.1)", "adam(lr=0.01)", "sgd(lr=0.0001)"):
        columns = []
        for result in raced.results.values():
            frame = result.to_dataframe()
            means = frame.groupby("arm")["test_accuracy"].mean()
            own = frame[frame["arm"] == label].sort_values("seed")["test_accuracy"]
            columns.append((own.to_numpy() - means.min()) / (means.max() - means.min()))
        tables[label] = np.column_stack(columns)
    assert {row.label for row in raced.aggregate} == set(tables)
    for row in raced.aggregate:
        assert row.iqm == pytest.approx(scipy.stats.trim_mean(tables[row.label], 0.25, axis=None))
        assert row.low <= row.iqm <= row.high
        assert row.means["easy"] == pytest.approx(tables[row.label][:, 1].mean())
    assert [row.iqm for row in raced.aggregate] == sorted(
        (row.iqm for row in raced.aggregate), reverse=True
    )


def test_time_to_target_is_the_median_over_seeds(raced: steepest.MultiResult) -> None:
    costs = raced.target_costs()
    assert costs is not None
    frame = raced.to_dataframe()
    assert list(frame.columns[:3]) == ["task", "run_id", "arm"]
    assert len(frame) == 18
    for label, of in costs.items():
        for task, cost in zip(raced.tasks, of, strict=True):
            own = frame[(frame["arm"] == label) & (frame["task"] == task)]["target_step"]
            expected = float(np.median(own))
            assert cost == expected or (math.isinf(cost) and math.isinf(expected))


def test_few_tasks_claim_nothing_in_general(raced: steepest.MultiResult) -> None:
    assert raced.tasks_needed == 7  # 2/2^7 < 0.05/3
    assert raced.claim.startswith("2 tasks are too few for a claim about tasks in general")
    assert "p = 0.5 (times 3 pairs)" in raced.claim


def test_a_diverged_run_is_below_every_score(
    two_tasks: list[steepest.Task], tmp_path: Path
) -> None:
    arms = ["sgd(lr=0.1)", "sgd(lr=1e30)"]
    raced = steepest.race(two_tasks, arms, out=tmp_path / "races", **SHORT)
    good, bad = raced.aggregate
    assert (bad.label, bad.iqm, bad.diverged) == ("sgd(lr=1e30)", -math.inf, 6)
    assert good.iqm == 1.0  # the only arm with a mean makes the scale


def test_what_cannot_be_raced_is_refused_before_anything_is_written(
    two_tasks: list[steepest.Task], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="a name of its own, got 'small', 'small'"):
        steepest.race([two_tasks[0]] * 2, ARMS, out=tmp_path / "races", **SHORT)
    with pytest.raises(InputError, match="at least one task, got none"):
        steepest.race([], ARMS, out=tmp_path / "races", **SHORT)
    assert not (tmp_path / "races").exists()


def test_folders_of_one_and_of_several_tasks_are_told_apart(
    copied: Path, two_tasks: list[steepest.Task]
) -> None:
    with pytest.raises(LedgerError, match="holds races over several tasks"):
        steepest.race(two_tasks[0], ARMS, out=copied, target=0.7, **SHORT)
    with pytest.raises(LedgerError, match="holds a race over one task"):
        steepest.race(two_tasks, ARMS, out=copied / "small", target=0.7, **SHORT)
    with pytest.raises(LedgerError, match="holds races over small, easy, and easy are asked for"):
        steepest.race(two_tasks[1:], ARMS, out=copied, target=0.7, **SHORT)
    again = steepest.race(two_tasks[1:], ARMS, out=copied, fresh=True, target=0.7, **SHORT)
    assert again.tasks == ["easy"]
    assert not (copied / "small" / "ledger.sqlite").exists()


def test_a_damaged_list_is_named(copied: Path) -> None:
    (copied / "several.json").write_text("{")
    assert is_several(copied)
    with pytest.raises(LedgerError, match=r"several\.json cannot be read"):
        steepest.load(copied)


def test_names_that_make_one_folder_are_refused() -> None:
    assert folder_names(["글자 분류", "../x"]) == {"글자 분류": "글자-분류", "../x": "x"}
    with pytest.raises(InputError, match="'A b', 'a-b'"):
        folder_names(["A b", "a-b"])
