"""Tasks that train in milliseconds."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from steepest.studies import training
from steepest.tasks.mnist import accuracy
from steepest.train.task import Task


def data(n, seed, classes=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    noise = torch.randn(n, classes, generator=generator)
    return x, (x[:, :classes] * 2 + noise).argmax(1)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_task():
    def make(**changes):
        parts = {
            "name": "tiny",
            "model": lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)),
            "loss": cross_entropy,
            "train": data(160, 0),
            "val": data(90, 1),
            "test": data(110, 2),
            "metrics": {"accuracy": accuracy},
            "batch_size": 16,
        }
        return Task(**{**parts, **changes})

    return make


@pytest.fixture
def task(make_task):
    return make_task()


@pytest.fixture
def stop_after(monkeypatch):
    """A watcher that presses Ctrl-C when so many steps of all runs are done."""
    monkeypatch.setattr(training, "_LOOK", 0.0)
    monkeypatch.setattr(training, "_COMMIT", 1e9)

    class Presses:
        def __init__(self, steps):
            self.steps = steps

        def advanced(self, done, total, text):
            if done >= self.steps and self.steps:
                self.steps = 0
                os.kill(os.getpid(), signal.SIGINT)

        def note(self, text):
            pass

    return Presses
