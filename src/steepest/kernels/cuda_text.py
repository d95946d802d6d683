"""How values of a traced rule are written in Triton."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steepest.kernels.symbols import COMPARISONS, Node, ordered
from steepest.kernels.trace import Program

__all__ = ["LINES", "line_values", "statements"]

_INFIX = {"add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "gt": ">"}
_INFIX |= {"ge": ">=", "eq": "==", "ne": "!="}

LINES = """geometry, matrix_first, row_first, column_first,
             matrix_values, row_values, column_values,"""
"""Parameters of all kernels of a rule that has numbers of rows and columns; see kernels/cpu.py."""


def _text(op: str, args: Sequence[str], real: str) -> str:
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op == "div":  # correctly rounded also in float32, where `/` is not
        return f"{args[0]} / {args[1]}" if real == "float64" else f"tl.div_rn({args[0]}, {args[1]})"
    if op == "sqrt":
        return f"tl.sqrt({args[0]})" if real == "float64" else f"tl.sqrt_rn({args[0]})"
    if op == "neg":
        return f"-{args[0]}"
    if op == "pow":
        return f"tl.exp({args[1]} * tl.log({args[0]}))"
    if op == "sign":
        signs = f"tl.where({args[0]} > 0, 1.0, tl.where({args[0]} < 0, -1.0, {args[0]}))"
        return f"{signs}.to(tl.{real})"
    if op in ("maximum", "minimum"):
        return f"tl.{op}({args[0]}, {args[1]}, propagate_nan=tl.PropagateNan.ALL)"
    return f"tl.{op}({', '.join(args)})"  # abs, exp, log, where


def statements(
    roots: Sequence[Node], names: dict[Node, str], real: str, *, elements: bool
) -> Iterator[str]:
    """What the roots need, one line per node; fills in the nodes' names."""
    for count, node in enumerate(ordered(roots, known=frozenset(names))):
        if node in names or (elements and not node.per_element and node.op != "const"):
            continue
        if node.op == "const":
            # as a tensor: two Python numbers would be combined at compile time, in float64
            names[node] = f"v{count}"
            yield f"v{count} = tl.full((), {_literal(node.value)}, tl.{real})"
            continue
        args = [names[a] for a in node.args]
        if node.op == "where" and node.args[0].op not in COMPARISONS:
            args[0] = f"{args[0]} != 0"
        if node.op == "where" and elements and not node.args[0].per_element:
            args[0] = f"{names[node.args[0]]} != 0"
        names[node] = f"v{count}"
        yield f"v{count} = {_text(node.op, args, real)}"


def _literal(value: float) -> str:
    return repr(value) if abs(value) < float("inf") else f'float("{value}")'


def line_values(
    program: Program, real: str, *, stage: int, tensor: str = "tensor"
) -> tuple[list[str], dict[Node, str]]:
    """Numbers of the element's matrix, row and column, and what they are called.

    Before it, ``at`` must be the element's place in its tensor and ``inside`` a mask.
    """
    lines = [
        f"n_rows = tl.load(geometry + 4 * {tensor} + 1)",
        f"n_columns = tl.load(geometry + 4 * {tensor} + 2)",
        "whole = at // n_columns",
        "matrix = whole // n_rows",
        "across = matrix * n_columns + at % n_columns",
    ]
    names: dict[Node, str] = {}
    for kind, letter, place, kept in (
        ("matrix", "m", "matrix", program.matrix_values),
        ("row", "y", "whole", program.row_values),
        ("column", "z", "across", program.column_values),
    ):
        for i, node in enumerate(kept):
            if node.stage > stage:
                continue
            names[node] = f"{letter}{i}"
            where = f"{kind}_values + {i} * tl.load({kind}_first + n)"
            where += f" + tl.load({kind}_first + {tensor}) + {place}"
            lines.append(f"{letter}{i} = tl.load({where}, mask=inside, other=0.0).to(tl.{real})")
    return lines, names
