"""Whether runs come out in a population as they do alone: found out by trying a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steepest.train.population import Member, Population, why_not
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["why_not_together"]

_STEPS = 3
_AGREE = 1e-3  # relative; three steps of one run in float32 differ by 1e-6


def why_not_together(
    task: Task,
    members: Sequence[Member],
    *,
    steps: int,
    batch_size: int | None = None,
    device: str = "cpu",
) -> str | None:
    """Train two members for three steps, and each of them alone; None if they agree.

    Args:
        task: What is trained.
        members: Of which the first two are tried.
        steps: How long the runs will be.
        batch_size: Default: the task's.
        device: ``cpu`` or ``cuda``.

    Returns:
        Otherwise what keeps them from being trained as one population.
    """
    pair = [*members[:2], *members[:1]][:2]
    size = batch_size or task.batch_size
    try:
        population = Population(task, pair, steps=steps, batch_size=batch_size, device=device)
        chunks = population.advance(_STEPS)
        for member, chunk in zip(pair, chunks, strict=True):
            alone = SoloRun(
                task,
                optimizer=member.optimizer,
                schedule=member.schedule,
                seed=member.seed,
                steps=steps,
                batch_size=batch_size,
                device=device,
            )
            expected = alone.advance(_STEPS).loss
            if len(chunk.loss) != len(expected):
                return "it diverges there at another step than alone"
            finite = np.isfinite(expected)
            off = np.abs(chunk.loss - expected)[finite]
            scale = np.maximum(np.abs(expected[finite]), 1e-3)
            if (off > _AGREE * scale).any():
                return (
                    f"its losses there ({_numbers(chunk.loss)}) are not those it has alone "
                    f"({_numbers(expected)}); the model or the optimizer keeps or draws something "
                    "that members would share"
                )
        population.try_evaluation(size)
    except Exception as error:  # noqa: BLE001  a stranger's code; alone it may well work
        return why_not(error)
    return None


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
