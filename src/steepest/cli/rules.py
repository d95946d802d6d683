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
from steepest.errors import InputError, UnsupportedError, unknown_name
from steepest.rules import Rule

__all__ = ["rules"]


def rules(
    name: Annotated[
        str | None, typer.Argument(help="Show one rule; all of them if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    show: Annotated[
        str | None, typer.Option(help="Print the generated kernel instead: cpp or triton.")
    ] = None,
) -> None:
    """List the optimizers' formulas, or show one: equations, settings, dialects, slots, paper.

    Example: steepest rules nadam --show cpp
    """
    if show is not None:
        typer.echo(_kernel(name, show))
        return
    chosen = [registry.get(name)] if name else [registry.get(n) for n in registry.names()]
    if as_json:
        listed = [{**_facts(rule), "dialects": _dialects(rule)} for rule in chosen]
        typer.echo(json.dumps(listed[0] if name else listed, indent=2))
        return
    console = Console()
    if name:
        _print_one(chosen[0], console)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    for head in ("kind", "slots", "bytes per parameter", "paper"):
        table.add_column(head, overflow="fold")
    for rule in chosen:
        facts = _facts(rule)
        table.add_row(
            rule.name,
            rule.kind,
            ", ".join(facts["slots"]),
            facts["bytes_per_parameter"],
            rule.paper,
        )
    console.print(table)
    console.print(
        "\nSlots and bytes (float32) are those of the default settings; m × n is a matrix's shape.",
        style="dim",
    )


def _kernel(name: str | None, language: str) -> str:
    """The source of a rule's float32 kernel at its default settings.

    Raises:
        InputError: If no rule or an unknown language was named.
        UnsupportedError: If there is no generated kernel for rules of its kind.
    """
    if name is None:
        raise InputError("--show prints one rule's kernel; name it: steepest rules adam --show cpp")
    if language not in ("cpp", "triton"):
        raise unknown_name("language of kernels", language, ("cpp", "triton"))
    rule = registry.get(name)
    if rule.kind != "elementwise":
        raise UnsupportedError(
            f"{rule.name} has no generated kernel: a rule of kind {rule.kind} sees whole tensors, "
            "and runs on torch's own operations; those of kind elementwise have one"
        )
    import torch

    from steepest.kernels import cpu, cuda
    from steepest.kernels.trace import specialise, trace

    generate = cpu.source if language == "cpp" else cuda.source
    return generate(trace(rule, specialise(rule, {})), torch.float32, torch.float32)


def _dialects(rule: Rule) -> list[dict[str, Any]]:
    """What other libraries mean by the rule's name."""
    from steepest.testing.dialects_page import rows_of

    return [
        {
            "class": row.path,
            "rule": row.rule,
            "values": dict(row.values),
            "off": row.off,
            "note": row.note,
        }
        for row in rows_of(rule)
    ]


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
        "bytes_per_parameter": registry.memory_formula(rule),
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
    dialects = _dialects(rule)
    if dialects:
        _print_dialects(dialects, rule, console)


def _print_dialects(dialects: list[dict[str, Any]], rule: Rule, console: Console) -> None:
    from steepest.testing.dialects_page import shown

    table = Table("in other libraries", "is", "off by", "", box=None, pad_edge=False)
    for row in dialects:
        name = "" if row["rule"] == rule.name else f"{row['rule']}: "
        table.add_row(
            row["class"], name + escape(shown(row["values"])), f"{row['off']:.0e}", row["note"]
        )
    console.print()
    console.print(table)
