"""Line charts that are a picture of their own: described once, drawn as a page, SVG or PNG.

The report of a race has figures for a browser; what `steepest schedules` and `steepest sweep` show
must also go into a README, a slide or a terminal, so it is described here without saying how it
is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steepest.numbers import fixed, significant
from steepest.reporting.drawing import Panel, Scale, axes, plain
from steepest.reporting.palette import COLORS

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Chart", "Line", "Mark", "figure", "panel", "ranges", "ticks"]

Numbers = np.ndarray[Any, np.dtype[Any]]
Dash = Literal["solid", "dashed"]
PLOTLY_DASHES = {"solid": "solid", "dashed": "6px,4px"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A curve, with a band around it where ``low`` and ``high`` are given.

    Attributes:
        x: Places, rising.
        y: Values; those that are not finite interrupt the line.
        name: What a reader who points at it sees.
        color: Hexadecimal.
        width: In pixels.
        dash: Solid, or dashed.
        alpha: Opacity.
        low: Lower edge of the band.
        high: Upper edge.
        markers: Draw the points themselves, and no line.
    """

    x: Numbers
    y: Numbers
    name: str = ""
    color: str = COLORS[0]
    width: float = 2.0
    dash: Dash = "solid"
    alpha: float = 1.0
    low: Numbers | None = None
    high: Numbers | None = None
    markers: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A vertical line at ``x`` with a word beside it, and its interval as a shaded stripe."""

    x: float
    text: str
    color: str = COLORS[1]
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One plot.

    Attributes:
        title: Above it.
        lines: The curves, the later over the earlier ones.
        marks: Vertical lines.
        x_title: Under the x axis.
        y_title: Over the y axis.
        x_scale: Of x.
        y_scale: Of y.
        x_range: What is shown of x; None: all of it.
        y_range: What is shown of y; None: all of it.
        alt: What one sees, for those who do not see it.
        legend: Name the lines over the plot.
    """

    title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = field(default=())
    x_title: str = ""
    y_title: str = ""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    alt: str = ""
    legend: bool = False


def ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """What of x and y is shown; on a logarithmic axis the logarithms to base 10."""
    xs = [line.x for line in chart.lines] + [np.array([mark.x]) for mark in chart.marks]
    ys = [v for line in chart.lines for v in (line.y, line.low, line.high) if v is not None]
    return (
        _range(xs, chart.x_range, chart.x_scale, pad=0.0),
        _range(ys, chart.y_range, chart.y_scale, pad=0.04),
    )


def _range(
    values: Sequence[Numbers], given: tuple[float, float] | None, scale: Scale, *, pad: float
) -> tuple[float, float]:
    shown = np.asarray(given, float) if given is not None else np.concatenate([*values, [np.nan]])
    if scale == "log":
        shown = np.log10(shown, where=shown > 0, out=np.full(len(shown), np.nan))
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 1.0)
    if given is not None and high > low:
        return low, high
    room = pad * (high - low) if high > low else max(0.05 * abs(high), 0.05)
    return low - room, high + room


def ticks(low: float, high: float, scale: Scale, *, most: int = 6) -> list[tuple[float, str]]:
    """Places (in the axis's own units, logarithms on a logarithmic one) and their words.

    >>> ticks(0, 1, "linear", most=5)
    [(0.0, '0'), (0.2, '0.2'), (0.4, '0.4'), (0.6, '0.6'), (0.8, '0.8'), (1.0, '1')]
    >>> ticks(-3.2, -0.9, "log")
    [(-3.0, '0.001'), (-2.0, '0.01'), (-1.0, '0.1')]
    """
    if scale == "log":
        whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        kept = whole[:: max(1, math.ceil(len(whole) / most))]
        if len(kept) > 1:
            return [(float(k), _power(k)) for k in kept]
        places = np.linspace(low, high, 4)
        return [(float(p), significant(10.0 ** float(p), 2)) for p in places]
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * m for m in (1, 2, 2.5, 5, 10, 20) if (high - low) / (size * m) <= most + 0.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = np.array([round(k * step, 12) for k in range(first, last + 1)])
    decimals = max((len(f"{p:.10g}".partition(".")[2]) for p in places), default=0)
    words = [fixed(float(p), decimals if abs(p) < 10_000 else 0) for p in places]
    if decimals:
        words = [word.rstrip("0").rstrip(".") if "." in word else word for word in words]
    return list(zip(map(float, places), words, strict=True))


def _power(exponent: int) -> str:
    return significant(10.0**exponent) if -4 <= exponent <= 4 else f"1e{exponent}"


def figure(chart: Chart) -> go.Figure:
    """The chart for a browser."""
    x_range, y_range = ranges(chart)
    drawn = axes(x=chart.x_title, y=chart.y_title)
    log = {"type": "log", "dtick": 1, "exponentformat": "power"}
    drawn.update_xaxes(range=list(x_range), **(log if chart.x_scale == "log" else {}))
    tall = y_range[1] - y_range[0] < 1.2
    drawn.update_yaxes(
        range=list(y_range),
        **({"type": "log", **({} if tall else log)} if chart.y_scale == "log" else {}),
    )
    if chart.legend:
        legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
        drawn.update_layout(showlegend=True, legend=legend)
    for mark in chart.marks:
        if math.isfinite(mark.low) and math.isfinite(mark.high):
            drawn.add_vrect(
                x0=mark.low, x1=mark.high, fillcolor=mark.color, opacity=0.13, line_width=0
            )
        drawn.add_vline(x=mark.x, line={"color": mark.color, "width": 1.5, "dash": "4px,3px"})
        drawn.add_annotation(
            x=math.log10(mark.x) if chart.x_scale == "log" else mark.x,
            y=1,
            yref="paper",
            yanchor="top",
            yshift=-2 - 17 * chart.marks.index(mark),
            xanchor=_side(chart, mark),
            text=plain(mark.text),
            showarrow=False,
            font={"size": 12},
        )
    for line in chart.lines:
        _add(drawn, chart, line)
    return drawn


def _side(chart: Chart, mark: Mark) -> Literal["left", "right"]:
    """On which side of a mark its word has room."""
    (low, high), _ = ranges(chart)
    at = math.log10(mark.x) if chart.x_scale == "log" else mark.x
    return "left" if at < (low + high) / 2 else "right"


def _add(drawn: go.Figure, chart: Chart, line: Line) -> None:
    if line.low is not None and line.high is not None:
        good = np.isfinite(line.low) & np.isfinite(line.high)
        drawn.add_scatter(
            x=np.concatenate([line.x[good], line.x[good][::-1]]),
            y=np.concatenate([line.high[good], line.low[good][::-1]]),
            fill="toself",
            fillcolor=line.color,
            opacity=0.16,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    extra = f"<extra>{plain(line.name)}</extra>"
    drawn.add_scatter(
        x=line.x,
        y=line.y,
        mode="markers" if line.markers else "lines",
        marker={"color": line.color, "size": 2.6 * line.width},
        line={"color": line.color, "width": line.width, "dash": PLOTLY_DASHES[line.dash]},
        opacity=line.alpha,
        name=plain(line.name),
        showlegend=bool(line.name),
        hovertemplate=f"{plain(chart.x_title)} %{{x:.4~g}}: %{{y:.4~g}}{extra}",
    )


def panel(chart: Chart, *, height: int = 300, wide: bool = False) -> Panel:
    """The chart as a panel of a page."""
    return Panel(chart.title, figure(chart), chart.alt or chart.title, height=height, wide=wide)
