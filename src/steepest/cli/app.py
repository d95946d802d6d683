"""Putting the commands together, and turning errors into messages and exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steepest import __version__
from steepest.cli import (
    audit,
    average,
    bench,
    diagnose,
    ensemble,
    race,
    recipe,
    report,
    resume,
    rules,
    schedules,
    search,
    sweep,
    tasks,
    transfer,
)
from steepest.cli.words import SpreadArms
from steepest.errors import SteepestError

__all__ = ["main"]

app = typer.Typer(
    name="steepest",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which optimizer, learning rate and schedule for my model and data, and how sure can I be?"""


app.command("race", cls=SpreadArms)(race.race)
app.command("search")(search.search)
app.command("resume")(resume.resume)
app.command("report")(report.report)
app.command("recipe")(recipe.recipe)
app.command("diagnose")(diagnose.diagnose)
app.command("sweep")(sweep.sweep)
app.command("average")(average.average)
app.command("ensemble")(ensemble.ensemble)
app.command("transfer")(transfer.transfer)
app.command("audit")(audit.audit)
app.command("tasks")(tasks.tasks)
app.command("rules")(rules.rules)
app.command("schedules")(schedules.schedules)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """The entry point of the console script."""
    try:
        app()
    except SteepestError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
