"""A picture of a race for a README: a small SVG file without any script."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steepest.errors import LedgerError
from steepest.numbers import amount, fixed, significant
from steepest.reporting.drawing import FONTS, Curves, shorten, thin
from steepest.reporting.facts import (
    arm_numbers,
    final_runs,
    final_values,
    finest_width,
    headline,
    level_of,
    metric_words,
    result_unit,
)
from steepest.reporting.html import PATHS
from steepest.reporting.loss import mean_curve, window_of
from steepest.reporting.page import environment, write_whole
from steepest.reporting.palette import look_of
from steepest.stats import moving_average

if TYPE_CHECKING:
    from steepest.racing.result import Result

__all__ = ["write_summary_svg"]

WIDTH = 880
ROW = 58
LINE = 24
MOST_LINES = 12  # curves; beyond that the mean of every arm is drawn
LEFT_FRAME = (24.0, 380.0)  # x and width
RIGHT_FRAME = (476.0, 380.0)
POINTS = 160


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in the picture's units."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """One seed."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Row:
    """One arm: dots, and the mean with its interval."""

    at: float
    name: str
    color: str
    path: str
    dots: tuple[Dot, ...]
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One curve."""

    color: str
    width: float
    alpha: float
    points: str


@dataclass(frozen=True)
class Frame:
    """One of the two plots."""

    title: str
    x_title: str
    x: float
    y: float
    width: float
    height: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick] = ()
    rows: Sequence[Row] = ()
    lines: Sequence[Line] = ()


@dataclass(frozen=True)
class Axis:
    """A linear map from values to places in the picture."""

    low: float
    high: float
    start: float
    length: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * self.length, 1)


def write_summary_svg(result: Result, path: str | Path) -> Path:
    """Draw every arm's final metric with every seed as a dot, and the losses of runs that are done.

    Args:
        result: A race with at least one finished run.
        path: The file.

    Returns:
        Where it was written.

    Raises:
        LedgerError: If no run is finished, or the file cannot be written.
    """
    path = Path(path)
    if not any(final_values(result).values()):
        raise LedgerError(
            f"{result.folder} has no finished run, so there is nothing to draw; "
            "finish the race first"
        )
    height = max(190, ROW * len(result.arms)) + 10
    lines = textwrap.wrap(headline(result), 78)
    top = 80 + LINE * len(lines)
    frames = [_final_frame(result, top, height)]
    done = {(run.arm, run.seed) for run in final_runs(result) if run.status == "done"}
    curves = {key: curve for key, curve in result.curves("train_loss").items() if key in done}
    if curves:
        frames.append(_loss_frame(result, curves, top, height))
    ranked = "; ".join(
        f"{row.label} {result_unit(result).mean(row.mean, row.low, row.high)}"
        for row in result.ranking
    )
    text = (
        environment()
        .get_template("summary.svg.j2")
        .render(
            width=WIDTH,
            height=top + height + 56,
            fonts=FONTS,
            headline=headline(result),
            lines=lines,
            line_height=LINE,
            description=f"Final {metric_words(result.metric)} of every seed, and training loss "
            f"over steps. {ranked}.",
            under=f"{result.task}, {amount(len(result.seeds), 'seed')}, "
            f"{amount(int(result.spec['steps']), 'step')} each, on {result.spec['device']}",
            frames=frames,
        )
    )
    return write_whole(path, text.encode("utf-8"), what="the picture")


def ticks_between(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two ends, at most so many.

    >>> ticks_between(98.53, 99.07)
    [98.6, 98.7, 98.8, 98.9, 99.0]
    """
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * m for m in (1, 2, 2.5, 5, 10, 20) if (high - low) / (size * m) <= most + 0.5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _final_frame(result: Result, top: float, height: float) -> Frame:
    values, unit = final_values(result), result_unit(result)
    drawn = [v * unit.factor for by_seed in values.values() for v in by_seed.values()]
    for row in result.ranking:
        drawn += [v * unit.factor for v in (row.low, row.high) if math.isfinite(v)]
    pad = 0.05 * (max(drawn) - min(drawn)) or 0.01 * abs(max(drawn)) or 1.0
    axis = Axis(min(drawn) - pad, max(drawn) + pad, *LEFT_FRAME)
    row_height = min(1.4 * ROW, (height - 6) / len(result.arms))
    rows = []
    for place, ranked in enumerate(result.ranking):
        look, at = look_of(arm_numbers(result)[ranked.label]), top + 26 + place * row_height
        seeds = sorted(values[ranked.label])
        spread = np.linspace(-6, 6, len(seeds)) if len(seeds) > 1 else np.zeros(len(seeds))
        known = math.isfinite(ranked.low) and math.isfinite(ranked.high)
        name = shorten(ranked.label, 30)
        if ranked.n:
            mean = unit.mean(ranked.mean, ranked.low, ranked.high, finest=finest_width(result))
            name = f"{name} · {mean}"
        if ranked.diverged:
            name = f"{name} · {ranked.diverged} diverged"
        rows.append(
            Row(
                at,
                name,
                look.color,
                PATHS[look.symbol],
                tuple(
                    Dot(
                        axis(values[ranked.label][seed] * unit.factor),
                        round(at + float(shift), 1),
                        f"seed {seed}: {unit.value(values[ranked.label][seed])}",
                    )
                    for seed, shift in zip(seeds, spread, strict=True)
                ),
                axis(ranked.mean * unit.factor) if ranked.n else None,
                axis(ranked.low * unit.factor) if known else None,
                axis(ranked.high * unit.factor) if known else None,
            )
        )
    better = "higher" if result.higher_is_better else "lower"
    level = significant(100 * level_of(result))
    ticks = ticks_between(axis.low, axis.high)
    decimals = max(len(f"{tick:.10g}".partition(".")[2]) for tick in ticks)
    return Frame(
        f"Every seed, with mean and {level} % interval",
        f"{metric_words(result.metric)}{' (%)' if unit.share else ''} · {better} is better",
        LEFT_FRAME[0],
        top,
        LEFT_FRAME[1],
        height,
        [Tick(axis(tick), fixed(tick, decimals)) for tick in ticks],
        rows=rows,
    )


