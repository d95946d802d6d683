"""Whatever engine carries out a race, it is the same race; and faults stay where they are."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest import tasks
from steepest.errors import InputError, LedgerError, UnsupportedError
from steepest.racing import apart, fit, probe
from steepest.racing.engine import check_engine
from steepest.racing.folder import open_race
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Pace, Silent, StoppedError
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.train.population import Population
from steepest.train.task import Task

QUICK = Pace(commit=0.0, timing=0.0)
SEVERAL = ["sgd(lr=0.1, momentum=0.9)", "adam(lr=0.01) + cosine(warmup=0.1)", "sgd(lr=0.01)"]
SICK = "sgd(lr=1e20)"
Make = Callable[..., Task]


def digest(folder: Path) -> str:
    with Ledger.read(folder) as ledger:
        return ledger.content_digest()


def race(
    folder: Path,
    task: Task,
    engine: str | None,
    arms: Any = SEVERAL,
    *,
    observer: Silent | None = None,
    pace: Pace = QUICK,
    task_spec: str | None = None,
    **options: Any,
) -> Result:
    options = {"seeds": 2, "epochs": 2, "eval_every": 7, **options}
    settled = plan(task, arms, task_spec=task_spec, **options)
    with open_race(folder, settled) as ledger:
        execute(ledger, settled, task, observer=observer, pace=pace, engine=engine)
    return Result(folder)


def kinds(result: Result) -> list[str]:
    return [event["kind"] for event in result.events]


def assert_same_race(a: Result, b: Result, *, rtol: float = 1e-4) -> None:
    for mine, other in zip(a.runs, b.runs, strict=True):
        assert (mine.status, mine.steps, mine.diverged_at) == (
            other.status,
            other.steps,
            other.diverged_at,
        )
        assert (mine.start_hash, mine.order_hash) == (other.start_hash, other.order_hash)
        assert mine.metrics.keys() == other.metrics.keys()
    for name in ("train_loss", "lr"):
        theirs = b.curves(name)
        for key, (steps, values) in a.curves(name).items():
            assert steps.tolist() == theirs[key][0].tolist()
            assert np.allclose(values, theirs[key][1], rtol=rtol, equal_nan=True)
    theirs = b.evaluations("val", "loss")
    for key, (steps, values) in a.evaluations("val", "loss").items():
        assert steps.tolist() == theirs[key][0].tolist()
        assert np.allclose(values, theirs[key][1], rtol=rtol)


def test_a_race_in_a_population_is_the_race_one_by_one(tmp_path: Path, task: Task) -> None:
    arms = [*SEVERAL, "torch.optim:Adam(lr=0.01)"]
    together = race(tmp_path / "population", task, "population", arms)
    assert_same_race(together, race(tmp_path / "solo", task, None, arms))
    assert together.complete
    assert "engine" in kinds(together)
    assert os.listdir(tmp_path / "population" / "checkpoints") == []
    weights = [sorted(os.listdir(tmp_path / r / "weights")) for r in ("population", "solo")]
    assert weights[0] == weights[1]


def test_diverged_members_are_recorded_and_the_rest_moves_together(
    tmp_path: Path, make_task: Make
) -> None:
    def linear() -> nn.Module:
        return nn.Linear(6, 3)

    task = make_task(model=linear, loss=F.multi_margin_loss)
    arms = [SICK, "sgd(lr=1e25)", "sgd(lr=0.1)", "sgd(lr=1e30)"]

    class Cubed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) ** 3

    task = make_task(model=Cubed)
    seen: list[int] = []
    build = Population.__init__

    def spy(self: Population, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        seen.append(len(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Population, "__init__", spy)
        together = race(tmp_path / "population", task, "population", arms)
    assert_same_race(together, race(tmp_path / "solo", task, None, arms))
    statuses = {run.arm: run.status for run in together.runs}
    assert statuses == {
        arms[0]: "diverged",
        arms[1]: "diverged",
        arms[2]: "done",
        arms[3]: "diverged",
    }
    assert seen[-2:] == [8, 2]  # six of eight diverged


KILLED = """
import sys
import torch
torch.set_num_threads(1)
from steepest import tasks
from steepest.racing.folder import open_race
from steepest.racing.observer import Pace, Silent
from steepest.racing.plan import plan
from steepest.racing.run import execute
class Loud(Silent):
    def advanced(self, run_id, step, total, loss):
        print(run_id, step, flush=True)
