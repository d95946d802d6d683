"""What the curves say: the marked pictures, the table in a race's report, a page of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from steepest.diagnosing import look
from steepest.numbers import amount
from steepest.reporting.drawing import Panel, Picture, axes, finite, plain, shorten, thin
from steepest.reporting.facts import Flag
from steepest.reporting.loss import window_of
from steepest.reporting.page import Page, render_page, write_whole
from steepest.reporting.palette import COLORS
from steepest.reporting.tables import Cell, Table
from steepest.stats import moving_average

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from steepest.diagnosing import Curves, Diagnosis, Group, RunDiagnosis, Series
    from steepest.racing.result import Result

__all__ = ["curve_findings", "findings_picture", "findings_table", "write_diagnosis"]

TRAIN, VAL, MARK = COLORS[0], COLORS[1], "#e5484d"
DOTS = 600  # of a panel
PANELS = 8


def curve_findings(result: Result) -> tuple[Picture | None, Table | None]:
    """The section of a race's report; nothing before any run has begun."""
    if not any(len(steps) for steps, _ in result.curves("train_loss").values()):
        return None, None
    found = look(result)
    return findings_picture(found), findings_table(found, result)


def findings_table(found: Diagnosis, result: Result | None = None) -> Table | None:
    """Arm by arm what was found, in how many runs, and what to do; None if there is nothing."""
    numbers = {} if result is None else {arm.label: n for n, arm in enumerate(result.arms)}
    rows: list[tuple[Cell, ...]] = []
    for group in found.groups:
        rows += [
            (
                Cell(group.name, numbers.get(group.name)),
                Cell(finding.title),
                Cell(f"{count} of {len(group.runs)}"),
                Cell(f"{finding.evidence} {finding.advice}"),
            )
            for finding, count in group.shared
        ]
    if not rows:
        return None
    return Table(
        "Findings that at least half of an arm's runs show; the evidence is that of the first",
        ("Arm" if result is not None else "Run", "Finding", "Runs", "Evidence, and what to do"),
        tuple(rows),
        ("left", "left", "right", "left"),
    )


def findings_picture(found: Diagnosis) -> Picture:
    """One run of every group that shows something, with the places marked."""
    shown = [(group, _first(group)) for group in found.groups if group.shared]
    drawn = shown[:PANELS]
    panels = tuple(_panel(run, group) for group, run in drawn)
    left = [f"{amount(len(shown) - PANELS, 'more arm')} shows something; see the table."]
    quiet = [group.name for group in found.groups if not group.counts]
    notes = [
        "Dots are single recorded values of the training loss, the blue line their moving average, "
        "the orange line the validation loss; what a finding rests on is marked in red.",
        *(left if len(shown) > PANELS else []),
        *([f"Nothing to report on: {', '.join(quiet)}."] if quiet and shown else []),
    ]
    return Picture(
        "findings",
        "What the curves say",
        found.headline,
        panels,
        tuple(notes) if panels else (),
        scale="linear" if panels else None,
    )


def _first(group: Group) -> RunDiagnosis:
    kind = group.shared[0][0].kind
    return next(run for run in group.runs if kind in run.kinds)


def _panel(run: RunDiagnosis, group: Group) -> Panel:
    curves = run.curves
    figure = axes(x=f"{curves.unit}s", y="loss")
    _draw(figure, curves.train_loss, TRAIN, "training loss", dots=True)
    _draw(figure, curves.val_loss, VAL, "validation loss", dots=False)
    low, high = _range(curves)
    log = [math.log10(low) - 0.05, math.log10(high) + 0.08] if 0 < low < high else None
    linear = [min(0.0, low), high * 1.04] if high > 0 else [low, high]
    figure.update_yaxes(range=linear, tickformat="~g")
    figure.update_layout(meta={"linear": linear, "log": log})
    places = [(finding.title, span) for finding in run.findings for span in finding.spans]
    for row, (title, span) in enumerate(places):
        said = title if span.what in title.lower() else f"{title}: {span.what}"
        _mark(figure, span.low, span.high, said, row)
    names = ", ".join(finding.title.lower() for finding in run.findings)
    return Panel(
        shorten(curves.name, 60),
        figure,
        f"The loss of {curves.name} over its {curves.unit}s, for {amount(len(group.runs), 'run')} "
        f"of {group.name}. Marked: {names or 'nothing'}.",
        height=320,
    )


