"""What the commands print at the end: the verdict, and where the report lies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from steepest.api import MultiResult, RaceResult
from steepest.reporting.several import print_several, several_json
from steepest.reporting.terminal import print_result, result_json

__all__ = ["Failed", "show"]


class Failed(typer.Exit):
    """The command did its work, but some run did not: exit code 1."""

    def __init__(self) -> None:
        super().__init__(1)


def show(result: RaceResult | MultiResult, *, as_json: bool, report: Path | None = None) -> None:
    """Print the result, write the report, and name it in the last line.

    Raises:
        Failed: If a run of the race failed.
    """
    page = result.report(report)
    races = [result] if isinstance(result, RaceResult) else [*result.results.values()]
    if as_json:
        values = result_json(result) if isinstance(result, RaceResult) else several_json(result)
        json.dump({**values, "report": str(page)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        console = Console()
        if isinstance(result, RaceResult):
            print_result(result, console)
        else:
            print_several(result, console)
        console.print(f"\nreport: {escape(str(page))}", highlight=False, soft_wrap=True)
    final = (run for race in races for run in race.runs if run.stage == "final")
    if any(run.status == "failed" for run in final):
        raise Failed
