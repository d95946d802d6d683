"""``steepest schedules``: what there is, and what a learning rate does over a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest.reporting import schedules as drawing
from steepest.reporting.save import check_format
from steepest.schedules import Schedule

__all__ = ["schedules"]

_MOST = 1000  # points of a curve in JSON


def schedules(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Schedules as arms have them, each quoted; all of them if left out."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Length of the run.")] = 1000,
    lr: Annotated[float, typer.Option(help="The base learning rate.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Also draw them into this .html, .svg or .png file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the learning-rate schedules, or draw some of them over a run.

    Example: steepest schedules 'cosine(warmup=0.05)' 'wsd(decay=0.2)' --steps 5000 --out lr.png
    """
    if out is not None:
        check_format(out)
    names = [row["name"] for row in drawing.listed()]
    found = drawing.resolve(texts or names, steps)
    written = drawing.draw_schedules(texts, out, steps=steps, lr=lr) if out is not None else None
    if as_json:
        body: dict[str, Any] = {"steps": steps, "lr": lr}
        body["schedules"] = [_facts(schedule, steps, lr) for schedule in found]
        if written is not None:
            body["picture"] = str(written)
        typer.echo(json.dumps(body, indent=2))
        return
    console = Console()
    if texts:
        for schedule in found:
            console.print(f"[bold]{escape(schedule.text)}[/]", highlight=False)
            for line in drawing.terminal_lines(schedule, steps, lr=lr):
                console.print(line, markup=False, highlight=False)
    else:
        console.print(_table(steps))
    if written is not None:
        console.print(f"\npicture: {escape(str(written))}", highlight=False, soft_wrap=True)


def _facts(schedule: Schedule, steps: int, lr: float) -> dict[str, Any]:
    """A schedule as plain values."""
    places, rates = drawing.rates(schedule, steps, lr=lr, most=_MOST)
    return {
        "text": schedule.text,
        "name": schedule.name,
        "arguments": dict(schedule.arguments),
        "step": places.tolist(),
        "lr": rates.tolist(),
    }


def _table(steps: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_lines=True)
    table.add_column("schedule", no_wrap=True)
    table.add_column(f"over {steps:,} steps", no_wrap=True)
    table.add_column("what it does, and its arguments", overflow="fold")
    for row in drawing.listed():
        (schedule,) = drawing.resolve(row["name"], steps)
        drawn = drawing.braille(
            drawing.rates(schedule, steps, most=200)[1], low=0.0, high=1.0, width=20, height=3
        )
        arguments = ", ".join(f"{key}={value}" for key, value in row["arguments"].items())
        table.add_row(
            row["name"], "\n".join(drawn), f"{escape(row['summary'])}\n[dim]{escape(arguments)}[/]"
        )
    return table
