"""``steepest sweep``: which learning rates stand still, learn, and blow up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steepest import ranging
from steepest.cli.studies import FRESH, JSON, QUIET, StudyProgress, typed
from steepest.cli.task_options import takes_task_options
from steepest.errors import InputError
from steepest.reporting.save import FORMATS, check_format
from steepest.reporting.sweep import sweep_flags, sweep_lines

__all__ = ["show_sweep", "sweep"]


@takes_task_options
def sweep(
    task: Annotated[
        str, typer.Argument(help="A ready-made task (steepest tasks), or my_task.py:task.")
    ],
    arm: Annotated[
        str,
        typer.Option(help="The optimizer: adam, 'sgd(momentum=0.9)', package.module:Class."),
    ],
    lr: Annotated[
        str | None, typer.Option(help="The range of learning rates. Default: 1e-6..10.")
    ] = None,
    rates: Annotated[int, typer.Option(help="How many, evenly spread over the logarithm.")] = 36,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps of every run.")] = 100,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    classical: Annotated[
        bool, typer.Option("--classical", help="One run per seed whose rate grows in every step.")
    ] = False,
    level: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder. Default: named by task and settings.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw it into this .html, .svg or .png file.")
    ] = None,
    fresh: Annotated[bool, FRESH] = False,
    as_json: Annotated[bool, JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Test a range of learning rates: where the loss falls the fastest, and where it blows up.

    Every rate is held constant for a short run, with several seeds; the runs of a seed have the
    same start and train at once. A model that cannot be batched gets the classical test instead.
    Repeating the command goes on where it stopped; a finished sweep is only shown.

    Example: steepest sweep mnist-mlp --arm adam --picture sweep.svg
    """
    if out is not None and out.suffix.lower() in FORMATS:
        raise InputError(
            f"--out is the folder of the sweep, and '{out}' looks like a picture; to draw one, say "
            f"--picture {out}"
        )
    if picture is not None:
        check_format(picture)
    with StudyProgress(quiet=quiet or as_json) as progress:
        result = ranging.sweep(
            task,
            arm,
            lr=None if lr is None else ranging.read_range(lr),
            rates=rates,
            seeds=seeds,
            steps=steps,
            batch_size=batch_size,
            device=device,
            classical=classical,
            level=level,
            out=out,
            fresh=fresh,
            progress=lambda done, total: progress.advanced(
                done, total, f"{done:,}/{total:,} run-steps"
            ),
            command=typed(),
        )
    show_sweep(result, as_json=as_json, picture=picture)


def show_sweep(
    result: ranging.SweepResult,
    *,
    as_json: bool,
    report: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Print what came out, write page and picture, and name the page in the last line."""
    page = result.report(report)
    drawn = None if picture is None else result.draw(picture)
    if as_json:
        values = {**result.to_dict(), "report": str(page)}
        json.dump(values if drawn is None else {**values, "picture": str(drawn)}, sys.stdout,
                  indent=2)  # fmt: skip
        sys.stdout.write("\n")
        return
    console = Console()
    console.print(f"[bold]{escape(result.headline)}[/]", highlight=False)
    for sentence in result.sentences:
        console.print(escape(sentence), highlight=False)
    for flag in sweep_flags(result):
        console.print(f"[dim]Note: {escape(flag.text)}[/]", highlight=False)
    lines = sweep_lines(result)
    if lines:
        console.print("\nloss over the learning rate; ▲ suggestion, ╳ edge of stability")
        for line in lines:
            console.print(line, markup=False, highlight=False)
    if drawn is not None:
        console.print(f"\npicture: {escape(str(drawn))}", highlight=False, soft_wrap=True)
    console.print(f"\nreport: {escape(str(page))}", highlight=False, soft_wrap=True)
