"""A race has one precision, that is on record, holds in every engine, and makes another race."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import steepest
from steepest import tasks
from steepest.api import default_folder
from steepest.errors import InputError, LedgerError, TaskError
from steepest.racing import timing
from steepest.racing.folder import open_race
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Pace, Silent, StoppedError
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.reporting.facts import flags
from steepest.reporting.protocol import protocol_groups, reproduce
from steepest.train.population import Population
from steepest.train.solo import SoloRun
from steepest.train.task import Task

QUICK = Pace(commit=0.0, timing=0.0)
ARMS = ["sgd(lr=0.1, momentum=0.9)", "adam(lr=0.01)"]


def race(
    folder: Path,
    task: Task,
    engine: str | None = None,
    *,
    task_spec: str | None = None,
    observer: Silent | None = None,
    pace: Pace = QUICK,
    **options: Any,
) -> Result:
    options = {"seeds": 2, "steps": 30, "eval_every": 7, "precision": "bf16", **options}
    settled = plan(task, ARMS, task_spec=task_spec, **options)
    with open_race(folder, settled) as ledger:
        execute(ledger, settled, task, observer=observer, pace=pace, engine=engine)
    return Result(folder)


def digest(folder: Path) -> str:
    with Ledger.read(folder) as ledger:
        return ledger.content_digest()


def protocol_line(result: Result) -> str | None:
    (budget,) = (g for g in protocol_groups(result) if g.title == "Budget")
    return dict(budget.items).get("precision")


@pytest.fixture
def spec(task_file: Path) -> str:
    return f"{task_file}:task"


def test_every_engine_trains_in_the_precision_and_it_is_the_race_that_solo_runs_are(
    tmp_path: Path, spec: str
) -> None:
    task = tasks.load(spec)
    solo = race(tmp_path / "solo", task, "solo", task_spec=spec)
    alone = SoloRun(
        task,
        optimizer=plan(task, ARMS).spec.arms[1].factory(),
        schedule=None,
        seed=1,
        steps=30,
        precision="bf16",
    )
    steps, losses = solo.curves("train_loss")["adam(lr=0.01)", 1]
    assert steps.tolist() == list(range(1, 31))
    assert np.array_equal(losses.astype(np.float32), alone.advance(30).loss)
    race(tmp_path / "apart", task, "processes", task_spec=spec)
    assert digest(tmp_path / "apart") == digest(tmp_path / "solo")
    together = race(tmp_path / "together", task, "population", task_spec=spec)
    plain = race(tmp_path / "plain", task, "solo", precision="float32")
    for key, (_, mine) in together.curves("train_loss").items():
        others = solo.curves("train_loss")[key][1]
        assert np.allclose(mine, others, rtol=2e-2)
        assert not np.array_equal(others, plain.curves("train_loss")[key][1])
    assert len({digest(tmp_path / name) for name in ("solo", "together", "plain")}) == 3


def test_it_is_on_record_and_in_the_words_of_the_report(tmp_path: Path, task: Task) -> None:
    low, plain = race(tmp_path / "low", task), race(tmp_path / "f", task, precision="float32")
    assert (low.precision, plain.precision) == ("bf16", "float32")
    assert low.spec["precision"] == "bf16"
    assert plain.spec["precision"] == "float32"
    sentence = "All runs computed in bf16: forward pass and loss under autocast to bfloat16"
    assert sentence in low.verdict.text
    assert "float32" not in plain.verdict.text
    assert [f.kind for f in flags(low) if f.text.startswith(sentence)] == ["note"]
    assert str(protocol_line(low)).startswith("bf16: forward pass and loss under autocast")
    assert protocol_line(plain) == "float32: IEEE float32, in products of matrices and in " + (
        "convolutions"
    )
    with Ledger.write(tmp_path / "low") as ledger:
        ledger.put_meta({"command": ""})  # as if it had been begun in Python
    assert "    precision='bf16',\n" in reproduce(Result(tmp_path / "low"))
    assert "precision" not in reproduce(plain)


def test_another_precision_is_another_race(tmp_path: Path, task: Task) -> None:
    race(tmp_path / "r", task)
    before = digest(tmp_path / "r")
    with pytest.raises(LedgerError, match="precision is bf16 there and float32 here"):
        race(tmp_path / "r", task, precision="float32")
    assert digest(tmp_path / "r") == before
    folders = {default_folder(plan(task, ARMS, precision=p)).name for p in ("float32", "bf16")}
    assert len(folders) == 2


def test_a_ledger_that_does_not_say_reads_as_float32(tmp_path: Path, task: Task) -> None:
    whole = race(tmp_path / "r", task, precision="float32")
    with Ledger.write(tmp_path / "r") as ledger:
        old = dict(ledger.meta()["spec"])
        del old["precision"]
        ledger.put_meta({"spec": old})
    found = race(tmp_path / "r", task, precision="float32")  # finished: found again
    assert found.precision == "float32"
    assert found.verdict == whole.verdict
    assert str(protocol_line(found)).startswith("float32")
    with pytest.raises(LedgerError, match="precision is float32 there and bf16 here"):
        race(tmp_path / "r", task)
    more = steepest.resume(tmp_path / "r", seeds="+1", task=task)
    assert (len(more.runs), more.precision) == (6, "float32")


class StopAt(Silent):
    """Asks the race to stop at some step of some run."""

    def __init__(self, step: int) -> None:
        self.step: int | None = step

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        if self.step is not None and step >= self.step:
            self.step = None
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("engine", ["population", "processes"])
def test_a_resumed_race_keeps_its_precision_to_the_last_bit(
    tmp_path: Path, spec: str, engine: str
) -> None:
    task = tasks.load(spec)
    race(tmp_path / "whole", task, engine, task_spec=spec)
    slow = Pace(look=0.0, commit=1000.0, timing=0.0)
    with pytest.raises(StoppedError, match="steepest resume"):
        race(tmp_path / "cut", task, engine, task_spec=spec, observer=StopAt(13), pace=slow)
    assert not Result(tmp_path / "cut").complete
    result = steepest.resume(tmp_path / "cut")
    assert isinstance(result, Result)
    assert result.precision == "bf16"
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    more = steepest.resume(tmp_path / "cut", seeds="+1")
    assert len(more.runs) == 6
    assert more.spec["precision"] == "bf16"


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("bf61", "unknown precision 'bf61'; did you mean 'bf16'"),
        ("tf32", r"'tf32' is a format of CUDA's matrix units, and the device is 'cpu'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, task: Task, precision: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        steepest.race(task, ARMS, precision=precision, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_model_that_cannot_be_trained_in_it_is_refused_before_the_race(
    make_task: Callable[..., Task],
) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.empty(len(x), 6)
            rows = torch.arange(len(x))
            out[rows] = self.first(x)
            return self.last(out)

    task = make_task(model=Mixing)
    plan(task, ARMS)
    with pytest.raises(TaskError, match=r"precision 'bf16' cannot be: .* raised .*; use 'float32'"):
        plan(task, ARMS, precision="bf16")


def test_timing_and_the_engine_probe_measure_in_it(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for kind in (SoloRun, Population):
        build = kind.__init__

        def spy(self: Any, *args: Any, build: Any = build, **more: Any) -> None:
            build(self, *args, **more)
            seen.append(f"{type(self).__name__} {self.precision.name}")

        monkeypatch.setattr(kind, "__init__", spy)
    settled = plan(task, ARMS, precision="bf16")
    seen.clear()
    found = timing.measure(task, settled.spec, arms=settled.spec.arms, seconds=0.1)
    assert not found.left_out
    assert set(seen) == {"SoloRun bf16"}
    seen.clear()
    monkeypatch.setattr("steepest.racing.probe._SMALL", 0.0)
    race(tmp_path / "r", task, "auto")
    assert {"SoloRun bf16", "Population bf16"} <= set(seen)
    # float32 is where members must agree to the last digits; nothing is timed in it
    assert sum("float32" in one for one in seen) == 6


def test_a_search_has_it_too(tmp_path: Path) -> None:
    found = steepest.search(
        "mnist-logreg",
        "sgd(lr=1e-4..1.0)",
        trials=2,
        seeds=2,
        steps=5,
        precision="bf16",
        out=tmp_path,
    )
    assert found.precision == "bf16"
    assert "computed in bf16" in found.verdict.text
