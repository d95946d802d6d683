"""A task that trains in milliseconds, and the whole way from a plan to a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from steepest.racing.folder import open_race
from steepest.racing.observer import Observer, Pace
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.train.task import Task

SGD = "torch.optim:SGD(lr=0.1)"
ADAM = "torch.optim:Adam(lr=0.01)"
QUICK = Pace(commit=0.0, timing=0.0)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).double().mean())


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.Dropout(0.2), nn.ReLU(), nn.Linear(12, 3))


def _data(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    noise = torch.randn(n, 3, generator=generator)
    return x, (x[:, :3] * 2 + x[:, 3:] + noise).argmax(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices go faster without a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    def make(**changes: Any) -> Task:
        parts: dict[str, Any] = {
            "name": "tiny",
            "model": model,
            "loss": cross_entropy,
            "train": _data(160, 0),
            "val": _data(90, 1),
            "test": _data(110, 2),
            "metrics": {"accuracy": accuracy},
            "batch_size": 16,
        }
        return Task(**{**parts, **changes})

    return make


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task()


@pytest.fixture
def race(task: Task) -> Callable[..., Result]:
    """Plan, open, execute and read: ``race(folder, arms, task=…, observer=…, seeds=…, …)``."""

    def run(
        folder: Path,
        arms: Any = (SGD, ADAM),
        *,
        task: Task = task,
        observer: Observer | None = None,
        pace: Pace = QUICK,
        fresh: bool = False,
        **options: Any,
    ) -> Result:
        options = {"seeds": 2, "epochs": 2, **options}
        settled = plan(task, list(arms) if isinstance(arms, tuple) else arms, **options)
        with open_race(folder, settled, fresh=fresh, command="pytest") as ledger:
            execute(ledger, settled, task, observer=observer, pace=pace)
        return Result(folder)

    return run


TASK_FILE = """
import torch
from torch import nn
from steepest.train.task import Task
def data(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    return x, (x[:, :3] + 0.3 * torch.randn(n, 3, generator=g)).argmax(1)
def model():
    return nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Linear(16, 3))
def accuracy(out, y):
    return (out.argmax(1) == y).double().mean()
task = Task(name="in-a-file", model=model, loss=nn.functional.cross_entropy, train=data(160, 0),
            val=data(50, 1), test=data(50, 2), metrics={"accuracy": accuracy}, batch_size=8)
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A file with a task in it, for other processes."""
    path = tmp_path / "task.py"
    path.write_text(TASK_FILE)
    return path
