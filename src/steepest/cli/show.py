"""What the commands print at the end: the verdict, and where the report lies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from steepest.api import RaceResult
from steepest.reporting.terminal import print_result, result_json

__all__ = ["Failed", "show"]


class Failed(typer.Exit):
    """The command did its work, but some run did not: exit code 1."""

    def __init__(self) -> None:
        super().__init__(1)


def show(result: RaceResult, *, as_json: bool, report: Path | None = None) -> None:
    """Print the result, write the report, and name it in the last line.

    Raises:
        Failed: If a run of the race failed.
    """
    page = result.report(report)
    if as_json:
        json.dump({**result_json(result), "report": str(page)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        console = Console()
        print_result(result, console)
        console.print(f"\nreport: {escape(str(page))}", highlight=False, soft_wrap=True)
    if any(run.status == "failed" for run in result.runs):
        raise Failed
