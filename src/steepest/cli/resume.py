"""``steepest resume``: go on with a race that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest import api
from steepest.cli.progress import RaceProgress
from steepest.cli.show import show
from steepest.racing.several import is_several, places

__all__ = ["resume"]


def resume(
    folder: Annotated[Path, typer.Argument(help="The race's folder.")],
    seeds: Annotated[
        str | None,
        typer.Option(
            help="+10: ten fresh seeds more for the final stage. The error rate is kept, see "
            "the page on statistics."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Go on where a race stopped; the outcome is bitwise that of an uninterrupted one.

    Example: steepest resume runs/mnist-adadelta-adam

    Example: steepest resume runs/mnist-adadelta-adam --seeds +10
    """
    races = len(places(folder)) if is_several(folder) else 1
    with RaceProgress(Console(stderr=True), quiet=quiet or as_json, races=races) as progress:
        result = api.resume(folder, seeds=seeds, observer=progress)
    show(result, as_json=as_json)
