"""Which trial is the best, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steepest.errors import InputError

__all__ = ["Selection", "best", "ranked"]

Scores = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Selection:
    """The trial that was chosen.

    Attributes:
        index: Its number among the trials, from 0.
        mean: Of its scores that did not fail; NaN if all of them failed.
        spread: Standard deviation (n - 1) over its tuning seeds; NaN with fewer than two.
        failed: How many of its runs failed; then every trial had a run that failed.
        margin: How much better its mean is than that of the next best; NaN without one.

    Where `margin` is well below `spread`, tuning has not told the two apart: choosing the best of
    many noisy scores finds a lucky one, which is why its final numbers come from fresh seeds.
    """

    index: int
    mean: float
    spread: float
    failed: int
    margin: float


def best(scores: Scores, *, higher_is_better: bool) -> Selection:
    """The best trial by the mean of its scores over the tuning seeds.

    Args:
        scores: Per trial its scores at the end of its schedule, one per tuning seed. None, NaN
            and infinities are failed or diverged runs.
        higher_is_better: Which side is good.

    Returns:
        The selection: a trial without failed runs before all with them, then fewer failures, then
        the better mean, then the lower number.

    Raises:
        InputError: For no trials, or a trial without a run.

    >>> best([[0.90, 0.92], [0.95, 0.97], [0.99, None]], higher_is_better=True)
    Selection(index=1, mean=0.96, spread=0.01414..., failed=0, margin=0.04999...)
    """
    order = ranked(scores, higher_is_better=higher_is_better)
    index = order[0]
    alive = _alive(scores[index])
    mean = _mean(alive)
    spread = math.nan
    if len(alive) > 1:
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in alive) / (len(alive) - 1))
    failed = len(scores[index]) - len(alive)
    margin = math.nan
    if len(order) > 1 and not failed and len(_alive(scores[order[1]])) == len(scores[order[1]]):
        margin = abs(mean - _mean(_alive(scores[order[1]])))
    return Selection(index, mean, spread, failed, margin)


def ranked(scores: Scores, *, higher_is_better: bool) -> tuple[int, ...]:
    """The numbers of all trials, from the best to the worst, as `best` orders them.

    >>> ranked([[3.0], [1.0], [None], [1.0]], higher_is_better=False)
    (1, 3, 0, 2)
    """
    if not scores:
        raise InputError("there are no trials to choose from")
    if not all(scores):
        empty = [bool(s) for s in scores].index(False)
        raise InputError(f"trial {empty} has no run to judge it by")

    def key(index: int) -> tuple[int, float, int]:
        alive = _alive(scores[index])
        mean = _mean(alive)
        loss = math.inf if math.isnan(mean) else -mean if higher_is_better else mean
        return len(scores[index]) - len(alive), loss, index

    return tuple(sorted(range(len(scores)), key=key))


def _alive(scores: Sequence[float | None]) -> list[float]:
    return [float(x) for x in scores if x is not None and math.isfinite(x)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
