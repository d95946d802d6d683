"""Whether runs come out in a population as they do alone: found out by trying a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steepest.train.population import Member, Population, why_not
from steepest.train.precision import FLOAT32
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["why_not_together"]

_STEPS = 3
# How far the losses may be apart, relative. On the CPU they differed by 2e-7 in float32, and by at
# most 3e-3 in bf16 (the ConvNet of the task `mnist`), as far as bf16 is from float32 there. TF32
# rounds by an eighth of what bf16 does.
_AGREE = {"float32": 1e-3, "tf32": 3e-3, "bf16": 2e-2}


def why_not_together(
    task: Task,
    members: Sequence[Member],
    *,
    steps: int,
    batch_size: int | None = None,
    device: str = "cpu",
    precision: str = FLOAT32,
) -> str | None:
    """Train two members for three steps, and each of them alone; None if they agree.

    They have to agree in float32 whatever precision is asked for: what members share that they
    should not may be smaller than what bf16 rounds.

    Args:
        task: What is trained.
        members: Of which the first two are tried.
        steps: How long the runs will be.
        batch_size: Default: the task's.
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, ``tf32`` or ``bf16``.

    Returns:
        Otherwise what keeps them from being trained as one population.
    """
    for each in dict.fromkeys((FLOAT32, precision)):
        reason = _why_not(
            task, members, steps=steps, batch_size=batch_size, device=device, precision=each
        )
        if reason is not None:
            return reason if each == FLOAT32 else f"in {each}, {reason}"
    return None


def _why_not(
    task: Task,
    members: Sequence[Member],
    *,
    steps: int,
    batch_size: int | None,
    device: str,
    precision: str,
) -> str | None:
    pair = [*members[:2], *members[:1]][:2]
    size = batch_size or task.batch_size
    settings: dict[str, Any] = {
        "steps": steps, "batch_size": batch_size, "device": device, "precision": precision
    }  # fmt: skip
    try:
        population = Population(task, pair, **settings)
        chunks = population.advance(_STEPS)
        for member, chunk in zip(pair, chunks, strict=True):
            alone = SoloRun(
                task,
                optimizer=member.optimizer,
                schedule=member.schedule,
                seed=member.seed,
                **settings,
            )
            expected = alone.advance(_STEPS).loss
            if len(chunk.loss) != len(expected):
                return "it diverges there at another step than alone"
            finite = np.isfinite(expected)
            off = np.abs(chunk.loss - expected)[finite]
            scale = np.maximum(np.abs(expected[finite]), 1e-3)
            if (off > _AGREE[precision] * scale).any():
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
