"""``steepest sweep``: which learning rates stand still, learn, and blow up."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from steepest import api
from steepest.cli.task_options import takes_task_options
from steepest.reporting.save import check_format
from steepest.reporting.sweep import draw_sweep, sweep_lines

__all__ = ["sweep"]


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
        Path | None, typer.Option(help="Draw it into this .html, .svg or .png file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Test a range of learning rates: where the loss falls the fastest, and where it blows up.

    Every rate is held constant for a short run, with several seeds from the same start, all of them
    at once as one population. A model that cannot be batched gets the classical test instead.

    Example: steepest sweep mnist-mlp --arm adam --out sweep.html
    """
    if out is not None:
        check_format(out)
    console = Console(stderr=True)
    with Progress(
        TextColumn("[bold]sweeping"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,}/{task.total:,} run-steps"),
        TimeElapsedColumn(),
        TextColumn("· left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or as_json or not console.is_terminal,
    ) as bar:
        shown = bar.add_task("", total=rates * seeds * steps)
        result = api.sweep(
            task,
            arm,
            lr=None if lr is None else api.read_range(lr),
            rates=rates,
            seeds=seeds,
            steps=steps,
            batch_size=batch_size,
            device=device,
            classical=classical,
            level=level,
            progress=lambda done, total: bar.update(shown, completed=done, total=total),
        )
    command = shlex.join(["steepest", *sys.argv[1:]])
    written = None if out is None else draw_sweep(result, out, command=command)
    if as_json:
        body = result.to_dict() | ({} if written is None else {"picture": str(written)})
        typer.echo(json.dumps(body, indent=2))
        return
    _show(result, written)


def _show(result: api.SweepResult, written: Path | None) -> None:
    console = Console()
    console.print(f"[bold]{escape(result.headline)}[/]", highlight=False)
    for sentence in result.sentences:
        console.print(escape(sentence), highlight=False)
    for note in result.findings.notes:
        console.print(f"[dim]Note: {escape(note)}[/]", highlight=False)
    lines = sweep_lines(result)
    if lines:
        console.print("\nloss over the learning rate; ▲ suggestion, ╳ edge of stability")
        for line in lines:
            console.print(line, markup=False, highlight=False)
    if written is not None:
        console.print(f"\npicture: {escape(str(written))}", highlight=False, soft_wrap=True)
