"""Symbols to run a rule on, and the graph of what is computed with them.

Equal expressions are one node, constants are folded, and scalar factors are gathered, so that
``-lr * (m / c1) / (sqrt(v / c2) + eps)`` costs an element one square root, one division and two
multiplications, and are taken out of sums, so that a clipped gradient needs no second pass for its
norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from steepest.errors import InputError

__all__ = [
    "COMPARISONS",
    "SCALAR",
    "Extent",
    "Graph",
    "Node",
    "Symbol",
    "Untraceable",
    "View",
    "node_of",
    "ordered",
]

Extent = Literal["step", "tensor", "matrix", "row", "column", "element"]
"""What a value is the same for: all tensors at a step, a tensor, a matrix of it, a row of that."""

View = Literal["none", "last", "first"]
"""Which axes are rows and columns: the last two, or the first and all others together."""

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


class Untraceable(InputError):  # noqa: N818  (of a rule)
    """A rule does what no generated kernel can."""


@dataclass(frozen=True, eq=False)
class Node:
    """One value: a constant, an input, or an operation on other nodes. Equal means identical.

    Attributes:
        op: ``const``, ``element``, ``row``, ``column`` (an input for each of them), ``scalar`` (an
            input per step), ``size``, ``rows``, ``columns``, ``factored`` (of the tensor: how many
            elements, rows and columns, and whether it has rows and columns at all), ``total`` (a
            sum over all tensors), ``sum`` (over the elements of a tensor), ``row_sum``,
            ``column_sum`` (over the elements of a row, of a column), ``matrix_sum`` (over the
            rows of a matrix), or the name of an operation on numbers.
        args: What the operation is applied to.
        value: The constant's number.
        name: The input's name.
        extent: What it is the same for.
        stage: How many reduction passes have to come first.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""
    extent: Extent = "step"
    stage: int = 0

    @property
    def per_element(self) -> bool:
        """Whether it depends on an element."""
        return self.extent == "element"

    @property
    def per_tensor(self) -> bool:
        """Whether it depends on no element, but on a sum over its tensor or its size."""
        return self.extent == "tensor"

    @property
    def per_step(self) -> bool:
        """Whether it is the same for all tensors at the same step."""
        return self.extent == "step"

    @property
    def reduces(self) -> bool:
        """Whether it sums something up."""
        return self.op in ("sum", "row_sum", "column_sum", "matrix_sum")


def _joint(extents: Iterable[Extent]) -> Extent:
    """What a value is the same for that is computed from values with these extents."""
    seen = set(extents)
    if "element" in seen or {"row", "column"} <= seen:
        return "element"
    order: tuple[Extent, ...] = ("row", "column", "matrix", "tensor")
    return next((extent for extent in order if extent in seen), "step")


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


class Graph:
    """Makes nodes, each only once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Node] = {}
        self.view: View = "none"

    def seen(self, view: View) -> None:
        """Rows and columns are those of that view from now on.

        Raises:
            Untraceable: If they were another one's before.
        """
        if self.view not in ("none", view):
            raise Untraceable("a rule's rows and columns are of two kinds, and a kernel has one")
        self.view = view

    def _intern(self, node: Node) -> Node:
        bits = math.copysign(1.0, node.value)  # 0.0 and -0.0 are two constants
        return self._known.setdefault((node.op, node.args, node.value, bits, node.name), node)

    def const(self, value: float) -> Node:
        """A number."""
        return self._intern(Node("const", value=float(value)))

    def leaf(self, kind: Literal["element", "row", "column", "scalar"], name: str) -> Node:
        """An input."""
        extent: Extent = "step" if kind == "scalar" else kind
        late = kind in ("row", "column")  # numbers that elements find only after a first pass
        return self._intern(Node(kind, name=name, extent=extent, stage=int(late)))

    def fact(self, name: Literal["size", "rows", "columns", "factored"]) -> Node:
        """What is known of the tensor's shape."""
        return self._intern(Node(name, extent="tensor", stage=1))

    def total(self, index: int, *, stage: int) -> Node:
        """One of the sums over all tensors, known after that many passes."""
        return self._intern(Node("total", value=float(index), stage=stage))

    def sum(self, x: Node) -> Node:
        """The sum over the tensor, scalar factors taken out."""
        if x.extent in ("step", "tensor"):
            return self.make("mul", x, self.fact("size"))
        return self._reduced("sum", x, "tensor", of="element")

    def row_sum(self, x: Node) -> Node:
        """The sum over each row."""
        return self._reduced("row_sum", x, "row", of="element")

    def column_sum(self, x: Node) -> Node:
        """The sum over each column."""
        return self._reduced("column_sum", x, "column", of="element")

    def matrix_sum(self, x: Node) -> Node:
        """The sum over the rows of each matrix."""
        return self._reduced("matrix_sum", x, "matrix", of="row")

    def _reduced(self, op: str, x: Node, extent: Extent, *, of: Extent) -> Node:
        """A reduction, with scalar factors taken out."""
        if x.extent != of:
            raise Untraceable(f"a kernel sums over every {of}, and not over every {x.extent}")
        factor, rest = self._factor(x)
        if factor is not None and rest is not None:
            return self.make("mul", factor, self._reduced(op, rest, extent, of=of))
        return self._intern(Node(op, (x,), extent=extent, stage=x.stage + 1))

    def _apply(self, op: str, args: tuple[Node, ...]) -> Node:
        stage = max(a.stage for a in args)
        return self._intern(Node(op, args, extent=_joint(a.extent for a in args), stage=stage))

    def make(self, op: str, *args: Node) -> Node:
        """An operation on other nodes, in its simplest form."""
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
        if node.extent in ("step", "tensor"):
            return node, None
        if node.op == "mul" and node.args[0].extent in ("step", "tensor"):
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
        return Symbol(x.graph, x.graph.fact("size"))

    @staticmethod
    def row_mean(x: Symbol) -> Symbol:
        x.graph.seen("last")
        if x.node.extent not in ("element", "column"):
            return x
        return Symbol(x.graph, x.graph.row_sum(x.node)) / x.fact("columns")

    @staticmethod
    def column_mean(x: Symbol) -> Symbol:
        x.graph.seen("last")
        if x.node.extent not in ("element", "row"):
            return x
        add = x.graph.column_sum if x.node.per_element else x.graph.matrix_sum
        return Symbol(x.graph, add(x.node)) / x.fact("rows")

    def centred(self, x: Symbol) -> Symbol:
        x.graph.seen("first")
        mean = Symbol(x.graph, x.graph.row_sum(x.node)) / x.fact("columns")
        return x - self.where(x.fact("factored"), mean, 0.0)

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in SCALAR:
            raise AttributeError(name)

        def apply(*args: Any) -> Symbol:
            graph = next(a.graph for a in args if isinstance(a, Symbol))
            return Symbol(graph, graph.make(name, *(node_of(graph, a) for a in args)))

        return apply


def node_of(graph: Graph, x: Any) -> Node:
    """The node of a symbol or a number.

    Raises:
        Untraceable: If it is neither.
    """
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

    def __init__(self, graph: Graph, node: Node) -> None:
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

    def fact(self, name: Literal["size", "rows", "columns", "factored"]) -> Symbol:
        """What is known of the tensor's shape."""
        return Symbol(self.graph, self.graph.fact(name))

    def _do(self, op: str, *others: Any, swap: bool = False) -> Symbol:
        nodes = [self.node, *(node_of(self.graph, other) for other in others)]
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
