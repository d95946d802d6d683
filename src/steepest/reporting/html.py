"""The report: one HTML file that holds everything it shows and asks no server for anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steepest.errors import LedgerError
from steepest.numbers import amount
from steepest.reporting.bought import bought_picture, bought_table, settings_table
from steepest.reporting.costs import target_picture, timing_picture
from steepest.reporting.curve_findings import curve_findings
from steepest.reporting.facts import Flag, final_runs, headline, sentences
from steepest.reporting.figures import evaluation_pictures, final_picture, learning_rates
from steepest.reporting.layers import layer_picture, layer_table
from steepest.reporting.loss import training_loss
from steepest.reporting.page import fill, write_whole
from steepest.reporting.palette import look_of
from steepest.reporting.protocol import protocol_groups, protocol_tables, reproduce
from steepest.reporting.searched import importance_picture, importance_table, methods_picture
from steepest.reporting.sensitivity import sensitivity_picture, sensitivity_table
from steepest.reporting.spending import anytime_picture, budget_says, cost_table, race_flags
from steepest.reporting.tables import (
    Table,
    final_table,
    matrix_table,
    pair_table,
    ranking_table,
    timing_table,
)
from steepest.reporting.trials import best_of_k_picture, space_picture, trials_table

if TYPE_CHECKING:
    from steepest.racing.result import Result

__all__ = ["marks_of", "write_html"]

# The markers of plotly, drawn around the origin, for legends outside of plots.
PATHS = {
    "circle": "M0,-6A6,6 0 1 1 0,6A6,6 0 1 1 0,-6Z",
    "square": "M-5.4,-5.4H5.4V5.4H-5.4Z",
    "triangle-up": "M0,-6.6L6.4,4.8H-6.4Z",
    "diamond": "M0,-7.4L7.4,0L0,7.4L-7.4,0Z",
    "cross": "M-2.4,-6.8H2.4V-2.4H6.8V2.4H2.4V6.8H-2.4V2.4H-6.8V-2.4H-2.4Z",
    "star": "M0,-7.4L1.8,-2.4L7,-2.3L2.9,.9L4.3,6L0,3L-4.3,6L-2.9,.9L-7,-2.3L-1.8,-2.4Z",
    "hexagon": "M0,-6.8L5.9,-3.4V3.4L0,6.8L-5.9,3.4V-3.4Z",
    "pentagon": "M0,-6.8L6.5,-2.1L4,5.5H-4L-6.5,-2.1Z",
}


@dataclass(frozen=True)
class Mark:
    """An arm in a legend."""

    label: str
    text: str
    color: str
    path: str


def write_html(result: Result, path: str | Path) -> Path:
    """Write the report of a race.

    Args:
        result: The race, finished or not.
        path: The file, or a folder that gets a ``report.html``.

    Returns:
        Where it was written.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.html"
    page = render(result)
    return write_whole(path, page.encode("utf-8"), what="the report")


def render(result: Result) -> str:
    """The page as text."""
    noted = race_flags(result)
    try:
        rows = result.layer_differences()
    except LedgerError as error:  # the weights may have been deleted to save room
        rows = []
        noted.append(Flag("note", f"The layers are not compared: {error}."))
    what_curves_say, findings = curve_findings(result)
    pictures = [
        picture
        for picture in (
            final_picture(result),
            bought_picture(result),
            sensitivity_picture(result),
            best_of_k_picture(result),
            anytime_picture(result),
            space_picture(result),
            importance_picture(result),
            methods_picture(result),
            training_loss(result),
            *evaluation_pictures(result),
            target_picture(result),
            timing_picture(result),
            layer_picture(result, rows),
            learning_rates(result),
            what_curves_say,
        )
        if picture is not None
    ]
    under = {
        "final": final_table(result),
        "bought": bought_table(result),
        "sensitivity": sensitivity_table(result),
        "space": trials_table(result),
        "importance": importance_table(result),
        "timing": timing_table(result),
        "layers": layer_table(result, rows),
        "findings": findings,
    }
    return fill(
        "report.html.j2",
        pictures,
        title=f"{headline(result)} – {result.task}",
        eyebrow=_eyebrow(result),
        headline=headline(result),
        sentences=sentences(result),
        flags=noted,
        marks=marks_of({arm.label: arm.text for arm in result.arms}),
        ranking=ranking_table(result),
        pairs=pair_table(result),
        matrix=matrix_table(result),
        settings=[table for table in (settings_table(result), cost_table(result)) if table],
        budget="" if result.tuning is None else budget_says(result, result.tuning),
        tables_under=_present(under),
        command=reproduce(result),
        protocol=protocol_groups(result),
        protocol_tables=protocol_tables(result),
        folder=result.folder,
    )


def marks_of(arms: Mapping[str, str]) -> list[Mark]:
    """The legend of the arms, from their labels to their texts, in the order of their numbers."""
    looks = [look_of(number) for number in range(len(arms))]
    return [
        Mark(label, text, look.color, PATHS[look.symbol])
        for (label, text), look in zip(arms.items(), looks, strict=True)
    ]


def _present(tables: Mapping[str, Table | None]) -> dict[str, list[Table]]:
    return {key: [table] for key, table in tables.items() if table is not None}


def _eyebrow(result: Result) -> str:
    runs = final_runs(result)
    steps = amount(max((run.planned_steps for run in runs), default=0), "step")
    seeds = amount(len(result.seeds), "seed")
    return " · ".join(
        [
            result.task,
            amount(len(result.arms), "arm"),
            f"{seeds} × {steps}",
            str(result.spec["device"]),
        ]
    )
