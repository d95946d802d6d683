"""The scalar program of a traced rule as a Python function: float64, a microsecond per call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from steepest.kernels.symbols import SCALAR, Node, ordered
from steepest.kernels.trace import Program

__all__ = ["scalar_function"]


class ScalarFunction(Protocol):
    """What `scalar_function` returns."""

    def __call__(
        self,
        t: float,
        h: Mapping[str, Any],
        s: Sequence[float],
        z: Sequence[float] = (),
    ) -> tuple[float, ...]:
        """The columns and the new tensor slots."""


_TEXT = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "pow": "pow({}, {})",
    "neg": "-{}",
    "abs": "abs({})",
    "sqrt": "sqrt({0}) if {0} >= 0 else nan",
    "where": "{1} if {0} else {2}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
}


@lru_cache(maxsize=512)
def scalar_function(program: Program) -> ScalarFunction:
    """``(t, values, tensor_slots, totals) -> (*columns, *new_tensor_slots)``.

    Args:
        program: The traced rule.

    Returns:
        A function of the step number, the hyperparameters by name, the tensor slots in their
        order, and the sums over all tensors where the rule asks for them.
    """
    names: dict[Node, str] = {}
    lines = []
    for count, node in enumerate(ordered(program.scalar_roots)):
        name = f"v{count}"
        if node.op == "const":
            names[node] = (
                repr(node.value) if math.isfinite(node.value) else f"float('{node.value}')"
            )
            continue
        names[node] = name
        if node.op == "scalar":
            if node.name == "t":
                text = "t"
            elif node.name in program.tensor_slots:
                text = f"s[{program.tensor_slots.index(node.name)}]"
            else:
                text = f"h[{node.name!r}]"
        elif node.op == "total":
            text = f"z[{node.value:.0f}]"
        elif node.op in _TEXT:
            text = _TEXT[node.op].format(*(names[a] for a in node.args))
        else:
            text = f"{node.op}({', '.join(names[a] for a in node.args)})"
        lines.append(f"    {name} = {text}")
    results = "".join(f"float({names[root]}), " for root in program.scalar_roots)
    body = "\n".join(["def scalars(t, h, s, z):", *lines, f"    return ({results})"])
    scope: dict[str, Any] = {**SCALAR, "pow": math.pow, "sqrt": math.sqrt, "nan": math.nan}
    exec(body, scope)  # noqa: S102  (the text is made above, out of names that Python gave us)
    fast: ScalarFunction = scope["scalars"]

    def scalars(
        t: float, h: Mapping[str, Any], s: Sequence[float], z: Sequence[float] = ()
    ) -> tuple[float, ...]:
        try:
            return fast(t, h, s, z)
        except (ArithmeticError, ValueError):  # Python raises where IEEE 754 has inf or NaN
            return _interpreted(program, t, h, s, z)

    return scalars


def _interpreted(
    program: Program, t: float, h: Mapping[str, Any], s: Sequence[float], z: Sequence[float]
) -> tuple[float, ...]:
    inputs = {"t": t, **dict(zip(program.tensor_slots, s, strict=True))}
    known: dict[Node, float] = {}
    for node in ordered(program.scalar_roots):
        if node.op == "const":
            known[node] = node.value
        elif node.op == "total":
            known[node] = z[int(node.value)]
        elif node.op == "scalar":
            known[node] = float(inputs[node.name] if node.name in inputs else h[node.name])
        else:
            known[node] = SCALAR[node.op](*(known[a] for a in node.args))
    return tuple(float(known[root]) for root in program.scalar_roots)
