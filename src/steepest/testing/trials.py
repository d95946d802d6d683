"""Parameters and gradients that are hard on an optimizer, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from steepest.rules import Rule

__all__ = ["Trial", "hard_values", "train", "trial"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """Where several tensors start, and the gradients and rates that they meet.

    Attributes:
        params: The tensors at the start.
        grads: For every step the gradient of every tensor, None where it has none.
        rates: For every step the factor on the learning rate.
    """

    params: list[Array]
    grads: list[list[Array | None]]
    rates: list[float]


def trial(shapes: Sequence[tuple[int, ...]], *, steps: int = 100, seed: int = 0) -> Trial:
    """Gradients whose size changes by orders of magnitude, a tenth of them missing."""
    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    grads: list[list[Array | None]] = [
        [
            None
            if rng.random() < 0.1
            else np.asarray(np.exp(rng.normal()) * rng.normal(size=shape))
            for shape in shapes
        ]
        for _ in range(steps)
    ]
    return Trial(params, grads, [float(1.1 + np.sin(step / 7)) for step in range(steps)])


def hard_values(rule: Rule) -> dict[str, float]:
    """Values at which no term of the formula is too small to be seen.

    >>> from steepest import rules
    >>> hard_values(rules.get("adam"))
    {'eps': 0.01, 'weight_decay': 0.1}
    """
    hard = {"eps": 1e-2, "weight_decay": 0.1, "momentum": 0.9}
    return {name: value for name, value in hard.items() if name in rule.hyperparameters}


def train(
    optimizer: Optimizer, given: Trial, *, start: int = 0, stop: int | None = None
) -> list[list[Any]]:
    """Take the steps of a trial, changing the learning rate; returns the tensors after each."""
    params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    base = optimizer.defaults["lr"]
    path = []
    for step in range(len(given.grads))[start:stop]:
        for group in optimizer.param_groups:
            group["lr"] = base * given.rates[step]
        for p, g in zip(params, given.grads[step], strict=True):
            p.grad = None
            if g is not None:
                p.grad = torch.empty_like(p).copy_(torch.from_numpy(g))
        optimizer.step()
        path.append([p.detach().double().numpy(force=True).copy() for p in params])
    return path