task = tasks.load(sys.argv[1])
arms = ["sgd(lr=0.1, momentum=0.9)", "adam(lr=0.01) + cosine(warmup=0.1)", "sgd(lr=1e20)",
        "torch.optim:SGD(lr=0.01)", "sgd(lr=1e25)", "nadam(lr=1e-3)", "sgd(lr=1e30)"]
settled = plan(task, arms, seeds=2, steps=150, eval_every=20, task_spec=sys.argv[1])
pace = Pace(look=0.0, commit=0.02, share=1.0, timing=0.0)
with open_race(sys.argv[2], settled) as ledger:
    execute(ledger, settled, task, observer=Loud(), pace=pace, engine="population")
"""

TASK_FILE = """
import torch
from torch import nn
from steepest.train.task import Task
def data(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    return x, (x[:, :3] + 0.3 * torch.randn(n, 3, generator=g)).argmax(1)
class Cubed(nn.Module):
    def forward(self, x):
        return x + x ** 3
def model():
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 3),
                         Cubed())
def accuracy(out, y):
    return (out.argmax(1) == y).double().mean()
task = Task(name="killed", model=model, loss=nn.functional.cross_entropy, train=data(320, 0),
            val=data(100, 1), test=data(100, 2), metrics={"accuracy": accuracy}, batch_size=4)
"""


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    (tmp_path / "task.py").write_text(TASK_FILE)
    return f"{tmp_path / 'task.py'}:task"


def start(task: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, task, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_bits_of_an_uninterrupted_population(
    tmp_path: Path, task_file: str
) -> None:
    with start(task_file, tmp_path / "whole") as process:
        process.communicate(timeout=120)
    assert {r.status for r in Result(tmp_path / "whole").runs} == {"done", "diverged"}
    dice = random.Random(4)
    for _ in range(6):
        with start(task_file, tmp_path / "cut") as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, 350)):
                process.stdout.readline()
            time.sleep(dice.uniform(0, 0.03))
            process.kill()
            process.communicate(timeout=60)
    with start(task_file, tmp_path / "cut") as process:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert os.listdir(tmp_path / "cut" / "checkpoints") == []


class StopAt(Silent):
    """Asks the race to stop at some step of some run."""

    def __init__(self, step: int) -> None:
        self.step: int | None = step
        self.notes: list[str] = []

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        if self.step is not None and step >= self.step:
            self.step = None
            os.kill(os.getpid(), signal.SIGINT)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("engine", ["population", "processes"])
def test_a_race_stopped_by_ctrl_c_resumes_to_the_same_bits(
    tmp_path: Path, task_file: str, engine: str
) -> None:
    task = tasks.load(task_file)
    more: dict[str, Any] = {"task_spec": task_file, "steps": 60, "epochs": None}
    race(tmp_path / "whole", task, engine, **more)
    slow = Pace(look=0.0, commit=1000.0, timing=0.0)
    with pytest.raises(StoppedError, match="steepest resume"):
        race(tmp_path / "cut", task, engine, observer=StopAt(13), pace=slow, **more)
    assert not Result(tmp_path / "cut").complete
    race(tmp_path / "cut", task, None, **more)  # the engine is on record
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_processes_give_the_bits_of_solo_and_a_killed_one_costs_one_retry(
    tmp_path: Path, task_file: str
) -> None:
    task = tasks.load(task_file)
    more: dict[str, Any] = {"task_spec": task_file, "steps": 60, "epochs": None}
    race(tmp_path / "solo", task, "solo", **more)

    crew: list[apart.Worker] = []
    asked: dict[int, apart.Worker] = {}  # the worker that each of our threads talks to
    hire, ask = apart.Worker.__init__, apart.Worker.ask

    def hire_seen(self: apart.Worker, *args: Any, **kwargs: Any) -> None:
        hire(self, *args, **kwargs)
        crew.append(self)

    def ask_seen(self: apart.Worker, *args: Any) -> Any:
        asked[threading.get_ident()] = self
        return ask(self, *args)

    class Murderer(Silent):
        victims = 1

        def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
            if run_id == "a1-s0" and 20 < step < total and self.victims:
                self.victims -= 1
                asked[threading.get_ident()].process.kill()

    before = threading.active_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart.Worker, "__init__", hire_seen)
        patch.setattr(apart.Worker, "ask", ask_seen)
        found = race(tmp_path / "apart", task, "processes", observer=Murderer(), **more)
    assert digest(tmp_path / "apart") == digest(tmp_path / "solo")
    assert kinds(found).count("worker_lost") == 1
    assert len(crew) == 3
    assert all(worker.process.poll() is not None for worker in crew)
    assert threading.active_count() == before


def test_a_run_that_kills_its_process_twice_fails_and_the_race_goes_on(tmp_path: Path) -> None:
    deadly = """def model():
    import os, sys
    there = "steepest.racing.worker" in " ".join(sys.orig_argv)
    if there and torch.initial_seed() == BAD:
        os.abort()
