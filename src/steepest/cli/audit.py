"""``steepest audit``: is this optimizer what it says it is?"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest.auditing import Audit
from steepest.auditing import audit as audited
from steepest.errors import InputError

__all__ = ["audit"]


def audit(
    optimizer: Annotated[
        str, typer.Argument(help="The class: package.module:Class or path/to/file.py:Class.")
    ],
    rule: Annotated[str, typer.Option("--as", help="The rule that it is said to follow.")],
    arguments: Annotated[
        list[str] | None,
        typer.Option("--set", help="An argument for its constructor: name=value; repeatable."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", help="The rule's name=the optimizer's argument; repeatable."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--value", help="A value of the rule that is known: name=value; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare an optimizer with the float64 formula of a rule and all its dialects.

    Exit code 0: it follows one of them; 3: it follows none, and the term that deviates is named.

    Example: steepest audit torch.optim:NAdam --as nadam
    """
    if ":" not in optimizer:
        raise InputError(
            f"'{optimizer}' names no class; write package.module:Class or path/to/file.py:Class"
        )
    found = audited(
        optimizer,
        rule,
        arguments=_pairs(arguments or (), "--set"),
        names={k: str(v) for k, v in _pairs(names or (), "--map").items()},
        values=_pairs(values or (), "--value"),
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, default=str))
    else:
        _print(found, Console(soft_wrap=True))
    raise typer.Exit(found.exit_code)


def _pairs(texts: Iterable[str], option: str) -> dict[str, Any]:
    pairs = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not (found and name.isidentifier() and value):
            raise InputError(f"{option} takes name=value, got '{text}'")
        pairs[name] = _literal(value)
    return pairs


def _literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _print(found: Audit, console: Console) -> None:
    color = "green" if found.follows else "red"
    console.print(f"[bold {color}]{escape(found.sentence())}[/]\n", highlight=False)
    table = Table("scenario", "off by", "since step", "rounding", "", box=None, pad_edge=False)
    for row in found.rows:
        table.add_row(
            row.scenario,
            "–" if math.isnan(row.off) else f"{row.off:.1e}",
            "" if row.since is None else str(row.since),
            "" if math.isnan(row.tolerance) else f"{row.tolerance:.0e}",
            escape(row.note),
        )
    console.print(table)
    for finding in found.findings[1:]:
        console.print(f"\nalso: {finding}", markup=False, highlight=False)
    told = []
    if found.like:
        told.append(f"the dialect of {', '.join(found.like)}")
    if found.defaults:
        listed = ", ".join(f"{name}={value}" for name, value in found.defaults.items())
        told.append(f"its defaults that are not the rule's: {listed}")
    told += found.notes
    for line in told:
        console.print(f"\n{line}", markup=False, highlight=False)
    console.print(
        f"\nparts of the distance travelled, from what fits best; {found.dtype} parameters",
        style="dim",
        highlight=False,
    )
