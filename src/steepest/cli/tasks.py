"""``steepest tasks``: the ready-made tasks."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from steepest import tasks as ready_made

__all__ = ["tasks"]


def tasks(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the ready-made tasks; a task of your own is named as my_task.py:task.

    Example: steepest tasks
    """
    described = {name: ready_made.describe(name) for name in ready_made.names()}
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    table = Table("task", "what it is", box=None, pad_edge=False)
    for name, text in described.items():
        table.add_row(name, text)
    Console().print(table)
