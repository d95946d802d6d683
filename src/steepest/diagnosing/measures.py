"""The numbers on which findings are decided; what decides is in `steepest.diagnosing.judging`.

Fractions of the run are from 0 (first value) to 1 (last). Losses are compared with a yardstick:
the loss of the best constant prediction where it is known, the loss at the start otherwise.
Whatever cannot be measured is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from steepest.diagnosing.curves import Curves, Series
from steepest.diagnosing.signals import (
    NEVER,
    Blocks,
    Crossing,
    blocks,
    crossing,
    level,
    noise,
    trend,
)

__all__ = ["Decay", "Flatness", "Gain", "Measures", "Rise", "measure"]

Array = npt.NDArray[np.float64]

BLOCKS = 50  # of a whole curve; each is 2 % of the run
FINE = 200  # blocks where a time is looked for
LONGER = math.log(1.5)  # projections are for half as many steps again
_BEFORE = ((0.25, 0.5), (0.75, 1.0))  # of the time until the drop: what its trend is read from
FLOOR = 0.02  # of the yardstick: below it, relative changes of a loss are of no consequence


@dataclass(frozen=True)
class Rise:
    """How far a loss climbed.

    Attributes:
        first_not_finite: Position of the first value that is NaN or infinite.
        peak: Highest running median of five values over the yardstick.
        peak_at: Where it first stood over the start by half of that.
        peak_errors: Its height over the start in deviations of single values late in the run.
        back: Of what had been gained, how much was lost again and for good or for long.
        back_at: Where that began.
    """

    first_not_finite: float = math.nan
    peak: float = math.nan
    peak_at: float = math.nan
    peak_errors: float = math.nan
    back: float = math.nan
    back_at: float = math.nan


@dataclass(frozen=True)
class Flatness:
    """Whether the second half of a run got anywhere.

    Attributes:
        fall: From the middle (40 to 65 %) to the end (last 25 %), as a part of the level.
        high: Upper end of its 95 % interval.
        low: Lower end.
        since: Position from which the loss lies within the tolerance of its end.
    """

    fall: float = math.nan
    high: float = math.nan
    low: float = math.nan
    since: float = math.nan


@dataclass(frozen=True)
class Gain:
    """What half as many steps again would bring, if the loss goes on falling with log(steps).

    Attributes:
        mean: As a part of the level at the end.
        low: Lower end of its 95 % interval.
        since: Where the stretch begins from which it is computed.
    """

    mean: float = math.nan
    low: float = math.nan
    since: float = math.nan


@dataclass(frozen=True)
class Decay:
    """What a drop of the learning rate did.

    Attributes:
        at: Where the rate fell to a tenth of its largest value for good.
        share: The same as a fraction of the run.
        predicted: What the trend before the drop promised until the end, part of the level there.
        predicted_low: Lower end of its 95 % interval.
        kept: What came, as a part of what the trend promised.
        factor: The rate after it over the largest one.
    """

    at: float = math.nan
    share: float = math.nan
    predicted: float = math.nan
    predicted_low: float = math.nan
    kept: float = math.nan
    factor: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Everything that is measured on one run.

    Attributes:
        points: Finite values of the curve that is looked at.
        val_points: Of the validation loss.
        start: Loss at the start.
        start_known: The record begins with the first batches, or a baseline is given.
        yard: The yardstick.
        final: Loss over the last tenth.
        descent: From the start to the lowest block.
        fall: What the run gained, as a part of the yardstick, in the better of its last two
            tenths: on the baseline, or on the start as far as the noise there allows to say so.
        noise: Deviation of single values in the second half, as a part of the descent.
        val_noise: The same of the validation loss.
        rise: See `Rise`.
        slow: When a fifth of the descent was done.
        slow_share: The same as a fraction of the run.
        slow_bend: Which part of that fifth had come in half that time: 0.46 for a straight line,
            more where the fall slows down, near 0 where it was flat before it fell.
        slow_bend_high: Upper end of its 95 % interval.
        slow_rate: The rate at that time over the largest one.
        flat: See `Flatness`.
        val_flat: The same of the validation loss.
        gain: See `Gain`.
        val_gain: The same of the validation loss.
        decay: See `Decay`.
        rate_left: Rate over the last twentieth over the largest one.
        gap: Validation minus training loss over the last tenth, as a part of the descent.
        gap_ratio: Validation over training loss there.
        val_final: Validation loss over the last tenth.
        val_rise: From its lowest (smoothed) value to the end, as a part of that value.
        val_rise_errors: The same in standard errors.
        val_best: Where the validation loss was lowest.
        level: The lower of both losses at the end, as a part of the yardstick.
    """

    points: int
    val_points: int
    start: float = math.nan
    start_known: bool = False
    yard: float = math.nan
    final: float = math.nan
    descent: float = math.nan
    fall: float = math.nan
    noise: float = math.nan
    val_noise: float = math.nan
    rise: Rise = Rise()
    slow: Crossing = NEVER
    slow_share: float = math.nan
    slow_bend: float = math.nan
    slow_bend_high: float = math.nan
    slow_rate: float = math.nan
    flat: Flatness = Flatness()
    val_flat: Flatness = Flatness()
    gain: Gain = Gain()
    val_gain: Gain = Gain()
    decay: Decay = Decay()
    rate_left: float = math.nan
    gap: float = math.nan
    gap_ratio: float = math.nan
    val_final: float = math.nan
    val_rise: float = math.nan
    val_rise_errors: float = math.nan
    val_best: float = math.nan
    level: float = math.nan