def _draw(figure: go.Figure, series: Series | None, color: str, name: str, *, dots: bool) -> None:
    if series is None or not len(series):
        return
    x, y = series.at, series.values
    if dots and len(x) > 60:
        keep = thin(len(x), DOTS)
        figure.add_scatter(
            x=x[keep],
            y=_drawable(y[keep]),
            mode="markers",
            marker={"color": color, "size": 3.2, "opacity": 0.25},
            hovertemplate=f"%{{x}}: %{{y:.4~g}}<extra>{name}</extra>",
        )
        y = moving_average(y, window_of(len(y)))
    keep = thin(len(x), DOTS)
    figure.add_scatter(
        x=x[keep],
        y=_drawable(y[keep]),
        mode="lines" if len(x) > 60 else "lines+markers",
        line={"color": color, "width": 2},
        marker={"size": 5},
        hovertemplate=f"%{{x}}: %{{y:.4~g}}<extra>{name}</extra>",
    )


def _drawable(y: npt.NDArray[np.float64]) -> list[float | None]:
    """Values as JSON can hold them: what is not a number is a gap."""
    return [float(v) if math.isfinite(v) else None for v in y]


def _range(curves: Curves) -> tuple[float, float]:
    """What most values lie in; a blow-up may leave the frame, but its foot is seen."""
    held = [
        finite(series.values)
        for series in (curves.train_loss, curves.val_loss)
        if series is not None and len(series)
    ]
    values = np.concatenate(held) if held else np.zeros(1)
    if not len(values):
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(values, [0.002, 0.995]))
    start = next(float(part[0]) for part in held if len(part))
    return low, max(start, min(high, 4 * abs(start)), low + 1e-12)


def _mark(figure: go.Figure, low: float, high: float, text: str, row: int) -> None:
    """A stretch as a shaded band, a moment as a line; the words stand one under another."""
    if low == high:
        figure.add_vline(x=low, line={"color": MARK, "width": 1.5, "dash": "4px,3px"})
    else:
        figure.add_vrect(x0=low, x1=high, fillcolor=MARK, opacity=0.09, line_width=0, layer="below")
    figure.add_annotation(
        x=0.99,
        xref="paper",
        xanchor="right",
        y=0.98 - 0.085 * row,
        yref="paper",
        yanchor="top",
        text=plain(text),
        showarrow=False,
        font={"size": 12},
    )


def write_diagnosis(found: Diagnosis, path: str | Path) -> Path:
    """Write what curves say as one HTML file that needs no network.

    Args:
        found: What was found.
        path: The file, or a folder that gets a ``diagnosis.html``.

    Returns:
        Where it was written.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    table = findings_table(found)
    picture = findings_picture(found)
    if picture.panels:
        picture = replace(picture, says="Marked in red: what each finding rests on.")
    page = Page(
        headline=found.headline,
        eyebrow=amount(len(found.runs), "run"),
        flags=[Flag("note", text) for text in _unchecked(found)],
        pictures=[picture],
        tables={picture.key: [table] if table is not None else []},
    )
    return write_whole(
        path / "diagnosis.html" if path.is_dir() else path,
        render_page(page).encode("utf-8"),
        what="the diagnosis",
    )


def _unchecked(found: Diagnosis) -> Iterable[str]:
    """What could not be looked for, each reason once."""
    reasons: dict[str, list[str]] = {}
    for run in found.runs:
        for kind, reason in run.unchecked.items():
            names = reasons.setdefault(reason, [])
            if kind not in names:
                names.append(kind)
    for reason, kinds in reasons.items():
        yield f"Not looked for: {', '.join(kinds).replace('_', ' ')}; {reason}."
    for note in dict.fromkeys(note for run in found.runs for note in run.curves.notes):
        yield f"{note}."
