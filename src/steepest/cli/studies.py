"""What the commands that study one arm have in common: progress, and what they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from steepest.cli.progress import Drawn
from steepest.reporting.studies import print_study, study_json
from steepest.studying import StudyResult

__all__ = ["StudyProgress", "show_study"]


class StudyProgress(Drawn):
    """A watcher that draws one bar on a terminal, and prints notes elsewhere too."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True)
        self.quiet = quiet
        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.description}"),
            console=self.console,
            transient=True,
            speed_estimate_period=180.0,
            disable=quiet or not self.console.is_terminal,
        )
        self._bar: TaskID | None = None

    def advanced(self, done: int, total: int, text: str) -> None:
        """Move the bar."""
        if self._bar is None:
            self._bar = self._progress.add_task(escape(text), total=total)
        self._progress.update(self._bar, completed=done, total=total, description=escape(text))

    def note(self, text: str) -> None:
        """Say something that a person should know now."""
        if not self.quiet:
            self.console.print(f"[dim]{escape(text)}[/]", highlight=False)


def show_study(study: StudyResult, *, as_json: bool, report: Path | None = None) -> None:
    """Print what came out, write the page, and name it in the last line."""
    page = study.report(report)
    if as_json:
        json.dump({**study_json(study), "report": str(page)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console()
    print_study(study, console)
    console.print(f"\nreport: {escape(str(page))}", highlight=False, soft_wrap=True)


def typed() -> str:
    """What was typed, for the page."""
    import shlex

    return shlex.join(["steepest", *sys.argv[1:]])


JSON = typer.Option("--json", help="Print the result as JSON.")
QUIET = typer.Option("--quiet", "-q", help="No progress.")
FRESH = typer.Option("--fresh", help="Delete what lies in the folder and begin again.")
