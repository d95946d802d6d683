"""``steepest diagnose``: what these learning curves say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from steepest import craft
from steepest.diagnosing import Finding, Group

__all__ = ["diagnose"]


def diagnose(
    source: Annotated[
        Path,
        typer.Argument(
            help="A race's folder, a CSV file, TensorBoard event files or their folder, a Hugging "
            "Face trainer_state.json or its folder, or a Keras history as JSON."
        ),
    ],
    train_loss: Annotated[
        str | None, typer.Option(help="The column or tag of the training loss.")
    ] = None,
    val_loss: Annotated[
        str | None, typer.Option(help="The column or tag of the validation loss.")
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(help="The column or tag of the learning rate; constant: it never changed."),
    ] = None,
    step: Annotated[str | None, typer.Option(help="The column that counts the steps.")] = None,
    baseline: Annotated[
        float | None,
        typer.Option(
            help="Loss of the best constant prediction, such as log(10) = 2.303 for ten classes; "
            "the yardstick where the record does not reach back to the start."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file with the marked curves. Default: diagnosis.html, in a "
                     "race's folder or here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:  # fmt: skip
    """Name what learning curves show, with the evidence and what to do about it.

    Exit code 0, whatever is found; nothing to report is an answer too.

    Example: steepest diagnose runs/mnist-3f2a9c10
    """
    found = craft.diagnose(
        source, baseline=baseline, train_loss=train_loss, val_loss=val_loss, lr=lr, step=step
    )
    page = found.report(out)
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "report": str(page)}, indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{escape(found.headline)}[/]")
    for group in found.groups:
        _print_group(group, console, alone=len(found.groups) == 1)
    for note in dict.fromkeys(note for run in found.runs for note in run.curves.notes):
        console.print(f"\n[yellow]note:[/] {escape(note)}")
    console.print(f"\npicture: {escape(str(page))}")


def _print_group(group: Group, console: Console, *, alone: bool) -> None:
    if not alone:
        console.print(f"\n[bold]{escape(group.name)}[/]")
    for found, count in group.shared:
        _print_finding(found, group.heard(count) if len(group.runs) > 1 else "", console)
    rare = {k: n for k, n in group.counts.items() if 2 * n < len(group.runs)}
    for kind, count in rare.items():
        console.print(f"  [dim]{kind.replace('_', ' ')} in {group.heard(count)} only[/]")
    if not group.counts and not alone:
        console.print("  nothing to report")
    unchecked: dict[str, list[str]] = {}
    for kind, reason in group.runs[0].unchecked.items():
        unchecked.setdefault(reason, []).append(kind.replace("_", " "))
    for reason, kinds in unchecked.items():
        console.print(f"  [dim]not looked for: {', '.join(kinds)}; {escape(reason)}[/]")


def _print_finding(found: Finding, where: str, console: Console) -> None:
    console.print(f"\n  [bold yellow]{found.title}[/]" + (f" ({where})" if where else ""))
    console.print(f"  {escape(found.evidence)}")
    console.print(f"  [green]→[/] {escape(found.advice)}")
