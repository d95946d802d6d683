"""A recipe as one page: the answer, the gates, and the picture of every step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.diagnosing import look
from steepest.numbers import amount, time_text
from steepest.racing.result import Result
from steepest.recipes import TITLES
from steepest.reporting.curve_findings import findings_picture
from steepest.reporting.drawing import Panel, Picture, axes
from steepest.reporting.facts import Flag
from steepest.reporting.page import Page, render_page, write_whole
from steepest.reporting.palette import look_of

if TYPE_CHECKING:
    from steepest.recipes import Chart, Record, State

__all__ = ["recipe_headline", "recipe_json", "write_recipe"]


def recipe_headline(state: State) -> str:
    """How far it came, or what came out, in one sentence."""
    shut = next((r for r in state.records.values() if not r.passed and not r.forced), None)
    if shut is not None:
        return f"Step {shut.step} does not pass: {shut.sentence}"
    if len(state.records) < len(TITLES):
        return f"{len(state.records)} of {len(TITLES)} steps are done."
    return state.records[len(TITLES)].sentence


def recipe_json(state: State) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "headline": recipe_headline(state),
        "passed": all(r.passed for r in state.records.values()),
        "complete": len(state.records) == len(TITLES),
        "settings": vars(state.settings),
        "steps": [
            {
                "step": r.step, "title": r.title, "passed": r.passed, "forced": r.forced,
                "sentence": r.sentence, "advice": list(r.advice), "seconds": r.seconds,
                "numbers": {k: _plain(v) for k, v in r.numbers.items()},
            }
            for r in state.records.values()
        ],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_recipe(state: State, path: str | Path) -> Path:
    """Write the report of a recipe, however far it came: one HTML file that needs no network.

    Raises:
        LedgerError: If it cannot be written there.
    """
    records = list(state.records.values())
    settings = state.settings
    spent = sum(record.seconds for record in records)
    page = Page(
        headline=recipe_headline(state),
        eyebrow=f"{settings.task} · {settings.arm} · {time_text(spent)} of "
        f"{settings.minutes:g} min",
        flags=[flag for record in records for flag in _flags(record)],
        pictures=[_picture(record, state.folder) for record in records],
        command=settings.command,
    )
    return write_whole(path, render_page(page).encode("utf-8"), what="the recipe's report")


def _flags(record: Record) -> list[Flag]:
    if record.passed:
        return []
    gone_on = " A person went on all the same." if record.forced else ""
    first = Flag("stop", f"Step {record.step}, {record.title} {record.sentence}{gone_on}")
    return [first, *(Flag("warn", text) for text in record.advice)]


def _picture(record: Record, folder: Path) -> Picture:
    gate = "" if record.passed else "Not passed. "
    title = f"{record.step}. {record.title}"
    if record.chart is None:
        picture = findings_picture(look(Result(folder / record.numbers["race"])))
        return Picture(
            f"step-{record.step}", title, f"{gate}{record.sentence}", picture.panels,
            (*record.advice, *picture.notes),
        )  # fmt: skip
    return Picture(
        f"step-{record.step}",
        title,
        f"{gate}{record.sentence}",
        (_panel(record.chart, record.sentence),),
        tuple(record.advice) + ((_names(record.chart),) if len(record.chart.lines) > 1 else ()),
    )


def _names(chart: Chart) -> str:
    return f"The lines, in the order of their colours: {', '.join(_.name for _ in chart.lines)}."


def _panel(chart: Chart, sentence: str) -> Panel:
    figure = axes(x=chart.x, y=chart.y)
    for number, line in enumerate(chart.lines):
        look_ = look_of(number)
        figure.add_scatter(
            x=list(line.x),
            y=list(line.y),
            mode="markers" if chart.dots else "lines+markers" if len(line.x) < 20 else "lines",
            line={"color": look_.color, "width": 2, "dash": look_.dash},
            marker={"color": look_.color, "size": 7, "symbol": look_.symbol},
            hovertemplate=f"{line.name}<br>%{{x:.4~g}}: %{{y:.4~g}}<extra></extra>",
        )
    if chart.level is not None:
        figure.add_hline(
            y=chart.level[0],
            line={"color": "#858b94", "width": 1.5, "dash": "4px,3px"},
            annotation={"text": chart.level[1], "font": {"size": 12}},
        )
    if chart.log_x:
        figure.update_xaxes(type="log", tickformat="~g", dtick=1)
    if chart.log_y:
        figure.update_yaxes(type="log", tickformat="~g", dtick=1)
    return Panel(
        f"{chart.y} over {chart.x}",
        figure,
        f"{chart.y} over {chart.x}, {amount(len(chart.lines), 'line')}. {sentence}",
        wide=True,
    )
