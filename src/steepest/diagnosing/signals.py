"""What a noisy curve says, with how sure: levels, trends, noise, and when it got somewhere.

Noise is measured by second differences, which a smooth curve does not have: for independent noise
of variance s², E[(y₋₁ − 2y₀ + y₊₁)²] = 6s² (Gasser, Sroka & Jennen-Steinmetz, Biometrika 73,
1986). Values are averaged over blocks, so that neighbours are nearly independent (batch means);
trends are Theil-Sen slopes with Sen's interval from Kendall's distribution (Sen, JASA 63, 1968).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = [
    "NEVER",
    "Blocks",
    "Crossing",
    "Level",
    "Trend",
    "blocks",
    "crossing",
    "level",
    "noise",
    "trend",
]

Array = npt.NDArray[np.float64]

TRIM = 0.01  # of the largest second differences: a single spike is not noise


@dataclass(frozen=True)
class Level:
    """The mean over a stretch of a curve.

    Attributes:
        mean: Of its values.
        error: Standard error of the mean, from the noise of single values.
        count: Values in it.
    """

    mean: float
    error: float
    count: int


@dataclass(frozen=True)
class Trend:
    """A slope.

    Attributes:
        slope: Change of the value per unit of position; NaN where too few values are there.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    slope: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossing:
    """When a falling curve passed a level.

    Attributes:
        at: Position; NaN if it never did.
        low: The earliest position that the noise allows.
        high: The latest.
    """

    at: float
    low: float
    high: float


NEVER = Crossing(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Blocks:
    """A curve in blocks of consecutive values.

    Attributes:
        at: Mean position of each.
        mean: Mean value of each.
        error: Standard error of each mean.
    """

    at: Array
    mean: Array
    error: Array

    def __len__(self) -> int:
        return len(self.at)


def noise(y: Array) -> float:
    """Standard deviation of single values around a smooth curve; NaN below three values.

    >>> rng = np.random.default_rng(0)
    >>> round(noise(np.linspace(5, 1, 2000) ** 2 + rng.normal(0, 0.3, 2000)), 1)
    0.3
    """
    if len(y) < 3:
        return math.nan
    squares = np.sort((y[:-2] - 2 * y[1:-1] + y[2:]) ** 2) / 6
    kept = squares[: len(squares) - int(TRIM * len(squares))]
    return float(math.sqrt(kept.mean()))


def level(x: Array, y: Array, low: float, high: float) -> Level:
    """The mean of the values whose positions lie in ``[low, high]``, or of the nearest one.

    >>> level(np.arange(10.0), np.arange(10.0), 2, 4).mean
    3.0
    """
    inside = (x >= low) & (x <= high)
    if not inside.any():
        inside[np.argmin(np.abs(x - (low + high) / 2))] = True
    first, last = np.flatnonzero(inside)[[0, -1]]
    count = int(last - first + 1)
    around = max(0, 9 - count)  # noise needs some values, though the mean does not
    s = noise(y[max(0, first - around) : last + 1 + around])
    error = 0.0 if math.isnan(s) else s / math.sqrt(count)
    return Level(float(y[first : last + 1].mean()), error, count)


def blocks(x: Array, y: Array, count: int) -> Blocks:
    """At most ``count`` blocks of (nearly) equally many consecutive values.

    >>> blocks(np.arange(6.0), np.array([1.0, 3, 5, 5, 2, 0]), 3).mean.tolist()
    [2.0, 5.0, 1.0]
    """
    count = min(count, len(x))
    edges = np.linspace(0, len(x), count + 1).round().astype(int)
    found = [level(x, y, float(x[a]), float(x[b - 1])) for a, b in itertools.pairwise(edges)]
    at = np.array([x[a:b].mean() for a, b in itertools.pairwise(edges)])
    return Blocks(at, np.array([f.mean for f in found]), np.array([f.error for f in found]))


def trend(x: Array, y: Array, *, most: int = 24) -> Trend:
    """The slope of a curve, over means of at most ``most`` blocks; at least 5 values are needed.

    >>> found = trend(np.arange(100.0), 3 - 0.01 * np.arange(100.0))
    >>> round(found.slope, 4), round(found.high, 4)
    (-0.01, -0.01)
    """
    if len(x) < 5:
        return Trend(math.nan, -math.inf, math.inf)
    parts = blocks(x, y, most)
    fit = stats.theilslopes(parts.mean, parts.at, alpha=0.95)
    return Trend(float(fit.slope), float(fit.low_slope), float(fit.high_slope))


def crossing(parts: Blocks, value: float) -> Crossing:
    """When the curve first fell below a value and the next block stayed there.

    The interval is that of the curve moved up and down by two standard errors.
    """

    def first(means: Array) -> float:
        under = means < value
        stays = under[:-1] & under[1:]
        return float(parts.at[int(np.argmax(stays))]) if stays.any() else math.nan

    low, high = first(parts.mean - 2 * parts.error), first(parts.mean + 2 * parts.error)
    return Crossing(first(parts.mean), low, high)
