"""Run a rule on symbols, and split what it computes into a scalar program and an element graph.

Whatever depends on no element (``1 - beta1**t``, ``lr * weight_decay``, NAdam's momentum product)
is *scalar*: evaluated once per distinct (group, step) in float64. The rest is the *element graph*,
from which kernels are generated.

Sums over a tensor (``norm(p)``, ``total(agrees)``) cut the element graph into passes: what is
summed is a small element graph of its own, and what depends on a sum but on no element is one
number per tensor. Sums of what depends on no other sum are at stage 1, what needs those at stage 2,
and so on; a stage is one reduction pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steepest.kernels.symbols import Graph, Node, Symbol, Untraceable, node_of, ordered
from steepest.rules import Rule

__all__ = ["Pass", "Program", "Specialisation", "specialise", "trace"]

_ALWAYS_STATIC = ("weight_decay",)


@dataclass(frozen=True)
class Specialisation:
    """What is fixed when a kernel is generated; everything else may change from step to step.

    Attributes:
        rule: The rule's name.
        options: The rule's options.
        zeros: The hyperparameters that are zero and left out of the kernel.
        slots: The slots that exist.
    """

    rule: str
    options: tuple[tuple[str, bool | str], ...]
    zeros: tuple[str, ...]
    slots: tuple[str, ...]


def specialise(
    rule: Rule, values: Mapping[str, Any], *, keep: Iterable[str] = ()
) -> Specialisation:
    """What these values fix.

    Args:
        rule: The rule.
        values: Its hyperparameters and options; those that are missing have their default.
        keep: Hyperparameters that stay in the kernel although they are zero here, because some
            other group that shares the launch uses them.
    """
    full = {**rule.hyperparameters, **rule.options, **values}
    gates = {s.when for s in rule.slots.values()}
    static = {n for n in rule.hyperparameters if n in gates or n in _ALWAYS_STATIC} - set(keep)
    return Specialisation(
        rule=rule.name,
        options=tuple((name, full[name]) for name in rule.options),
        zeros=tuple(
            sorted(n for n in static if isinstance(full[n], (int, float)) and full[n] == 0)
        ),
        slots=rule.active_slots(full),
    )


@dataclass(frozen=True)
class Pass:
    """A reduction over every tensor, and the numbers per tensor that follow from it.

    Attributes:
        stage: The stage of everything in here.
        sums: What is summed up in this pass; empty if only numbers become known.
        columns: The numbers per tensor that element graphs read, beside the sums.
    """

    stage: int
    sums: tuple[Node, ...]
    columns: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A traced rule.

    Attributes:
        fixed: What it was traced for.
        element_slots: Active slots of the parameter's shape, in the rule's order.
        tensor_slots: Active slots that are one number per parameter.
        step: What is added to the parameter.
        new_slots: The new value of every active slot, by name; those that stay as they are
            are left out.
        columns: The scalars that the element graphs and the numbers per tensor are made of: a row
            of the scalar table.
        totals: What a tensor contributes to the sums over all tensors.
        passes: The reduction passes, in order.
        early: How many of them come before the totals.
    """

    fixed: Specialisation
    element_slots: tuple[str, ...]
    tensor_slots: tuple[str, ...]
    step: Node
    new_slots: Mapping[str, Node]
    columns: tuple[Node, ...]
    totals: tuple[Node, ...] = ()
    passes: tuple[Pass, ...] = ()
    early: int = 0

    @property
    def tensor_columns(self) -> tuple[Node, ...]:
        """All numbers per tensor that are kept: a row of a table with a row per tensor."""
        return tuple(node for one in self.passes for node in (*one.sums, *one.columns))

    @property
    def element_roots(self) -> tuple[Node, ...]:
        """What the kernel has to compute: the step, then the slots that change."""
        slots = (self.new_slots[s] for s in self.element_slots if s in self.new_slots)
        return (self.step, *slots)

    @property
    def scalar_roots(self) -> tuple[Node, ...]:
        """What the scalar program has to compute: the columns, then the tensor slots."""
        return (*self.columns, *(self.new_slots[s] for s in self.tensor_slots))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The hyperparameters that the scalar program reads."""
        inputs = {n.name for n in ordered(self.scalar_roots) if n.op == "scalar"}
        return tuple(sorted(inputs - {"t", *self.tensor_slots}))


_PROGRAMS: dict[tuple[object, Specialisation], Program] = {}


def trace(rule: Rule, fixed: Specialisation) -> Program:
    """The rule, run once on symbols; the same program for the same arguments.

    Raises:
        InputError: If the rule does what a kernel cannot: branches on a value, or calls
            functions that do not take symbols.
    """
    key = (rule.formula, fixed)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _traced(rule, fixed)
    return _PROGRAMS[key]


def _traced(rule: Rule, fixed: Specialisation) -> Program:
    graph = Graph()

    def symbol(kind: Literal["element", "scalar"], name: str) -> Symbol:
        return Symbol(graph, graph.leaf(kind, name))

    slots = [
        None
        if name not in fixed.slots
        else symbol("scalar" if slot.per in ("tensor", "all") else "element", name)
        for name, slot in rule.slots.items()
    ]
    numbers = {n: 0.0 if n in fixed.zeros else symbol("scalar", n) for n in rule.hyperparameters}
    inputs = (symbol("element", "p"), symbol("element", "g"), *slots, symbol("scalar", "t"))
    values: dict[str, Any] = {**numbers, **dict(fixed.options)}
    totals = tuple(node_of(graph, x) for x in rule.partial_sums(*inputs, **values))
    if totals:
        after = 1 + max(node.stage for node in totals)
        sums = (graph.total(i, stage=after) for i in range(len(totals)))
        values["totals"] = tuple(Symbol(graph, node) for node in sums)
    step, *new = rule(*inputs, **values)
    elements = tuple(s for s in fixed.slots if rule.slots[s].per == "element")
    tensors = tuple(s for s in fixed.slots if rule.slots[s].per in ("tensor", "all"))
    outcome = dict(zip(rule.slots, new, strict=True))
    changed = {}
    for name in fixed.slots:
        node = node_of(graph, outcome[name])
        if name in tensors and node.per_element:
            raise Untraceable(
                f"rule {rule.name}: the slot {name} is one number per tensor, but its new value "
                'depends on the element; declare it per="element"'
            )
        if name in tensors and node.per_tensor:
            raise Untraceable(
                f"{rule.name}: the slot {name} is one number per tensor that follows from a sum "
                "over the tensor, and kernels keep only what follows from the step"
            )
        if name in tensors or node is not graph.leaf("element", name):
            changed[name] = node
    return _program(fixed, elements, tensors, node_of(graph, step), changed, totals)


def _program(
    fixed: Specialisation,
    elements: tuple[str, ...],
    tensors: tuple[str, ...],
    step: Node,
    changed: Mapping[str, Node],
    totals: tuple[Node, ...],
) -> Program:
    roots = (step, *(node for name, node in changed.items() if name in elements))
    columns: dict[Node, None] = {}
    sums: dict[Node, None] = {}
    own: dict[Node, None] = {}
    for root in roots:
        _note(root, columns, own)
    for node in ordered((*roots, *totals)):
        for arg in () if node.per_row else node.args:
            if node.per_element or node.op == "sum" or arg.per_row:
                _note(arg, columns, own)
        if node.op == "sum":
            sums[node] = None
    for total in totals:
        if total.per_row:
            _note(total, columns, own)
    kept = [node for node in own if node not in sums]
    last = max((node.stage for node in totals), default=0)
    stages = {node.stage for node in (*sums, *kept)} | ({last} if totals else set())
    passes = [
        Pass(
            stage,
            tuple(node for node in sums if node.stage == stage),
            tuple(node for node in kept if node.stage == stage),
        )
        for stage in sorted(stages)
    ]
    return Program(
        fixed,
        elements,
        tensors,
        step,
        changed,
        tuple(columns),
        totals,
        tuple(passes),
        sum(one.stage <= last for one in passes),
    )


def _note(node: Node, columns: dict[Node, None], own: dict[Node, None]) -> None:
    """Remember a number that has to be there before the elements are gone through."""
    if node.per_tensor:
        own[node] = None
    elif not node.per_element and node.op != "const":
        columns[node] = None
