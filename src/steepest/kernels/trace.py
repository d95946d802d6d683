"""Run a rule on symbols, and split what it computes into a scalar program and an element graph.

Whatever depends on no element (``1 - beta1**t``, ``lr * weight_decay``, NAdam's momentum product)
is *scalar*: evaluated once per distinct (group, step) in float64. The rest is the *element graph*,
from which kernels are generated.

Sums over a tensor (``norm(p)``, ``total(agrees)``) cut the element graph into passes: what is
summed is a small element graph of its own, and what depends on a sum but on no element is one
number per tensor. Sums of what depends on no other sum are at stage 1, what needs those at stage 2,
and so on; a stage is one reduction pass. Sums over rows and columns (Adafactor) are the same, with
a number per row, per column or per matrix that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from steepest.kernels.symbols import (
    Extent,
    Graph,
    Node,
    Symbol,
    Untraceable,
    View,
    node_of,
    ordered,
)
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
    rule: Rule, values: Mapping[str, Any], *, keep: Iterable[str] = (), ndim: int = 1
) -> Specialisation:
    """What these values fix.

    Args:
        rule: The rule.
        values: Its hyperparameters and options; those that are missing have their default.
        keep: Hyperparameters that stay in the kernel although they are zero here, because some
            other group that shares the launch uses them.
        ndim: The parameters' number of axes (some rules keep less for matrices).
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
        slots=rule.active_slots(full, ndim=ndim),
    )


@dataclass(frozen=True)
class Pass:
    """A reduction over every tensor, and the numbers per tensor that follow from it.

    Attributes:
        stage: The stage of everything in here.
        sums: What is summed up in this pass; empty if only numbers become known.
        columns: The numbers per tensor that element graphs read, beside the sums.
        matrices: The numbers per matrix that become known, sums over its rows first.
        rows: The numbers per row, sums over its elements first.
        across: The numbers per column, likewise.
    """

    stage: int
    sums: tuple[Node, ...]
    columns: tuple[Node, ...]
    matrices: tuple[Node, ...] = ()
    rows: tuple[Node, ...] = ()
    across: tuple[Node, ...] = ()


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
        view: What is a row and what a column.
        row_slots: Active slots with a number per row.
        column_slots: Active slots with a number per column.
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
    view: View = "none"
    row_slots: tuple[str, ...] = ()
    column_slots: tuple[str, ...] = ()

    @property
    def matrix_values(self) -> tuple[Node, ...]:
        """All numbers per matrix that are kept."""
        return tuple(node for one in self.passes for node in one.matrices)

    @property
    def row_values(self) -> tuple[Node, ...]:
        """All numbers per row that are kept."""
        return tuple(node for one in self.passes for node in one.rows)

    @property
    def column_values(self) -> tuple[Node, ...]:
        """All numbers per column that are kept."""
        return tuple(node for one in self.passes for node in one.across)

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


_KINDS: dict[str, Literal["element", "row", "column", "scalar"]] = {
    "element": "element",
    "row": "row",
    "column": "column",
    "tensor": "scalar",
    "all": "scalar",
}

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

    def symbol(kind: Literal["element", "row", "column", "scalar"], name: str) -> Symbol:
        return Symbol(graph, graph.leaf(kind, name))

    slots = [
        symbol(_KINDS[slot.per], name) if name in fixed.slots else None
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
        if name in tensors and not node.per_step:
            raise Untraceable(
                f"{rule.name}: the slot {name} is one number per tensor that follows from a sum "
                "over the tensor, and kernels keep only what follows from the step"
            )
        kind = _KINDS[rule.slots[name].per]
        if kind in ("row", "column") and node.extent != kind:
            raise Untraceable(
                f"rule {rule.name}: the slot {name} is one number per {kind}, but its new value is "
                f"one per {node.extent}"
            )
        if name in tensors or node is not graph.leaf(kind, name):
            changed[name] = node
    slots_per = {
        kind: tuple(s for s in fixed.slots if rule.slots[s].per == kind)
        for kind in ("row", "column")
    }
    return _program(
        Program(
            fixed=fixed,
            element_slots=elements,
            tensor_slots=tensors,
            step=node_of(graph, step),
            new_slots=changed,
            columns=(),
            totals=totals,
            view=graph.view,
            row_slots=slots_per["row"],
            column_slots=slots_per["column"],
        )
    )


def _program(traced: Program) -> Program:
    """With the passes that it takes to compute what was traced."""
    totals = traced.totals
    kept: dict[Extent, dict[Node, None]] = {
        extent: {} for extent in ("step", "tensor", "matrix", "row", "column", "element")
    }

    def keep(node: Node) -> None:
        if node.op != "const":
            kept[node.extent][node] = None

    beside = [
        traced.new_slots[slot]
        for slot in (*traced.row_slots, *traced.column_slots)
        if slot in traced.new_slots
    ]
    for root in (*traced.element_roots, *beside, *(x for x in totals if x.per_step)):
        keep(root)
    for node in ordered((*traced.element_roots, *beside, *totals)):
        for arg in node.args:
            if node.reduces or arg.extent != node.extent:
                keep(arg)
        if node.reduces:
            keep(node)
    sums = [node for node in kept["tensor"] if node.op == "sum"]
    own = [node for node in kept["tensor"] if node.op != "sum"]
    small: tuple[Extent, ...] = ("matrix", "row", "column")
    last = max((node.stage for node in totals), default=0)
    stages = {node.stage for node in (*sums, *own, *(x for e in small for x in kept[e]))}
    passes = [
        Pass(
            stage,
            tuple(node for node in sums if node.stage == stage),
            tuple(node for node in own if node.stage == stage),
            *(_at_stage(kept[extent], stage) for extent in small),
        )
        for stage in sorted(stages | ({last} if totals else set()))
    ]
    return replace(
        traced,
        columns=tuple(kept["step"]),
        passes=tuple(passes),
        early=sum(one.stage <= last for one in passes),
    )


def _at_stage(nodes: Iterable[Node], stage: int) -> tuple[Node, ...]:
    """Those that become known at a stage, reductions first."""
    known = [node for node in nodes if node.stage == stage]
    return tuple(sorted(known, key=lambda node: not node.reduces))
