"""Learning curves whose truth is known, because they are formulas plus noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from steepest.diagnosing import Curves, Series

STEPS = 1000
EVALS = 25


def made(
    train: Callable[[np.ndarray], np.ndarray],
    *,
    val: Callable[[np.ndarray], np.ndarray] | None = None,
    lr: Callable[[np.ndarray], np.ndarray] | None = None,
    noise: float = 0.03,
    val_noise: float = 0.003,
    steps: int = STEPS,
    seed: int = 0,
    **more: Any,
) -> Curves:
    """Curves of ``train(share of the run)`` plus noise; ``val`` is evaluated 25 times."""
    rng = np.random.default_rng(seed)
    at = np.arange(1, steps + 1)
    where = np.linspace(0, steps, EVALS + 1).round()[1:]
    return Curves(
        name=f"made-{seed}",
        train_loss=Series(at, train(at / steps) + rng.normal(0, noise, steps)),
        val_loss=None
        if val is None
        else Series(where, val(where / steps) + rng.normal(0, val_noise, EVALS)),
        lr=None if lr is None else Series(at, lr(at / steps)),
        **more,
    )


def cosine(share: np.ndarray) -> np.ndarray:
    """A rate that goes to zero."""
    return 0.5 * (1 + np.cos(np.pi * share))


def constant(share: np.ndarray) -> np.ndarray:
    """A rate that stays."""
    return np.ones_like(share)


def healthy(share: np.ndarray) -> np.ndarray:
    """Fast at first, then slower, and over at the end."""
    return 2.2 * np.exp(-share * 14) + 0.08 + 0.1 * (1 - share) ** 3
