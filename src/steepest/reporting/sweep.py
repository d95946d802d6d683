"""The picture of a range test: loss and its slope over the learning rate, with edge and choice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steepest.numbers import amount, significant
from steepest.reporting.braille import braille
from steepest.reporting.chart import Chart, Line, Mark
from steepest.reporting.facts import Flag
from steepest.reporting.page import Page, render_page, write_whole
from steepest.reporting.palette import COLORS
from steepest.reporting.save import charts_page, save_charts
from steepest.sweeping.result import rounded

if TYPE_CHECKING:
    from steepest.sweeping.result import Sweep

__all__ = ["draw_sweep", "sweep_flags", "sweep_lines", "write_sweep_html"]

BLUE, ORANGE, RED, GREY = COLORS[0], COLORS[1], COLORS[5], COLORS[11]


_HEIGHT = 250
_QUESTION = "Loss over the learning rate"
_SAYS = (
    "Dots are runs, one per rate and seed; the line is what a smooth curve makes of their mean. "
    "The other picture is its slope, how much the loss falls per decade of the rate: the "
    "suggestion is its lowest point."
)


def draw_sweep(sweep: Sweep, path: str | Path) -> Path:
    """Write the picture as ``.html``, ``.svg`` or ``.png``.

    Raises:
        InputError: For an unknown ending.
        LedgerError: For a place that cannot be written to.
    """
    return save_charts(
        _charts(sweep),
        path,
        title=sweep.headline,
        under=f"{_under(sweep)}. {' '.join(sweep.sentences)}",
        columns=1,
        height=_HEIGHT,
        key="sweep",
        question=_QUESTION,
        says=_SAYS,
        page=_page(sweep),
    )


def write_sweep_html(sweep: Sweep, path: str | Path) -> Path:
    """Write the page of a sweep.

    Args:
        sweep: The outcome.
        path: The file, or a folder that gets a ``report.html``.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.html"
    page = charts_page(
        _charts(sweep), _page(sweep), height=_HEIGHT, key="sweep", question=_QUESTION, says=_SAYS
    )
    return write_whole(path, render_page(page).encode(), what="the page")


def sweep_flags(sweep: Sweep) -> list[Flag]:
    """What to know before believing it."""
    told = (f"{event}." for event in sweep.events)
    return [Flag("note", text) for text in (*sweep.findings.notes, *told)]


def _page(sweep: Sweep) -> Page:
    return Page(
        headline=sweep.headline,
        eyebrow=_under(sweep),
        sentences=sweep.sentences,
        flags=sweep_flags(sweep),
        command=sweep.command,
    )


def _under(sweep: Sweep) -> str:
    spec = sweep.spec
    return (
        f"{spec.task} · {spec.arm} · {amount(len(spec.seeds), 'seed')} × "
        f"{amount(spec.steps, 'step')} · {spec.device}"
    )


def _charts(sweep: Sweep) -> list[Chart]:
    return [_loss(sweep), _slope(sweep)] if len(sweep.findings.grid) else [_loss(sweep)]


def _marks(sweep: Sweep, *, words: bool) -> list[Mark]:
    found, edge = sweep.findings.suggestion, sweep.findings.edge
    marks = []
    if found.value is not None:
        text = f"suggestion {rounded(found.value)}" if words else ""
        marks.append(Mark(x=found.value, text=text, color=BLUE, low=found.low, high=found.high))
    if edge.value is not None:
        text = f"edge of stability {significant(edge.value)}" if words else ""
        marks.append(Mark(x=edge.value, text=text, color=RED, low=edge.low, high=edge.high))
    return marks


def _loss(sweep: Sweep) -> Chart:
    findings = sweep.findings
    rates, ends = findings.rates, findings.ends
    start = float(findings.start.mean())
    shown = np.where(np.isfinite(ends), ends, np.nan)
    bottom = float(np.nanmin(shown)) if np.isfinite(shown).any() else 0.0
    height = max(start - bottom, 0.05 * abs(start), 1e-12)
    dots = [
        Line(
            x=rates,
            y=np.where(shown[:, seed] <= start + 0.3 * height, shown[:, seed], np.nan),
            name=f"seed {sweep.spec.seeds[seed]}",
            color=GREY,
            alpha=0.7,
            markers=True,
            width=1.6,
        )
        for seed in range(ends.shape[1])
    ]
    level = Line(
        x=np.array([rates[0], rates[-1]]),
        y=np.array([start, start]),
        name="before the first step",
        color=GREY,
        dash="dashed",
        width=1.2,
    )
    lines = [level, *dots]
    if len(findings.grid):
        lines.append(Line(x=findings.grid, y=findings.fit, name="smoothed mean", color=BLUE))
    last = "the last fifth of the steps" if sweep.kind == "held" else "some steps"
    return Chart(
        title=f"Training loss, mean of {last}",
        lines=lines,
        marks=_marks(sweep, words=True),
        x_title="learning rate",
        x_scale="log",
        x_range=(float(rates[0]), float(rates[-1])),
        y_range=(bottom - 0.05 * height, start + 0.3 * height),
        alt=f"Loss over the learning rate from {rounded(float(rates[0]))} to "
        f"{rounded(float(rates[-1]))}. {sweep.headline}.",
    )


def _slope(sweep: Sweep) -> Chart:
    findings = sweep.findings
    rates = findings.rates
    low = float(findings.slope.min())
    slope = np.where(findings.slope < -0.5 * low, findings.slope, np.nan)  # the rest is a wall
    return Chart(
        title="Change of the loss per decade of the rate",
        lines=[Line(x=findings.grid, y=slope, name="slope", color=ORANGE)],
        marks=_marks(sweep, words=False),
        x_title="learning rate",
        x_scale="log",
        x_range=(float(rates[0]), float(rates[-1])),
        y_range=(1.15 * low, -0.5 * low) if low < 0 else None,
        alt="The slope of that curve; the suggestion is where it is the lowest.",
    )


def sweep_lines(sweep: Sweep, *, width: int = 64, height: int = 9) -> list[str]:
    """The smoothed loss as lines of text, with the suggestion and the edge under the axis."""
    findings = sweep.findings
    if not len(findings.grid):
        return []
    u = np.log10(findings.rates)
    places = np.linspace(u[0], u[-1], 4 * width)
    values = np.interp(places, np.log10(findings.grid), findings.fit, right=math.nan)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    drawn = braille(values.tolist(), low=low, high=high, width=width, height=height)
    top, bottom = significant(high), significant(low)
    gutter = max(len(top), len(bottom))
    labels = [top, *[""] * (height - 2), bottom]
    lines = [f"{label:>{gutter}} ┤{line}" for label, line in zip(labels, drawn, strict=True)]
    marks = [" "] * width
    for value, sign in ((sweep.suggestion, "▲"), (sweep.edge, "╳")):
        if value is not None:
            column = round((math.log10(value) - u[0]) / (u[-1] - u[0]) * (width - 1))
            if 0 <= column < width:
                marks[column] = sign
    first, last = rounded(float(findings.rates[0])), rounded(float(findings.rates[-1]))
    lines.append(f"{'':>{gutter}}  {''.join(marks).rstrip()}")
    lines.append(f"{'':>{gutter}}  {first}{last:>{width - len(first)}}")
    return lines
