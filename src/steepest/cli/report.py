"""``steepest report``: show a race, a study or a sweep, finished or still running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest import api
from steepest.cli.show import show
from steepest.cli.studies import show_study
from steepest.cli.sweep import show_sweep
from steepest.errors import InputError
from steepest.racing import journal
from steepest.ranging import SweepResult
from steepest.reporting import write_summary_svg
from steepest.studying import StudyResult
from steepest.sweeping.folder import KIND as SWEEP

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a race, a study or a sweep.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file. Default: report.html in the folder.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Also draw a picture: of a race a small .svg for a README, of a sweep an .html, "
            ".svg or .png file."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what came out, such as a race's verdict, and write its report; nothing is trained.

    Another process may be running the race meanwhile: reading never holds it up.

    Example: steepest report runs/mnist-adadelta-adam --out verdict.html
    """
    kind = journal.kind(folder)
    if kind == SWEEP:
        show_sweep(SweepResult.read(folder), as_json=as_json, report=out, picture=picture)
        return
    if kind is not None:
        if picture is not None:
            raise InputError(f"--picture draws a race; {folder} is the folder of a study")
        show_study(StudyResult(folder), as_json=as_json, report=out)
        return
    result = api.load(folder)
    if picture is not None:
        if isinstance(result, api.MultiResult):
            raise InputError(
                f"--picture draws a race over one task: give the folder of one of "
                f"{', '.join(str(race.folder) for race in result.results.values())}"
            )
        write_summary_svg(result, picture)
    show(result, as_json=as_json, report=out)
