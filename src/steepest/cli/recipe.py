"""``steepest recipe``: from nothing to a trained setting, in seven steps."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from steepest import craft
from steepest.cli.progress import Drawn
from steepest.cli.task_options import takes_task_options
from steepest.numbers import time_text
from steepest.racing.spec import Plan
from steepest.recipes import TITLES, Record
from steepest.reporting.recipe import recipe_json

__all__ = ["recipe"]


@takes_task_options
def recipe(
    task: Annotated[
        str, typer.Argument(help="A ready-made task (steepest tasks), or my_task.py:task.")
    ],
    arm: Annotated[
        str,
        typer.Option(
            help="The optimizer: adam, 'sgd(momentum=0.9)', 'package.module:Class()'. Its rate and "
            "weight decay are looked for."
        ),
    ],
    start: Annotated[
        int | None,
        typer.Option(
            "--from", help="Begin with this step, also over a gate before it that was shut."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for all seven steps.")] = 15.0,
    seeds: Annotated[int, typer.Option(help="Fresh seeds of the last measurement.")] = 3,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="The folder. Default: named by task and arm, under runs/.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what lies in the folder and begin again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Seven steps, each with a gate: start, tiny sample, rate, grid, longer, curves, refining.

    Exit code 0: all of it is done; 3: a gate is shut, with what to check. Repeating the command
    goes on where it stopped.

    Example: steepest recipe mnist --arm adam
    """
    with RecipeProgress(Console(stderr=True), quiet=quiet or as_json) as progress:
        found = craft.recipe(
            task,
            arm,
            minutes=minutes,
            seeds=seeds,
            batch_size=batch_size,
            device=device,
            start=start,
            out=out,
            fresh=fresh,
            command=shlex.join(["steepest", *sys.argv[1:]]),
            watcher=progress,
        )
    page = found.folder / "recipe.html"
    if as_json:
        typer.echo(json.dumps({**recipe_json(found), "report": str(page)}, indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False)
        console.print(f"\n[bold]{escape(found.headline)}[/]")
        shut = next((r for r in found.records.values() if not r.passed and not r.forced), None)
        for text in shut.advice if shut is not None else ():
            console.print(f"  [green]→[/] {escape(text)}")
        console.print(f"\nreport: {escape(str(page))}")
    if any(not r.passed and not r.forced for r in found.records.values()):
        raise typer.Exit(3)


class RecipeProgress(Drawn):
    """Watches the steps and their races: one line per step that is done, one bar for the next."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self.console = console
        self.quiet = quiet
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[left]}"),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=None, left="", visible=False)
        self._steps: dict[str, int] = {}
        self._now = ""
        self._left = ""

    def begins(self, step: int, seconds_left: float) -> None:
        """Name the step and the time that is left for it and those after it."""
        self._left = f"{time_text(max(0.0, seconds_left))} left"
        self._now = f"{step}/{len(TITLES)} {TITLES[step]}"
        self._progress.update(
            self._bar, description=escape(self._now), total=None, left=self._left, visible=True
        )
        if not self.quiet and not self.console.is_terminal:
            self.console.print(f"{self._now} ({self._left})", highlight=False, markup=False)

    def found(self, record: Record) -> None:
        """Print what a step found."""
        if not self.quiet:
            mark = "[green]open[/]" if record.passed else "[red]shut[/]"
            self.console.print(
                f"{record.step}/{len(TITLES)} {mark} {escape(record.sentence)}", highlight=False
            )

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        """A race of this step begins."""
        self._steps = {run.run_id: done.get(run.run_id, 0) for run in plan.runs}
        total = sum(run.steps for run in plan.runs)
        self._progress.update(self._bar, total=total, completed=sum(self._steps.values()))

    def added(self, plan: Plan) -> None:
        """The race has grown."""
        total = sum(run.steps for run in plan.runs)
        self._progress.update(self._bar, total=total)

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        """Move the bar."""
        self._steps[run_id] = step
        self._progress.update(self._bar, completed=sum(self._steps.values()))

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        """Runs are many and short; what they found is said by the step."""

    def note(self, text: str) -> None:
        """The engine's notes are in the ledgers."""
