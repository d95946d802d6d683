"""``steepest rules``: what there is, and what each rule computes."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest import rules as registry
from steepest.rules import Rule

__all__ = ["rules"]


def rules(
    name: Annotated[
        str | None, typer.Argument(help="Show one rule; all of them if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the optimizers' formulas, or show one: its equations, slots, settings and paper.

    Example: steepest rules nadam
    """
    chosen = [registry.get(name)] if name else [registry.get(n) for n in registry.names()]
    if as_json:
        listed = [_facts(rule) for rule in chosen]
        typer.echo(json.dumps(listed[0] if name else listed, indent=2))
        return
    console = Console()
    if name:
        _print_one(chosen[0], console)
        return
    table = Table("rule", "kind", "slots", "bytes per parameter", "paper", box=None, pad_edge=False)
    for rule in chosen:
        facts = _facts(rule)
        table.add_row(
            rule.name,
            rule.kind,
            ", ".join(facts["slots"]),
            str(facts["bytes_per_parameter"]),
            rule.paper,
        )
    console.print(table)
    console.print("\nSlots and bytes (float32) are those of the default settings.", style="dim")


def _facts(rule: Rule) -> dict[str, Any]:
    """Everything about a rule as plain values."""
    active = rule.active_slots({})
    return {
        "name": rule.name,
        "summary": rule.summary,
        "kind": rule.kind,
        "paper": rule.paper,
        "slots": list(active),
        "optional_slots": [slot for slot in rule.slots if slot not in active],
        "bytes_per_parameter": 4 * sum(rule.slots[slot].per == "element" for slot in active),
        "hyperparameters": dict(rule.hyperparameters),
        "options": {
            option: {"default": value, "choices": list(rule.choices.get(option, (True, False)))}
            for option, value in rule.options.items()
        },
    }


def _print_one(rule: Rule, console: Console) -> None:
    facts = _facts(rule)
    console.print(f"[bold]{rule.name}[/]  ({rule.kind}, {rule.paper})\n", highlight=False)
    console.print(inspect.getdoc(rule.formula) or rule.summary, markup=False, highlight=False)
    table = Table("setting", "default", "allowed", box=None, pad_edge=False)
    for key, default in rule.hyperparameters.items():
        table.add_row(key, f"{default:g}", escape(registry.DOMAINS[key].describe()))
    for key, option in facts["options"].items():
        table.add_row(key, str(option["default"]), ", ".join(map(str, option["choices"])))
    console.print()
    console.print(table)
    console.print(f"\nslots: {', '.join(rule.slots) or 'none'}", highlight=False)