def _loss_frame(result: Result, curves: Curves, top: float, height: float) -> Frame:
    window = window_of(max(len(steps) for steps, _ in curves.values()))
    smooth = {
        key: (steps, moving_average(values, window)) for key, (steps, values) in curves.items()
    }
    if len(smooth) > MOST_LINES:
        smooth = {
            (arm.label, 0): mean_curve(
                [c for (label, _), c in smooth.items() if label == arm.label]
            )
            for arm in result.arms
            if any(label == arm.label for label, _ in smooth)
        }
    pieces = [values[np.isfinite(values) & (values > 0)] for _, values in smooth.values()]
    positive = np.concatenate(pieces) if pieces else np.ones(1)
    low, high = (float(f(positive)) for f in (np.min, np.max)) if len(positive) else (0.1, 1.0)
    last = max(int(steps[-1]) for steps, _ in smooth.values())
    across = Axis(0, last, *RIGHT_FRAME)
    up = Axis(math.log10(low) - 0.08, math.log10(high) + 0.08, top + height, -height)
    lines = []
    for (label, _), (steps, values) in sorted(smooth.items()):
        keep = [i for i in thin(len(steps), POINTS).tolist() if values[i] > 0]
        points = " ".join(f"{across(float(steps[i]))},{up(math.log10(values[i]))}" for i in keep)
        look = look_of(arm_numbers(result)[label])
        lines.append(Line(look.color, 1.6, 0.75, points))
    whole = range(math.ceil(up.low), math.floor(up.high) + 1)
    decades = whole[:: max(1, math.ceil(len(whole) / 6))]
    marks = [10.0**k for k in decades] if len(decades) > 1 else [low, math.sqrt(low * high), high]
    return Frame(
        f"Training loss, mean of {window} batches",
        "step",
        RIGHT_FRAME[0],
        top,
        RIGHT_FRAME[1],
        height,
        [Tick(across(tick), f"{tick:,.0f}") for tick in ticks_between(0, last)],
        [Tick(up(math.log10(mark)), significant(mark, 2)) for mark in marks],
        lines=lines,
    )