"""
    text = TASK_FILE.replace("def model():\n", deadly)
    from steepest.train.randomness import derive

    (tmp_path / "task.py").write_text(f"BAD = {derive(2, 'init')}\n{text}")
    spec = f"{tmp_path / 'task.py'}:task"
    found = race(
        tmp_path / "r", tasks.load(spec), "processes", ["adam(lr=0.01)"], task_spec=spec, seeds=3
    )
    assert [run.status for run in found.runs] == ["done", "done", "failed"]
    assert "killed by signal 6, twice" in str(found.runs[2].message)


def test_out_of_memory_halves_the_population_and_goes_on(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Population.advance

    def greedy(self: Population, n: int) -> Any:
        if len(self) > 2 and self.position > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB")
        return advance(self, n)

    monkeypatch.setattr(Population, "advance", greedy)
    found = race(tmp_path / "population", task, "population")
    assert kinds(found).count("out_of_memory") == 3  # 6 is 3 and 3, and each 3 is 2 and 1
    monkeypatch.undo()
    assert_same_race(found, race(tmp_path / "solo", task, None))


def test_a_population_is_cut_to_what_fits_into_memory(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "fitting", lambda each, device: 4)
    found = race(tmp_path, task, "population")
    with Ledger.read(tmp_path) as ledger:
        assert [len(group) for group in ledger.meta()["engine"]["groups"]] == [3, 3]
    assert any("4 runs fit into memory" in event["text"] for event in found.events)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class Shared(nn.Module):
    """Draws noise in Python, which all members of a population would share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + random.random() if self.training else 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [(Branching, "data-dependent"), (Shared, "are not those it has alone")],
)
def test_what_cannot_be_batched_is_found_out_and_the_reason_is_on_record(
    tmp_path: Path,
    make_task: Make,
    monkeypatch: pytest.MonkeyPatch,
    model: Callable[[], nn.Module],
    words: str,
) -> None:
    task = make_task(model=model)
    with pytest.raises(UnsupportedError, match=words):
        race(tmp_path / "asked", task, "population")
    monkeypatch.setattr(probe, "_SMALL", 0.0)
    found = race(tmp_path / "auto", task, "auto")
    texts = [e["text"] for e in found.events if e["kind"] == "not_batched"]
    assert any(words in text for text in texts)
    assert any("engine: solo" in e["text"] for e in found.events)
    assert found.complete


def test_an_arm_that_cannot_be_batched_runs_alone_beside_a_population(
    tmp_path: Path, task: Task
) -> None:
    arms = ["sgd(lr=0.1)", "torch.optim:LBFGS(lr=0.1)", "adam(lr=0.01)"]
    found = race(tmp_path / "population", task, "population", arms)
    (text,) = [e["text"] for e in found.events if e["kind"] == "not_batched"]
    assert "torch.optim:LBFGS(lr=0.1) cannot train in a population" in text
    with Ledger.read(tmp_path / "population") as ledger:
        assert ledger.meta()["engine"]["groups"] == [["a0-s0", "a2-s0", "a0-s1", "a2-s1"]]
    assert_same_race(found, race(tmp_path / "solo", task, None, arms), rtol=1e-3)


