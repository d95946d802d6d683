"""What all tests share: threads, and a task small enough to be raced in a second."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import steepest


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    """Two test processes on two cores: one thread each, or they wait for one another."""
    torch.set_num_threads(1)


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return (outputs.argmax(1) == targets).double().mean().item()


@pytest.fixture
def small_task() -> steepest.Task:
    """Two classes of points in six dimensions; 20 steps an epoch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(960, 6, generator=generator)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).long()
    return steepest.Task(
        name="small",
        model=make_model,
        loss=F.cross_entropy,
        train=(x[:640], y[:640]),
        val=(x[640:800], y[640:800]),
        test=(x[800:], y[800:]),
        metrics={"accuracy": accuracy},
        batch_size=32,
    )
