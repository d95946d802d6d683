"""What many rules have in common, written once: a modifier makes a rule out of a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Formula", "Kind", "Modifier", "Values", "compose", "compose_sums"]

Formula = Callable[..., tuple[Any, ...]]
Kind = Literal["elementwise", "norms", "matrix"]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Modifier:
    """A rule in, a rule out: up to three pure functions, and the numbers that they need.

    Modifiers lie around a formula like the skins of an onion. On the way in, from the outermost
    to the innermost, each may change the gradient; on the way out, from the innermost to the
    outermost, each may change the step. Every function is handed the values of all
    hyperparameters and options of the modified rule.

    Attributes:
        name: How it is called: ``cautious(adamw)``.
        gradient: ``(p, g, values, totals) -> g``.
        step: ``(p, g, step, values) -> step``, with the gradient that the formula has seen.
        sums: ``(p, g, values) -> tuple``: numbers of this tensor that have to be added up over
            all tensors before the step; their totals are what ``gradient`` is handed.
        hyperparameters: Names and defaults that it adds (numbers).
        options: Names and defaults that it adds (choices).
        choices: The allowed values of each option that is a string.
        kind: ``norms`` if it reduces over a tensor.
        innermost: Put next to the formula, below the modifiers that the rule already has.
        paper: Where it stands.
    """

    name: str
    gradient: Callable[[Any, Any, Values, tuple[Any, ...]], Any] | None = None
    step: Callable[[Any, Any, Any, Values], Any] | None = None
    sums: Callable[[Any, Any, Values], tuple[Any, ...]] | None = None
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, bool | str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: Kind = "elementwise"
    innermost: bool = False
    paper: str = ""


def compose(
    formula: Formula, modifiers: Sequence[Modifier], *, keywords: frozenset[str]
) -> Formula:
    """The formula with its modifiers around it, the last one outermost.

    Args:
        formula: The bare formula.
        modifiers: From the innermost to the outermost.
        keywords: What the formula itself takes; the modifiers are handed everything.
    """
    if not modifiers:
        return formula

    def modified(p: Any, g: Any, *slots_t: Any, **values: Any) -> tuple[Any, ...]:
        totals = values.get("totals", ())
        for modifier in reversed(modifiers):
            if modifier.gradient is not None:
                g = modifier.gradient(p, g, values, totals)
        own = {name: value for name, value in values.items() if name in keywords}
        step, *slots = formula(p, g, *slots_t, **own)
        for modifier in modifiers:
            if modifier.step is not None:
                step = modifier.step(p, g, step, values)
        return step, *slots

    modified.__doc__ = formula.__doc__
    return modified


def compose_sums(
    sums: Formula | None, modifiers: Sequence[Modifier], *, keywords: frozenset[str]
) -> Formula | None:
    """What one tensor contributes to the totals that the formula or a modifier asks for.

    Args:
        sums: The bare formula's own sums.
        modifiers: From the innermost to the outermost.
        keywords: What ``sums`` itself takes.
    """
    if sums is None and all(modifier.sums is None for modifier in modifiers):
        return None

    def modified(p: Any, g: Any, *slots_t: Any, **values: Any) -> tuple[Any, ...]:
        for modifier in reversed(modifiers):
            if modifier.sums is not None:
                return modifier.sums(p, g, values)
            if modifier.gradient is not None:
                g = modifier.gradient(p, g, values, ())
        own = {name: value for name, value in values.items() if name in keywords}
        return () if sums is None else sums(p, g, *slots_t, **own)

    return modified