def test_a_metric_that_raises_in_a_population_fails_its_runs_alone(
    tmp_path: Path, make_task: Make
) -> None:
    calls = count()

    def fickle(outputs: Tensor, targets: Tensor) -> float:
        if next(calls) > 20:
            raise ValueError("no luck today")
        return 1.0

    found = race(tmp_path, make_task(metrics={"fickle": fickle}), "population", eval_every=2)
    assert {run.status for run in found.runs} == {"failed"}
    assert "not_batched" in kinds(found)
    assert all("no luck today" in str(run.message) for run in found.runs)


@pytest.mark.slow
def test_the_fastest_engine_is_measured_recorded_and_kept(
    tmp_path: Path, task_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SMALL", "_WORKERS_PAY"):
        monkeypatch.setattr(probe, name, 0.0)
    torch.set_num_threads(2)  # the fixture sets it back
    task = tasks.load(task_file)
    more: dict[str, Any] = {"task_spec": task_file, "steps": 200, "epochs": None, "seeds": 8}
    observer = StopAt(20)
    with pytest.raises(StoppedError):
        race(tmp_path, task, "auto", observer=observer, pace=Pace(look=0, timing=0), **more)
    texts = [e["text"] for e in Result(tmp_path).events if e["kind"] == "engine_timing"]
    tried = {text.split(":")[0].split(" of")[0].split(" with")[0] for text in texts}
    assert tried == {"solo", "populations", "2 processes"}
    with Ledger.read(tmp_path) as ledger:
        chosen = ledger.meta()["engine"]["name"]
    other = "solo" if chosen == "population" else "population"
    with pytest.raises(LedgerError, match=f"was begun with engine '{chosen}'"):
        race(tmp_path, task, other, **more)
    assert race(tmp_path, task, "auto", **more).complete


def test_how_passes_are_carried_out_is_on_record_and_stays_after_an_interruption(
    tmp_path: Path, task: Task
) -> None:
    more: dict[str, Any] = {"steps": 320, "epochs": None}
    whole = race(tmp_path / "whole", task, "population", **more)
    with pytest.raises(StoppedError):
        race(tmp_path / "parts", task, "population", observer=StopAt(20), **more)
    parts = race(tmp_path / "parts", task, "population", **more)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    for result in (whole, parts):
        (text,) = [e["text"] for e in result.events if e["kind"] == "passes"]
        assert text == "passes of populations are carried out in C++, each member's by one thread"
    short = race(tmp_path / "short", task, "population")
    (text,) = [e["text"] for e in short.events if e["kind"] == "passes"]
    assert text.endswith("as the model is written: recording a pass pays from 300 steps on")


def test_one_run_alone_may_be_a_population_too(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SMALL", 0.0)
    found = race(tmp_path, task, "auto", ["sgd(lr=0.01)"], seeds=1, epochs=None, steps=320)
    texts = [e["text"] for e in found.events if e["kind"] == "engine_timing"]
    assert any(text.startswith("populations of 1") for text in texts), texts


def test_a_small_race_is_not_worth_measuring(tmp_path: Path, task: Task) -> None:
    found = race(tmp_path, task, "auto")
    (text,) = [e["text"] for e in found.events if e["kind"] == "engine"]
    assert "too little to measure others" in text


def test_an_unknown_engine_and_an_impossible_one_are_refused(
    tmp_path: Path, make_task: Make
) -> None:
    with pytest.raises(InputError, match="unknown engine 'populations'; did you mean"):
        check_engine("populations")
    task = make_task(loss=lambda outputs, targets: F.cross_entropy(outputs, targets).abs())
    with pytest.raises(UnsupportedError, match="the loss is a lambda, which another process"):
        race(tmp_path, task, "processes")


def test_a_process_whose_race_was_killed_ends_without_a_traceback() -> None:
    ours, there = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "steepest.racing.worker", str(there.fileno())],
        pass_fds=[there.fileno()],
        stderr=subprocess.PIPE,
    )
    there.close()
    ours.send(("evaluate", ("val",)))  # it has no run yet: its answer finds nobody
    ours.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
