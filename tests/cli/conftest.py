"""A task file as a user would write it, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from steepest.cli import main

TASK = """
import torch
import torch.nn.functional as F
from torch import nn
import steepest

generator = torch.Generator().manual_seed(0)
x = torch.randn(240, 5, generator=generator)
y = (x[:, 0] > 0).long()


def make_model():
    return nn.Linear(5, 2)


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()


task = steepest.Task(
    name="points", model=make_model, loss=F.cross_entropy,
    train=(x[:160], y[:160]), val=(x[160:200], y[160:200]), test=(x[200:], y[200:]),
    metrics={"accuracy": accuracy}, batch_size=16,
)
"""


class Output(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Steepest = Callable[..., Output]


@pytest.fixture
def steepest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Steepest:
    """Run a command line as the console script does."""

    def run(*words: object) -> Output:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["steepest", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Output(code if isinstance(code, int) else int(bool(code)), out, err)

    return run


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A file with a good task in it."""
    path = tmp_path / "my_task.py"
    path.write_text(TASK)
    return path
