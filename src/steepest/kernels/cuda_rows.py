"""The Triton kernels of rules that keep or subtract numbers of rows and columns.

    R, C     rows and columns of a matrix

One program per row sums up the row, one per column the column; then one per matrix, row and column
computes what follows. The elements find their row's and their column's numbers through the caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steepest.kernels.cuda_text import LINES, line_values, statements
from steepest.kernels.symbols import Node, ordered
from steepest.kernels.trace import Pass, Program

__all__ = ["FACTS", "kernels", "names"]

FACTS = {
    "size": "tl.load(sizes + tensor).to(tl.float64)",
    "rows": "tl.load(geometry + 4 * tensor + 1).to(tl.float64)",
    "columns": "tl.load(geometry + 4 * tensor + 2).to(tl.float64)",
    "factored": "tl.load(geometry + 4 * tensor + 3).to(tl.float64)",
}
"""What is known of a tensor's shape."""

_HEAD = (
    "    index = tl.program_id(0).to(tl.int64)",
    "    tensor = tl.load(tensor_of + index)",
    "    address = tl.load(grads + tensor)",
    "    line = scalars + tl.load(scalar_row + tensor) * COLUMNS",
    "    wide_factor = tl.load(line)",
    "    if (address != 0) & (wide_factor != 0):",
)
_SIGNATURE = f"""tensor_of, sizes, params, grads, slots, row_slots, column_slots,
             scalar_row, scalars, own, n, {LINES}
             COLUMNS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr"""