def measure(curves: Curves) -> Measures:
    """Everything that can be measured on these curves.

    >>> at = np.arange(1, 501)
    >>> found = measure(Curves(name="r", train_loss=Series(at, 2 * np.exp(-at / 20) + 0.1)))
    >>> round(found.fall, 2), round(found.flat.fall, 2), found.start_known
    (0.95, 0.0, True)
    """
    whole = curves.main
    finite = np.isfinite(whole.values)
    broken = float(whole.at[np.argmin(finite)]) if not finite.all() else math.nan
    stop = int(np.argmin(finite)) if not finite.all() else len(whole)
    x, y = whole.at[:stop], whole.values[:stop]
    val = _finite(curves.val_loss)
    if curves.diverged and math.isnan(broken):
        broken = curves.end
    if len(x) < 2:
        return Measures(points=len(x), val_points=len(val), rise=Rise(first_not_finite=broken))
    f = (x - x[0]) / (x[-1] - x[0])
    start = _start(y)
    early = bool(curves.unit == "step" and len(x) >= 100 and x[0] <= 0.01 * x[-1])
    known = curves.baseline is not None or early
    yard = abs(curves.baseline if curves.baseline is not None else start) or math.nan
    parts = blocks(x, y, BLOCKS)
    descent = start - float(parts.mean.min())
    final = level(f, y, 0.9, 1.0)
    lowest = min(level(f, y, 0.8, 0.9).mean, final.mean)
    slow, bend, bend_high = _slow(x, y, descent)
    share = (slow.at - x[0]) / (x[-1] - x[0])
    base = _base(final.mean, yard)
    positive = descent if descent > 0 else math.nan
    found = Measures(
        points=len(x),
        val_points=len(val),
        start=start,
        start_known=known,
        yard=yard,
        final=final.mean,
        descent=descent,
        fall=1 - lowest / curves.baseline
        if curves.baseline is not None
        else _moved(start, 3 * _spread(y), parts, lowest) / yard,
        noise=noise(y[f >= 0.5]) / positive,
        rise=_rise(x, y, parts, start=start, yard=yard, broken=broken),
        slow=slow,
        slow_share=share,
        slow_bend=bend,
        slow_bend_high=bend_high,
        slow_rate=_rate(curves.lr, slow.at),
        flat=_flatness(f, x, y, base),
        gain=_gain(f, x, y, base, window=0.5),
        decay=_decay(curves.lr, x, y, yard),
        rate_left=_rate_left(curves.lr),
        level=final.mean / yard,
    )
    if curves.train_loss is None or len(val) < 1:
        return found
    return _with_val(found, val, final.mean, yard, positive)


