r"""The classical range test: one run whose learning rate grows in every step.

Smith, "Cyclical learning rates for training neural networks", arXiv:1506.01186. With N steps
between low and high the rate of step s is :math:`low\,(high/low)^{s/(N-1)}`.

It needs one run and no copies, so it works for whatever trains. What it shows is a mixture: each
loss follows from all smaller rates before it, and a blow-up takes some steps to be seen, so the
edge that it finds is an upper bound.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.sweeping.analysis import (
    Findings,
    Floats,
    edge_of,
    notes_of,
    suggest,
    unstable_runs,
)

__all__ = ["BLOWN", "analyse_growing", "growing_rates"]

BLOWN = 4.0
"""A growing run ends when its loss is so many times its start, as fastai's does with its best."""

_BINS = 80  # into which a long run's steps are put together


def growing_rates(low: float, high: float, steps: int) -> Floats:
    """The rate of every step.

    >>> growing_rates(1e-4, 1.0, 5).round(6).tolist()
    [0.0001, 0.001, 0.01, 0.1, 1.0]
    """
    return np.geomspace(low, high, steps)


def analyse_growing(
    rates_N: npt.ArrayLike, losses_SN: npt.ArrayLike, *, level: float = 0.95
) -> Findings:
    """What runs with a growing rate say.

    Args:
        rates_N: Rate of every step, rising.
        losses_SN: Loss of every step, by seed; not-a-number after a run's end.
        level: Of the intervals.

    Raises:
        InputError: For fewer than 20 steps.
    """
    rates, losses = np.asarray(rates_N, float), np.asarray(losses_SN, float)
    if losses.ndim != 2 or losses.shape[1] != len(rates) or len(rates) < 20:
        raise InputError(
            f"a growing run needs at least 20 steps, and one loss for each; got {len(rates)} rates "
            f"and losses {list(losses.shape)}"
        )
    bins = np.array_split(np.arange(len(rates)), min(len(rates), _BINS))
    middle = np.array([float(np.exp(np.log(rates[b]).mean())) for b in bins])
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([losses[:, b].mean(1) for b in bins])
    ends = np.where(np.isfinite(ends), ends, np.inf)
    first = max(4, len(rates) // 10)  # at such small rates a run stands still
    calm = losses[:, :first]
    start = np.where(np.isfinite(calm).all(1), calm.mean(1), calm[:, 0])
    if not np.isfinite(start).all():
        raise InputError(
            "the loss is not finite from the very first steps on; check the model and the data, "
            "or begin with a lower rate"
        )
    variance = float(0.5 * np.mean(np.diff(calm, axis=1) ** 2)) if np.isfinite(calm).all() else 0.0
    noise = float(np.sqrt(variance / len(bins[-1])))
    unstable = unstable_runs(ends, start, noise)
    edge = edge_of(middle, unstable, level)
    suggestion, grid, fit, slope = suggest(middle, ends, unstable, start, noise, level)
    notes = (
        "The rate grew within one run: a blow-up takes some steps to be seen, so the edge is an "
        "upper bound.",
        *notes_of(middle, edge, suggestion, len(start)),
    )
    return Findings(
        middle, ends, start, unstable, noise, grid, fit, slope, edge, suggestion, level, notes
    )