def names(program: Program) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The functions to call after each pass, and last after the elements: extent and name."""
    if program.view == "none":
        return ()
    passes = []
    for index, one in enumerate(program.passes):
        found = [
            (extent, f"{extent}_sums_{index}")
            for extent, nodes in (("row", one.rows), ("column", one.across))
            if any(node.reduces for node in nodes)
        ]
        found += [
            (extent, f"{extent}_numbers_{index}")
            for extent, nodes in _by_extent(one)
            if extent == "matrix" or any(not node.reduces for node in nodes)
        ]
        passes.append(tuple(found))
    stored = (("row", program.row_slots), ("column", program.column_slots))
    last = [
        (extent, f"store_{extent}")
        for extent, slots in stored
        if any(slot in program.new_slots for slot in slots)
    ]
    return (*passes, tuple(last))


def kernels(program: Program, real: str, kind: str, slot_kind: str) -> Iterator[str]:
    """The text of those functions.

    Args:
        program: The traced rule.
        real: The type to compute with.
        kind: The parameters' type.
        slot_kind: The slots' type.
    """
    for index, one in enumerate(program.passes):
        for extent, nodes in (("row", one.rows), ("column", one.across)):
            reducing = [node for node in nodes if node.reduces]
            if reducing:
                yield from _sums(
                    program, f"{extent}_sums_{index}", extent, reducing, one.stage - 1,
                    (real, kind, slot_kind),
                )  # fmt: skip
        for extent, nodes in _by_extent(one):
            if extent == "matrix" or any(not node.reduces for node in nodes):
                name = f"{extent}_numbers_{index}"
                yield from _numbers(program, name, extent, nodes, one.stage, slot_kind)
    for extent, slots, kept in (
        ("row", program.row_slots, program.row_values),
        ("column", program.column_slots, program.column_values),
    ):
        changed = [slot for slot in slots if slot in program.new_slots]
        if not changed:
            continue
        yield from _begin(f"store_{extent}")
        yield f"        local = index - tl.load({extent}_first + tensor)"
        for slot in changed:
            place = kept.index(program.new_slots[slot])
            value = f"tl.load({_value(extent, place, 'index')})"
            pointer = _slot(extent, slots.index(slot), slot_kind)
            yield f"        tl.store({pointer} + local, {value}.to(tl.{slot_kind}))"


def _by_extent(one: Pass) -> tuple[tuple[str, tuple[Node, ...]], ...]:
    pairs = (("matrix", one.matrices), ("row", one.rows), ("column", one.across))
    return tuple((extent, nodes) for extent, nodes in pairs if nodes)


def _begin(name: str) -> Iterator[str]:
    yield from ("", "", "@triton.jit", f"def {name}({_SIGNATURE}):")
    yield from _HEAD


def _value(extent: str, place: int, at: str) -> str:
    """Where a kept number is; ``at`` counts through all tensors."""
    return f"{extent}_values + {place} * tl.load({extent}_first + n) + {at}"


def _slot(extent: str, place: int, slot_kind: str) -> str:
    address = f"tl.load({extent}_slots + {place} * n + tensor)"
    return f"{address}.to(tl.pointer_type(tl.{slot_kind}))"


def _sums(
    program: Program,
    name: str,
    extent: str,
    reducing: Sequence[Node],
    stage: int,
    kinds: tuple[str, str, str],
) -> Iterator[str]:
    """The sums of one row, or of one column."""
    real, kind, slot_kind = kinds
    yield from _begin(name)
    known: dict[Node, str] = {}
    yield f"        factor = wide_factor.to(tl.{real})"
    for i, node in enumerate(program.columns):
        known[node] = f"c{i}"
        yield f"        c{i} = tl.load(line + {i + 1}).to(tl.{real})"
    for i, node in enumerate(program.tensor_columns):
        if node.stage <= stage:
            known[node] = f"w{i}"
            yield f"        w{i} = tl.load(own + tensor * WIDTH + {i}).to(tl.{real})"
    pointers = {"p": ("tl.load(params + tensor)", kind), "g": ("address", kind)}
    for i, slot in enumerate(program.element_slots):
        pointers[f"s_{slot}"] = (f"tl.load(slots + {i} * n + tensor)", slot_kind)
    for pointer, (where, what) in pointers.items():
        yield f"        {pointer} = ({where}).to(tl.pointer_type(tl.{what}))"
    yield "        R = tl.load(geometry + 4 * tensor + 1)"
    yield "        C = tl.load(geometry + 4 * tensor + 2)"
    yield f"        local = index - tl.load({extent}_first + tensor)"
    for i in range(len(reducing)):
        yield f"        sum_{i} = tl.full((BLOCK,), 0.0, tl.float64)"
    count = "C" if extent == "row" else "R"
    yield f"        for start in range(0, {count}, BLOCK):"
    yield "            step = start + tl.arange(0, BLOCK)"
    yield f"            inside = step < {count}"
    if extent == "row":
        yield "            at = local * C + step"
    else:
        yield "            at = (local // C * R + step) * C + local % C"
    more, small = line_values(program, real, stage=stage)
    yield from (f"            {text}" for text in more)
    known |= small
    summed = [node.args[0] for node in reducing]
    for node in ordered(summed, known=frozenset(known)):
        if node.op == "element":
            known[node] = f"x_{node.name}"
    yield f"            x_p = tl.load(p + at, mask=inside, other=0.0).to(tl.{real})"
    yield f"            x_g = factor * tl.load(g + at, mask=inside, other=0.0).to(tl.{real})"
    for slot in program.element_slots:
        loaded = f"tl.load(s_{slot} + at, mask=inside, other=0.0)"
        yield f"            x_{slot} = {loaded}.to(tl.{real})"
    for text in statements(summed, known, real, elements=True):
        yield f"            {text}"
    for i, node in enumerate(summed):
        yield f"            sum_{i} += tl.where(inside, {known[node]}, 0.0).to(tl.float64)"
    kept = program.row_values if extent == "row" else program.column_values
    for i, node in enumerate(reducing):
        where = _value(extent, kept.index(node), "index")
        yield f"        tl.store({where}, tl.reduce(sum_{i}, 0, add))"


def _numbers(
    program: Program, name: str, extent: str, nodes: Sequence[Node], stage: int, slot_kind: str
) -> Iterator[str]:
    """The numbers of one matrix, row or column that follow, in float64."""
    kept = {
        "matrix": program.matrix_values,
        "row": program.row_values,
        "column": program.column_values,
    }
    yield from _begin(name)
    yield f"        local = index - tl.load({extent}_first + tensor)"
    yield "        R = tl.load(geometry + 4 * tensor + 1)"
    yield "        C = tl.load(geometry + 4 * tensor + 2)"
    unit = {"matrix": "local", "row": "local // R", "column": "local // C"}[extent]
    yield f"        matrix = {unit}"
    known: dict[Node, str] = {}
    for i, node in enumerate(program.columns):
        known[node] = f"c{i}"
        yield f"        c{i} = tl.load(line + {i + 1})"
    for i, node in enumerate(program.tensor_columns):
        if node.stage <= stage:
            known[node] = f"w{i}"
            yield f"        w{i} = tl.load(own + tensor * WIDTH + {i})"
    for i, node in enumerate(program.matrix_values):
        if node.stage < stage or (extent != "matrix" and node.stage == stage):
            known[node] = f"m{i}"
            where = _value("matrix", i, "tl.load(matrix_first + tensor) + matrix")
            yield f"        m{i} = tl.load({where})"
    for i, node in enumerate(kept[extent]):
        if node.reduces and node.stage == stage and extent == "matrix":
            known[node] = f"k{i}"
            source = _value(
                "row",
                program.row_values.index(node.args[0]),
                "tl.load(row_first + tensor) + matrix * R + step",
            )
            yield f"        part_{i} = tl.full((BLOCK,), 0.0, tl.float64)"
            yield "        for start in range(0, R, BLOCK):"
            yield "            step = start + tl.arange(0, BLOCK)"
            yield f"            part_{i} += tl.load({source}, mask=step < R, other=0.0)"
            yield f"        k{i} = tl.reduce(part_{i}, 0, add)"
            yield f"        tl.store({_value('matrix', i, 'index')}, k{i})"
        elif node.stage < stage or (node.reduces and node.stage == stage):
            known[node] = f"k{i}"
            yield f"        k{i} = tl.load({_value(extent, i, 'index')})"
    roots = [node for node in nodes if not node.reduces]
    slots = program.row_slots if extent == "row" else program.column_slots
    for node in ordered(roots, known=frozenset(known)):
        if node.op in FACTS:
            known[node] = f"n_{node.op}"
            yield f"        n_{node.op} = {FACTS[node.op]}"
        elif node.op in ("row", "column"):
            known[node] = f"x_{node.name}"
            pointer = _slot(extent, slots.index(node.name), slot_kind)
            yield f"        x_{node.name} = tl.load({pointer} + local).to(tl.float64)"
    for text in statements(roots, known, "float64", elements=False):
        yield f"        {text}"
    for node in roots:
        where = _value(extent, kept[extent].index(node), "index")
        yield f"        tl.store({where}, ({known[node]}).to(tl.float64))"
