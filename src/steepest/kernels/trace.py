"""Run a rule on symbols, and split what it computes into a scalar program and an element graph.

Whatever depends on no element (``1 - beta1**t``, ``lr * weight_decay``, NAdam's momentum product)
is *scalar*: evaluated once per distinct (group, step) in float64. The rest is the *element graph*,
from which kernels are generated. Equal expressions are one node, constants are folded, and scalar
factors are gathered, so that ``-lr * (m / c1) / (sqrt(v / c2) + eps)`` costs an element one square
root, one division and two multiplications.

Sums over a tensor (``norm(p)``, ``total(agrees)``) cut the element graph into passes: what is
summed is a small element graph of its own, and what depends on a sum but on no element is one
number per tensor. Sums of what depends on no other sum are at stage 1, what needs those at stage 2,
and so on; a stage is one reduction pass. Scalar factors are taken out of sums, so that a clipped
gradient needs no second pass for its norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steepest.errors import InputError
from steepest.rules import Rule

__all__ = ["Node", "Pass", "Program", "Specialisation", "Untraceable", "specialise", "trace"]

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_ALWAYS_STATIC = ("weight_decay",)


class Untraceable(InputError):  # noqa: N818  (of a rule)
    """A rule does what no generated kernel can."""


@dataclass(frozen=True, eq=False)
class Node:
    """One value: a constant, an input, or an operation on other nodes. Equal means identical.

    Attributes:
        op: ``const``, ``element`` (an input per element), ``scalar`` (an input per row), ``size``
            (how many elements the tensor has), ``total`` (a sum over all tensors), ``sum`` (over
            the elements of a tensor), or the name of an operation on numbers.
        args: What the operation is applied to.
        value: The constant's number.
        name: The input's name.
        per_element: Whether it depends on an element.
        per_tensor: Whether it depends on no element, but on a sum over its tensor or its size.
        stage: How many reduction passes have to come first.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""
    per_element: bool = False
    per_tensor: bool = False
    stage: int = 0

    @property
    def per_row(self) -> bool:
        """Whether it is the same for all tensors at the same step."""
        return not (self.per_element or self.per_tensor)


def _divide(a: float, b: float) -> float:
    if b == 0:
        return (
            math.nan
            if a == 0 or math.isnan(a)
            else math.copysign(math.inf, a) * math.copysign(1, b)
        )
    return a / b


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan if a < 0 else math.inf


def _exponential(a: float) -> float:
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def _logarithm(a: float) -> float:
    if a > 0:
        return math.log(a)
    return -math.inf if a == 0 else math.nan


def _sign(a: float) -> float:
    return math.nan if math.isnan(a) else float((a > 0) - (a < 0))


def _extremum(choose: Callable[[float, float], float]) -> Callable[[float, float], float]:
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else choose(a, b)


SCALAR: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "pow": _power,
    "neg": lambda a: -a,
    "abs": abs,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "sign": _sign,
    "exp": _exponential,
    "log": _logarithm,
    "maximum": _extremum(max),
    "minimum": _extremum(min),
    "where": lambda c, a, b: a if c else b,
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
}
"""Every operation on float64 numbers, IEEE 754 also where Python raises (1 / 0 is inf)."""


