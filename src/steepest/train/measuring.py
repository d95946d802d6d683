"""What several members of a population score on a split, computed together.

M      members
B      examples in a batch
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap  # type: ignore[attr-defined,unused-ignore]

from steepest.train.data import eval_batches, map_tensors, tensors_of
from steepest.train.solo import concatenate
from steepest.train.task import Task

__all__ = ["measure"]

Call = Callable[[Any, Any, Any, Any], tuple[Tensor, Any]]
"""Parameters and buffers of one member, inputs, targets: its loss and outputs."""


def measure(
    task: Task,
    call: Call,
    params: dict[str, Tensor],
    buffers: dict[str, Tensor],
    count: int,
    *,
    split: str,
    device: torch.device,
) -> list[dict[str, float]]:
    """Of every member ``{"loss": …, metric: …}`` over a split.

    Args:
        task: Whose split and metrics.
        call: Computes one member's loss.
        params: By name ``[M, ...]``.
        buffers: By name ``[M, ...]``.
        count: M.
        split: ``train``, ``val`` or ``test``.
        device: Where the members lie.
    """
    total = np.zeros(count)
    examples = 0
    outputs: list[Any] = []
    targets: list[Any] = []
    for x, y in eval_batches(
        task.split(split),
        batch_size=task.eval_batch_size,
        device=device,
        where=f"task '{task.name}': {split}",
    ):

        def one(params: Any, buffers: Any, x: Any = x, y: Any = y) -> tuple[Tensor, Any]:
            return call(params, buffers, x, y)

        loss_M, out = vmap(one)(params, buffers)
        n = len(next(iter(tensors_of(y) or tensors_of(x))))
        total, examples = total + loss_M.double().cpu().numpy() * n, examples + n
        if task.metrics:
            outputs.append(out)
            targets.append(y)
    results = [{"loss": float(loss) / examples} for loss in total]
    if task.metrics:
        joined, wanted = concatenate(outputs, dim=1), concatenate(targets)
        for i, numbers in enumerate(results):
            own = map_tensors(operator.itemgetter(i), joined)
            numbers.update(task.measure(own, wanted))
    return results
