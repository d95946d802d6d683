"""Populations in several processes: the same race, and a process that dies costs one retry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.racing.test_engine import (
    SICK,
    TASK_FILE,
    StopAt,
    assert_same_race,
    digest,
    kinds,
    race,
    task_file,
)

from steepest import tasks
from steepest.racing import apart, engine
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Pace, Silent, StoppedError
from steepest.racing.probe import Found, Tried

__all__ = ["task_file"]

ARMS = ["sgd(lr=0.1, momentum=0.9)", "adam(lr=0.01) + cosine(warmup=0.1)", SICK]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Says what the measurement finds the fastest: populations of a size, in some processes."""

    def fastest(size: int, workers: int) -> None:
        def probe(place: Any, waiting: Any, *, times: int = 1) -> Found:
            best = Tried(engine="population", size=size, workers=workers, threads=1)
            return Found(best=best, reason=f"engine: {best}", together=tuple(waiting))

        monkeypatch.setattr(engine, "probe", probe)

    return fastest


def options(task_file: str, **more: Any) -> dict[str, Any]:
    return {"task_spec": task_file, "steps": 60, "epochs": None, "arms": ARMS, **more}


@pytest.mark.parametrize("early", [False, True])
def test_populations_in_processes_give_the_bits_of_populations_here(
    tmp_path: Path, task_file: str, chosen: Callable[[int, int], None], early: bool
) -> None:
    task = tasks.load(task_file)
    more = options(task_file, **({"early_stopping": "val_loss"} if early else {}))
    chosen(3, 1)
    here = race(tmp_path / "here", task, "auto", **more)
    chosen(3, 2)
    there = race(tmp_path / "there", task, "auto", **more)
    assert digest(tmp_path / "there") == digest(tmp_path / "here")
    assert {run.status for run in there.runs} == {"done", "diverged"}
    assert_same_race(there, here, rtol=0.0)
    with Ledger.read(tmp_path / "there") as ledger:
        found = ledger.meta()["engine"]
    assert (found["name"], found["workers"], len(found["groups"])) == ("population", 2, 2)


def test_they_are_resumed_to_the_same_bits(
    tmp_path: Path, task_file: str, chosen: Callable[[int, int], None]
) -> None:
    task = tasks.load(task_file)
    more = options(task_file)
    chosen(3, 2)
    race(tmp_path / "whole", task, "auto", **more)
    slow = Pace(look=0.0, commit=1000.0, timing=0.0)
    with pytest.raises(StoppedError, match="steepest resume"):
        race(tmp_path / "cut", task, "auto", observer=StopAt(13), pace=slow, **more)
    race(tmp_path / "cut", task, None, **more)  # the engine is on record
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


class Murderer(Silent):
    """Kills the process of a run, so many times."""

    def __init__(self, victims: int, asked: dict[int, apart.Worker]) -> None:
        self.victims = victims
        self.asked = asked

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        if run_id == "a1-s0" and 20 < step < total and self.victims:
            self.victims -= 1
            self.asked[threading.get_ident()].process.kill()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_process_that_dies_costs_a_retry_and_then_its_runs_go_on_one_by_one(
    tmp_path: Path,
    task_file: str,
    chosen: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    deaths: int,
) -> None:
    task = tasks.load(task_file)
    chosen(3, 2)
    calm = options(task_file, arms=["sgd(lr=0.01)", "adam(lr=0.003)"], seeds=3)
    wild = options(task_file)  # members leave, and the others move together
    given = wild if deaths == 1 else calm
    whole = race(tmp_path / "whole", task, "auto", **given)
    asked: dict[int, apart.Worker] = {}
    ask = apart.Worker.ask

    def ask_seen(self: apart.Worker, *arguments: Any) -> Any:
        asked[threading.get_ident()] = self
        return ask(self, *arguments)

    monkeypatch.setattr(apart.Worker, "ask", ask_seen)
    found = race(tmp_path / "r", task, "auto", observer=Murderer(deaths, asked), **given)
    assert kinds(found).count("worker_lost") == deaths
    texts = [e["text"] for e in found.events if e["kind"] == "worker_lost"]
    assert "a population of 3 runs is tried once more" in texts[0]
    assert "killed by signal 9" in texts[0]
    if deaths == 1:
        assert digest(tmp_path / "r") == digest(tmp_path / "whole")
    else:
        assert "goes on one by one" in texts[1]
        assert_same_race(found, whole, rtol=0.02)


def test_what_raises_in_a_population_goes_on_one_by_one(
    tmp_path: Path, chosen: Callable[[int, int], None]
) -> None:
    fickle = TASK_FILE.replace(
        "def accuracy(out, y):\n",
        "CALLS = []\ndef accuracy(out, y):\n    CALLS.append(1)\n"
        "    if len(CALLS) > 30: raise ValueError('no luck today')\n",
    )
    (tmp_path / "task.py").write_text(fickle)
    spec = f"{tmp_path / 'task.py'}:task"
    chosen(3, 2)
    found = race(tmp_path / "r", tasks.load(spec), "auto", **options(spec, eval_every=2))
    assert "not_batched" in kinds(found)
    assert {run.status for run in found.runs} <= {"failed", "diverged"}
    assert any("no luck today" in str(run.message) for run in found.runs)
