"""A model's numbers on the splits, and models filled with weights of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steepest.train.batchnorm import recompute_batch_norm
from steepest.train.data import open_stream
from steepest.train.ensembles import predict, score
from steepest.train.randomness import isolated
from steepest.train.task import Task

__all__ = ["fill", "measure", "remeasure_batch_norm"]

_MEASURED = 10_000  # examples that batch norm is measured with; its statistics need no more


def measure(
    task: Task, model: nn.Module, splits: Iterable[str], *, device: str
) -> dict[str, float]:
    """``{"test_loss": …, "test_accuracy": …}`` of a model in eval mode."""
    found: dict[str, float] = {}
    for split in splits:
        outputs, targets = predict(task, split, model.eval(), device=torch.device(device))
        for name, value in score(task, outputs, targets).items():
            found[f"{split}_{name}"] = value
    return found


@torch.no_grad()
def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Write weights into a model, by name; what is not named stays as it is."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in weights.items():
        named[name].copy_(tensor)
    return model


def remeasure_batch_norm(
    task: Task, model: nn.Module, *, seed: int, batch_size: int, device: str
) -> nn.Module:
    """Measure batch norm for the weights as they are, in the batches that the run began with."""
    place = torch.device(device)

    def inputs() -> Iterator[Any]:
        stream = open_stream(
            task.train,
            seed=seed,
            batch_size=batch_size,
            default=task.batch_size,
            device=place,
            where=f"task '{task.name}': train",
        )
        for step in range(min(stream.steps_per_epoch, math.ceil(_MEASURED / batch_size))):
            yield stream.batch(step)[0]

    with isolated(place):
        recompute_batch_norm(model, inputs())
    return model.eval()