class _Graph:
    """Makes nodes, each only once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Node] = {}

    def _intern(self, node: Node) -> Node:
        bits = math.copysign(1.0, node.value)  # 0.0 and -0.0 are two constants
        return self._known.setdefault((node.op, node.args, node.value, bits, node.name), node)

    def const(self, value: float) -> Node:
        return self._intern(Node("const", value=float(value)))

    def leaf(self, kind: Literal["element", "scalar"], name: str) -> Node:
        return self._intern(Node(kind, name=name, per_element=kind == "element"))

    def size(self) -> Node:
        return self._intern(Node("size", per_tensor=True, stage=1))

    def total(self, index: int, *, stage: int) -> Node:
        return self._intern(Node("total", value=float(index), stage=stage))

    def sum(self, x: Node) -> Node:
        if not x.per_element:
            return self.make("mul", x, self.size())
        factor, rest = self._factor(x)
        if factor is not None and rest is not None:
            return self.make("mul", factor, self.sum(rest))
        return self._intern(Node("sum", (x,), per_tensor=True, stage=x.stage + 1))

    def _apply(self, op: str, args: tuple[Node, ...]) -> Node:
        element = any(a.per_element for a in args)
        tensor = not element and any(a.per_tensor for a in args)
        stage = max(a.stage for a in args)
        return self._intern(Node(op, args, per_element=element, per_tensor=tensor, stage=stage))

    def make(self, op: str, *args: Node) -> Node:
        if all(a.op == "const" for a in args):
            return self.const(SCALAR[op](*(a.value for a in args)))
        if op == "where" and args[0].op == "const":
            return args[1] if args[0].value else args[2]
        one = self.const(1.0)
        if op in ("mul", "div") and args[1] is one:
            return args[0]
        if op == "mul" and args[0] is one:
            return args[1]
        simpler = self._gathered(op, args) if any(a.per_element for a in args) else None
        if simpler is not None:
            return simpler
        return self._apply(op, args)

    def _gathered(self, op: str, args: tuple[Node, ...]) -> Node | None:
        """The same value as scalar times element, if it is a product."""
        if op == "neg":
            factor, rest = self._factor(args[0])
            if factor is None or rest is None:
                return None
            return self.make("mul", self.make("neg", factor), rest)
        if op not in ("mul", "div"):
            return None
        (c, a), (d, b) = self._factor(args[0]), self._factor(args[1])
        if (c is None and d is None) or (op == "div" and a is None):
            return None
        one = self.const(1.0)
        factor = self.make(op, c or one, d or one)
        rest = self._apply(op, (a, b)) if a is not None and b is not None else a or b or one
        if factor is one:
            return rest
        return self._apply("mul", (factor, rest))

    @staticmethod
    def _factor(node: Node) -> tuple[Node | None, Node | None]:
        """Such that the node is their product; None stands for one."""
        if not node.per_element:
            return node, None
        if node.op == "mul" and not node.args[0].per_element:
            return node.args[0], node.args[1]
        return None, node


class _Ops:
    """The functions of `steepest.rules._ops`, on symbols."""

    __name__ = "steepest.kernels.trace"

    @staticmethod
    def sum(x: Symbol) -> Symbol:
        return Symbol(x.graph, x.graph.sum(x.node))

    @staticmethod
    def size(x: Symbol) -> Symbol:
        return Symbol(x.graph, x.graph.size())

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in SCALAR:
            raise AttributeError(name)

        def apply(*args: Any) -> Symbol:
            graph = next(a.graph for a in args if isinstance(a, Symbol))
            return Symbol(graph, graph.make(name, *(_node(graph, a) for a in args)))

        return apply


def _node(graph: _Graph, x: Any) -> Node:
    if isinstance(x, Symbol):
        return x.node
    if isinstance(x, (bool, int, float)):
        return graph.const(float(x))
    raise Untraceable(
        f"a rule combined a symbol with {x!r} ({type(x).__name__}); a rule that is to become a "
        "kernel may use its arguments, numbers, and the functions of steepest.rules"
    )


class Symbol:
    """Stands for a value while a rule is traced; arithmetic on it makes nodes."""

    __steepest_ops__ = _Ops()
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, graph: _Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    @property
    def shape(self) -> tuple[int, ...]:
        """A kernel does not see it."""
        raise Untraceable("a rule asked for the shape of a tensor; a kernel sees its elements only")

    @property
    def ndim(self) -> int:
        """A kernel does not see it."""
        return len(self.shape)

    def _do(self, op: str, *others: Any, swap: bool = False) -> Symbol:
        nodes = [self.node, *(_node(self.graph, other) for other in others)]
        return Symbol(self.graph, self.graph.make(op, *(reversed(nodes) if swap else nodes)))

    def __add__(self, x: Any) -> Symbol:
        return self._do("add", x)

    def __radd__(self, x: Any) -> Symbol:
        return self._do("add", x, swap=True)

    def __sub__(self, x: Any) -> Symbol:
        return self._do("sub", x)

    def __rsub__(self, x: Any) -> Symbol:
        return self._do("sub", x, swap=True)

    def __mul__(self, x: Any) -> Symbol:
        return self._do("mul", x)

    def __rmul__(self, x: Any) -> Symbol:
        return self._do("mul", x, swap=True)

    def __truediv__(self, x: Any) -> Symbol:
        return self._do("div", x)

    def __rtruediv__(self, x: Any) -> Symbol:
        return self._do("div", x, swap=True)

    def __pow__(self, x: Any) -> Symbol:
        return self._do("pow", x)

    def __rpow__(self, x: Any) -> Symbol:
        return self._do("pow", x, swap=True)

    def __neg__(self) -> Symbol:
        return self._do("neg")

    def __abs__(self) -> Symbol:
        return self._do("abs")

    def __lt__(self, x: Any) -> Symbol:
        return self._do("lt", x)

    def __le__(self, x: Any) -> Symbol:
        return self._do("le", x)

    def __gt__(self, x: Any) -> Symbol:
        return self._do("gt", x)

    def __ge__(self, x: Any) -> Symbol:
        return self._do("ge", x)

    def __eq__(self, x: object) -> Symbol:  # type: ignore[override]
        return self._do("eq", x)

    def __ne__(self, x: object) -> Symbol:  # type: ignore[override]
        return self._do("ne", x)

    def __bool__(self) -> bool:
        raise Untraceable(
            "a rule asked `if` about a value that is only known in the kernel; "
            "use where(condition, a, b), or make it an option of the rule"
        )


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
    graph = _Graph()

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
    totals = tuple(_node(graph, x) for x in rule.partial_sums(*inputs, **values))
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
        node = _node(graph, outcome[name])
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
    return _program(fixed, elements, tensors, _node(graph, step), changed, totals)


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


def ordered(roots: Iterable[Node], *, known: Container[Node] = ()) -> Iterator[Node]:
    """All nodes below the roots, each once, arguments before what uses them.

    Args:
        roots: Where to begin.
        known: Nodes that are left out, and what only they need.
    """
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if node in seen or node in known:
                continue
            if expanded:
                seen.add(node)
                yield node
            else:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