def _base(mean: float, yard: float) -> float:
    """What changes of a level are parts of."""
    floor = FLOOR * yard if math.isfinite(yard) else 0.0
    return max(abs(mean), floor) or math.nan


def _finite(series: Series | None) -> Series:
    if series is None:
        return Series([], [])
    kept = np.isfinite(series.values)
    return Series(series.at[kept], series.values[kept])


def _with_val(found: Measures, val: Series, final: float, yard: float, descent: float) -> Measures:
    """The same with what the validation loss adds."""
    x, y = val.at, val.values
    f = (x - x[0]) / (x[-1] - x[0]) if len(x) > 1 else np.ones(1)
    end = level(f, y, 0.9, 1.0)
    base = _base(end.mean, yard)
    values = dict(vars(found))
    values |= {
        "val_final": end.mean,
        "gap": (end.mean - final) / descent,
        "gap_ratio": end.mean / final if final > 0 else math.nan,
        "level": min(end.mean, final) / yard,
    }
    if len(x) >= 5:
        smooth = np.array([np.median(y[max(0, i - 1) : i + 2]) for i in range(len(y))])
        best = int(np.argmin(smooth))
        rise = end.mean - float(smooth[best])
        s = noise(y)
        errors = rise / (s * math.sqrt(1 / end.count + 1 / 2)) if s > 0 else math.inf * (rise > 0)
        values |= {
            "val_noise": noise(y[f >= 0.5]) / descent,
            "val_best": float(x[best]),
            "val_rise": rise / _base(float(smooth[best]), yard),
            "val_rise_errors": 0.0 if math.isnan(errors) else errors,
            "val_flat": _flatness(f, x, y, base),
            "val_gain": _gain(f, x, y, base, window=0.4),
        }
    return Measures(**values)


