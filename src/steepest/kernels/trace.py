"""Run a rule on symbols, and split what it computes into a scalar program and an element graph.

Whatever depends on no element (``1 - beta1**t``, ``lr * weight_decay``, NAdam's momentum product)
is *scalar*: evaluated once per distinct (group, step) in float64. The rest is the *element graph*,
from which kernels are generated. Equal expressions are one node, constants are folded, and scalar
factors are gathered, so that ``-lr * (m / c1) / (sqrt(v / c2) + eps)`` costs an element one square
root, one division and two multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steepest.errors import InputError
from steepest.rules import Rule

__all__ = ["Node", "Program", "Specialisation", "specialise", "trace"]

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_ALWAYS_STATIC = ("weight_decay",)


@dataclass(frozen=True, eq=False)
class Node:
    """One value: a constant, an input, or an operation on other nodes. Equal means identical.

    Attributes:
        op: ``const``, ``element`` (an input per element), ``scalar`` (an input per row), or the
            name of an operation.
        args: What the operation is applied to.
        value: The constant's number.
        name: The input's name.
        per_element: Whether it depends on an element.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""
    per_element: bool = False


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
        return self._intern(Node(op, args, per_element=any(a.per_element for a in args)))

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
        if a is not None and b is not None:
            rest = self._intern(Node(op, (a, b), per_element=True))
        else:
            rest = a or b or one
        if factor is one:
            return rest
        return self._intern(Node("mul", (factor, rest), per_element=True))

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
    raise InputError(
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
        raise InputError(
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
        columns: The scalars that the element graph reads: a row of the scalar table.
    """

    fixed: Specialisation
    element_slots: tuple[str, ...]
    tensor_slots: tuple[str, ...]
    step: Node
    new_slots: Mapping[str, Node]
    columns: tuple[Node, ...]

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
        else symbol("scalar" if slot.per == "tensor" else "element", name)
        for name, slot in rule.slots.items()
    ]
    numbers = {n: 0.0 if n in fixed.zeros else symbol("scalar", n) for n in rule.hyperparameters}
    step, *new = rule(
        symbol("element", "p"),
        symbol("element", "g"),
        *slots,
        symbol("scalar", "t"),
        **numbers,
        **dict(fixed.options),
    )
    elements = tuple(s for s in fixed.slots if rule.slots[s].per == "element")
    tensors = tuple(s for s in fixed.slots if rule.slots[s].per == "tensor")
    outcome = dict(zip(rule.slots, new, strict=True))
    changed = {}
    for name in fixed.slots:
        node = _node(graph, outcome[name])
        if name in tensors and node.per_element:
            raise InputError(
                f"rule {rule.name}: the slot {name} is one number per tensor, but its new value "
                'depends on the element; declare it per="element"'
            )
        if name in tensors or node is not graph.leaf("element", name):
            changed[name] = node
    return _program(fixed, elements, tensors, _node(graph, step), changed)


def _program(
    fixed: Specialisation,
    elements: tuple[str, ...],
    tensors: tuple[str, ...],
    step: Node,
    changed: Mapping[str, Node],
) -> Program:
    roots = (step, *(node for name, node in changed.items() if name in elements))
    columns: dict[Node, None] = {}
    for node in ordered(roots):
        inputs = node.args if node.per_element else ()
        for arg in inputs:
            if not arg.per_element and arg.op != "const":
                columns[arg] = None
    for root in roots:
        if not root.per_element and root.op != "const":
            columns[root] = None
    return Program(fixed, elements, tensors, step, changed, tuple(columns))


def ordered(roots: Iterable[Node]) -> Iterator[Node]:
    """All nodes below the roots, each once, arguments before what uses them."""
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if node in seen:
                continue
            if expanded:
                seen.add(node)
                yield node
            else:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
