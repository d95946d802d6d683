"""What all figures share: the panel, the bare axes that the page's style sheet colours, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from steepest.racing.result import Result
    from steepest.reporting.palette import Look

__all__ = [
    "FONTS",
    "INK",
    "Curve",
    "Curves",
    "Panel",
    "Picture",
    "add_line",
    "arm_meta",
    "axes",
    "finite",
    "line",
    "name_rows",
    "plain",
    "points_per_line",
    "shorten",
    "thin",
]

Scale = Literal["linear", "log"]
Numbers = np.ndarray[Any, np.dtype[Any]]
Curve = tuple[Numbers, Numbers]  # steps and values
Curves = Mapping[tuple[str, int], Curve]  # by arm and seed
INK = "#858b94"  # readable on both grounds; the page overrides it for axes and titles
GRID = "rgba(128,134,144,0.22)"
NOTE_SIZE = 12
FONTS = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans KR", '
    '"Noto Sans CJK KR", "Apple SD Gothic Neo", "Malgun Gothic", NanumGothic, sans-serif'
)
POINTS = 400  # of a drawn line
ALL_POINTS = 16_000  # of all lines of a panel; more make the page slow, and no screen shows them


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: Above it.
        figure: A plotly figure that can also be shown on its own.
        alt: What one sees, for those who do not see it.
        height: In CSS pixels.
        wide: It wants a whole row of the page.
    """

    title: str
    figure: go.Figure
    alt: str
    height: int = 300
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """The panels of one question, with one sentence of what they say.

    Attributes:
        key: Its anchor on the page.
        title: The question.
        says: What the data say, computed from them.
        panels: The plots.
        notes: How to read them: thinning, windows, what a band is.
        scale: The y scale at first, where the reader may switch it; None where not.
        zoom: The reader may look at the last half of the steps alone.
    """

    key: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = field(default=())
    scale: Scale | None = None
    zoom: bool = False


def plain(text: str) -> str:
    """Text that plotly, which reads a little HTML, draws as it stands.

    >>> plain("a<b> & c")
    'a&lt;b&gt; &amp; c'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, most: int = 46) -> str:
    """A label that fits over a narrow plot: its middle is left out.

    >>> shorten("adam(lr=0.001)"), shorten("abcdefghij", 5)
    ('adam(lr=0.001)', 'ab…ij')
    """
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[-(most - head - 1) :]}"


def thin(count: int, most: int) -> Numbers:
    """At most ``most`` evenly spread indices out of ``count``, the first and the last among them.

    >>> thin(5, 10).tolist(), thin(101, 3).tolist()
    ([0, 1, 2, 3, 4], [0, 50, 100])
    """
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def axes(
    *,
    x: str,
    y: str = "",
    left: int = 54,
    top: int = 10,
    bottom: int = 44,
    **more: Any,
) -> go.Figure:
    """An empty figure with the bare look of all of them: no ground, faint grid, no legend.

    The page names the arms once and lets the reader switch them off for every figure, so no
    figure has a legend of its own.
    """
    import plotly.graph_objects as go

    bare: dict[str, Any] = {
        "gridcolor": GRID,
        "zeroline": False,
        "showline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": NOTE_SIZE}},
        "tickfont": {"size": NOTE_SIZE},
        "hoverformat": ".6~g",
    }
    layout: dict[str, Any] = {
        "template": go.layout.Template(),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": NOTE_SIZE, "family": FONTS},
        "margin": {"l": left, "r": 12, "t": top, "b": bottom, "pad": 2},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1, "font": {"family": FONTS}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": INK},
        "xaxis": bare
        | {"title": {**bare["title"], "text": x}, "nticks": 7}
        | ({"tickformat": ",~f"} if x in ("step", "steps") else {}),
        "yaxis": bare | {"title": {**bare["title"], "text": y}, "nticks": 7},
    }
    figure = go.Figure(layout=layout)
    return figure.update_layout(**more) if more else figure


def line(look: Look, *, width: float = 2.0, alpha: float = 1.0) -> dict[str, Any]:
    """The line of an arm."""
    return {"color": look.faint(alpha), "width": width, "dash": look.dash}


def name_rows(figure: go.Figure, names: Sequence[str], *, above: float = 0.36) -> None:
    """Write the name of each row over it, at the left edge.

    A name beside the axis would take half the width of a phone.
    """
    for row, name in enumerate(names):
        figure.add_annotation(
            x=0,
            xref="paper",
            xanchor="left",
            y=row - above,
            yref="y",
            yanchor="middle",
            borderpad=0,
            bgcolor="rgba(255,255,255,0)",
            text=plain(name),
            showarrow=False,
            font={"size": NOTE_SIZE},
        )
    figure.update_yaxes(
        range=[len(names) - 0.45, -0.6], showgrid=False, showticklabels=False, fixedrange=True
    )


def arm_meta(result: Result, label: str) -> dict[str, Any]:
    """What the page needs to switch an arm off in every figure."""
    return {"arm": next(i for i, arm in enumerate(result.arms) if arm.label == label)}


def finite(values: Numbers) -> Numbers:
    """The values that are numbers."""
    return values[np.isfinite(values)]


def points_per_line(lines: int) -> int:
    """How many points each of so many lines of a panel is drawn with.

    >>> points_per_line(6), points_per_line(80), points_per_line(1000)
    (400, 200, 60)
    """
    return min(POINTS, max(60, ALL_POINTS // max(1, lines)))


def add_line(
    figure: go.Figure,
    curve: Curve,
    look: dict[str, Any],
    meta: dict[str, Any],
    name: str,
    *,
    points: int = POINTS,
) -> None:
    """Draw a curve, thinned to what the eye can tell apart."""
    steps, values = curve
    keep = thin(len(steps), points)
    figure.add_scatter(
        x=steps[keep].astype(np.int32),
        y=values[keep].astype(np.float32),
        mode="lines",
        line=look,
        hovertemplate=f"step %{{x}}: %{{y:.4~g}}<extra>{plain(name)}</extra>",
        meta=meta,
    )