def _spread(y: Array) -> float:
    """Noise of single values at the start."""
    return 0.0 if len(y) < 100 else noise(y[: max(20, len(y) // 20)])


def _start(y: Array) -> float:
    """The first loss; where it is one noisy batch of many, the median of five if that is lower.

    A run that blows up does so within a few steps, so their mean says nothing about the start.
    """
    return float(min(y[0], np.median(y[:5]))) if len(y) >= 100 else float(y[0])


def _moved(start: float, doubt: float, parts: Blocks, lowest: float) -> float:
    """The fall from the start; where noise can explain it, that from the first 2 % of the run."""
    if start - doubt > lowest or len(parts) < 5:
        return start - lowest
    return min(start, float(parts.mean[0])) - lowest


def _rise(x: Array, y: Array, parts: Blocks, *, start: float, yard: float, broken: float) -> Rise:
    """Five values, or two blocks in a row, or the last one, decide how high a loss stood."""
    if len(parts) < 5:
        return Rise(first_not_finite=broken)
    medians = ndimage.median_filter(y, size=5, mode="nearest")
    above = medians > (start + float(medians.max())) / 2
    held = np.append(np.minimum(parts.mean[:-1], parts.mean[1:]), parts.mean[-1])
    bottom = int(np.argmin(parts.mean))
    after, low = held[bottom:], float(parts.mean[bottom])
    worst = int(np.argmax(after))
    doubt = 3 * float(parts.error[bottom : bottom + worst + 1].max())
    descent, late = start - low, noise(y[len(y) // 2 :])
    half = low + 0.5 * (after[worst] - low)
    return Rise(
        broken,
        float(medians.max()) / yard,
        float(x[np.argmax(above)]),
        (float(medians.max()) - start) / late if late > 0 else math.inf,
        (float(after[worst]) - low - doubt) / descent if descent > 0 else math.nan,
        float(parts.at[bottom + int(np.argmax(after > half))]),
    )


def _slow(x: Array, y: Array, descent: float) -> tuple[Crossing, float, float]:
    """When a fifth of the descent was done, and which part of that had come in half the time,
    with the upper end of its 95 % interval.

    Here the start is a mean over the first 2 %: a single batch may be off by more than a fifth.
    """
    if len(x) < 30 or descent <= 0:
        return NEVER, math.nan, math.nan
    first = float(y[: max(3, len(y) // 50)].mean())
    low = float(blocks(x, y, BLOCKS).mean.min())
    fifth = crossing(blocks(x, y, FINE), first - 0.2 * (first - low))
    if math.isnan(fifth.at):
        return NEVER, math.nan, math.nan
    length = fifth.at - x[0]
    begin, middle, end = (
        level(x, y, x[0] + a * length, x[0] + b * length)
        for a, b in ((0.0, 0.25), (0.4, 0.65), (0.9, 1.1))
    )
    drop = begin.mean - end.mean
    if drop <= 0:
        return NEVER, math.nan, math.nan
    bend = (begin.mean - middle.mean) / drop
    error = 1.96 * math.hypot(begin.error * (1 - bend), middle.error, end.error * bend) / drop
    return fifth, bend, bend + error


def _flatness(f: Array, x: Array, y: Array, base: float) -> Flatness:
    if len(x) < 8:
        return Flatness()
    end, middle = level(f, y, 0.75, 1.0), level(f, y, 0.4, 0.65)
    error = 1.96 * math.hypot(end.error, middle.error) / base
    fall = (middle.mean - end.mean) / base
    parts = blocks(x, y, BLOCKS)
    away = np.abs(parts.mean - end.mean) > 0.1 * base + 2 * parts.error
    last = int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0
    since = float(parts.at[min(last, len(parts) - 1)])
    return Flatness(fall, fall + error, fall - error, since)


def _gain(f: Array, x: Array, y: Array, base: float, *, window: float) -> Gain:
    """The slope in the logarithm of the steps: losses fall like it, or slower, late in a run."""
    inside = f >= 1 - window
    if inside.sum() < 5:
        return Gain()
    since = x[inside][0]
    found = trend(np.log(np.maximum(x[inside], 0.5)), y[inside])
    return Gain(-found.slope * LONGER / base, -found.high * LONGER / base, float(since))


def _decay(lr: Series | None, x: Array, y: Array, yard: float) -> Decay:
    rates = _finite(lr)
    if len(rates) < 2 or rates.values.max() <= 0:
        return Decay()
    top = rates.values.max()
    high = np.flatnonzero(rates.values > 0.1 * top)
    if not len(high) or high[-1] + 1 >= len(rates):
        return Decay()
    at = float(rates.at[high[-1] + 1])
    half = float(rates.at[np.flatnonzero(rates.values > 0.5 * top)[-1]])
    share = (at - x[0]) / (x[-1] - x[0])
    factor = float(rates.values[high[-1] + 1 :].mean() / top)
    begin = half - x[0]
    early, there = (level(x, y, x[0] + a * begin, x[0] + b * begin) for a, b in _BEFORE)
    if early.count < 3 or not 0 < share < 1:
        return Decay(at, share, factor=factor)
    end = level(x, y, x[-1] - 0.1 * (x[-1] - x[0]), x[-1])
    base = _base(there.mean, yard)
    middle = [x[0] + (a + b) / 2 * begin for a, b in _BEFORE]
    reach = math.log(x[-1] / half) / math.log(middle[1] / middle[0])
    promised = (early.mean - there.mean) * reach
    error = 1.96 * math.hypot(early.error, there.error) * reach
    return Decay(
        at,
        share,
        promised / base,
        (promised - error) / base,
        (there.mean - end.mean) / promised if promised > 0 else math.nan,
        factor,
    )


def _rate(lr: Series | None, at: float) -> float:
    rates = _finite(lr)
    if not len(rates) or math.isnan(at) or rates.values.max() <= 0:
        return math.nan
    return float(np.interp(at, rates.at, rates.values) / rates.values.max())


def _rate_left(lr: Series | None) -> float:
    rates = _finite(lr)
    if not len(rates) or rates.values.max() <= 0:
        return math.nan
    last = rates.values[rates.at >= rates.at[-1] - 0.05 * (rates.at[-1] - rates.at[0])]
    return float(last.mean() / rates.values.max())
