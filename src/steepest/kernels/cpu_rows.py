"""The C++ of rules that keep or subtract numbers of rows and columns: Adafactor, centralisation.

    M     matrices in a tensor     R, C     rows and columns of each     line  a row of any of them

A row of the table then holds whole lines, so that one thread sums up a line. Sums of columns are
kept per row of the table and added in their order: the outcome depends on no thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from steepest.kernels.cpu_text import FACTS, ROWS, Writer, statements
from steepest.kernels.symbols import Node, ordered
from steepest.kernels.trace import Pass

__all__ = ["RowsWriter"]

_LINES = r"""
struct Lines {   // where a tensor's numbers are: of a kept value i, at [i * ..._apart]
  int64_t first, M, R, C;
  double *matrix, *row, *column;
  int64_t matrix_apart, row_apart, column_apart;
};
static Lines lines_of(const Table &t, int64_t tensor, int64_t offset) {
  const int64_t *g = t.geometry + 4 * tensor;
  return {g[2] ? offset / g[2] : 0, g[0], g[1], g[2],
          t.matrix_values + t.matrix_first[tensor], t.row_values + t.row_first[tensor],
          t.column_values + t.column_first[tensor],
          t.matrix_first[t.n], t.row_first[t.n], t.column_first[t.n]};
}"""


class RowsWriter(Writer):
    """The C++ of one kernel whose table's rows hold whole lines."""

    facts = (
        "(double)t.geometry[4 * tensor + 1], (double)t.geometry[4 * tensor + 2], "
        "(double)t.geometry[4 * tensor + 3]"
    )

    # ---- element passes -----------------------------------------------------------------------

    def _loop(
        self,
        body: Callable[[dict[Node, str]], list[str]],
        *,
        stage: int,
        around: tuple[Sequence[str], Sequence[str]] = ((), ()),
    ) -> Iterator[str]:
        program, real = self.program, self.real
        names = {node: f"c{i}" for i, node in enumerate(program.columns)}
        places: list[tuple[Node, str, str]] = []  # node, its name, where it is
        for letter, kept, where in (
            ("w", program.tensor_columns, "own[{}]"),
            ("m", program.matrix_values, "at.matrix[{} * at.matrix_apart + matrix]"),
            ("y", program.row_values, "at.row[{} * at.row_apart + whole]"),
        ):
            for i, node in enumerate(kept):
                if node.stage <= stage:
                    places.append((node, f"{letter}{i}", where.format(i)))
        across = [
            (node, f"z{i}", f"at.column + {i} * at.column_apart + matrix * at.C")
            for i, node in enumerate(program.column_values)
            if node.stage <= stage
        ]
        known = {node: name for node, name, _ in (*places, *across)}
        lines = body({**names, **known})
        used = set(re.findall(r"\w+", " ".join(lines)))
        yield f"  const {real} factor = ({real})scalars[0];"
        for i, name in enumerate(names.values()):
            if name in used:
                yield f"  const {real} {name} = ({real})scalars[{i + 1}];"
        yield "  for (int64_t line = 0; line < length / at.C; ++line) {"
        yield "    const int64_t whole = at.first + line, matrix = whole / at.R;"
        for _, name, where in places:
            if name in used:
                yield f"    const {real} {name} = ({real}){where};"
        for _, name, where in across:
            if name in used:
                yield f"    const double *__restrict at_{name} = {where};"
        yield from (f"    {line}" for line in around[0])
        yield "    PRAGMA"
        yield "    for (int64_t j = 0; j < at.C; ++j) {"
        yield "      const int64_t i = line * at.C + j;"
        for _, name, _ in across:
            if name in used:
                yield f"      const {real} {name} = ({real})at_{name}[j];"
        for name in ("p", "g", *program.element_slots):
            if f"x_{name}" in used:
                scaled = "factor * " if name == "g" else ""
                array = name if name in ("p", "g") else f"s_{name}"
                yield f"      const {real} x_{name} = {scaled}load({array}[i]);"
        yield from (f"      {line}" for line in lines)
        yield "    }"
        yield from (f"    {line}" for line in around[1])
        yield "  }"

    def call(self) -> str:
        """The call of `chunk` for a row."""
        return super().call().replace("chunk(", "chunk(lines_of(t, tensor, offset), ", 1)

    def chunk(self) -> Iterator[str]:
        """The element pass of some lines."""
        yield _LINES
        for line in super().chunk():
            yield line.replace("chunk(int64_t length", "chunk(const Lines at, int64_t length")

    def _reduce(self, at: int) -> Iterator[str]:
        """The sums of some lines: of all their elements, of each, and of their columns."""
        one = self.program.passes[at]
        of_rows, of_columns = _reducing(one.rows), _reducing(one.across)
        place = {node: i for i, node in enumerate(self.program.row_values)}
        sums = [f"a{i}" for i in range(len(one.sums))]
        lines = [f"b{i}" for i in range(len(of_rows))]

        def body(names: dict[Node, str]) -> list[str]:
            reduced = (*one.sums, *of_rows, *of_columns)
            text = self._elements(names, [node.args[0] for node in reduced])
            targets = (*sums, *lines, *(f"d{i}[j]" for i in range(len(of_columns))))
            return text + [
                f"{target} += (double){names[node.args[0]]};"
                for target, node in zip(targets, reduced, strict=True)
            ]

        before = [f"double {name} = 0;" for name in lines]
        for i in range(len(of_columns)):
            nth = f"(matrix - at.first / at.R) * {len(of_columns)} + {i}"
            before.append(f"double *__restrict d{i} = columns + ({nth}) * at.C;")
        after = [
            f"at.row[{place[node]} * at.row_apart + whole] = {name};"
            for node, name in zip(of_rows, lines, strict=True)
        ]
        yield f"static void reduce_{at}(const Lines at, int64_t length,"
        yield "                  const double *__restrict scalars, const double *__restrict own,"
        yield f"                  double *__restrict result, double *columns, {self.arguments}) {{"
        if sums:
            yield f"  double {', '.join(f'{a} = 0' for a in sums)};"
        if of_columns:
            last = "(at.first + length / at.C - 1) / at.R - at.first / at.R + 1"
            yield f"  memset(columns, 0, 8 * ({last}) * {len(of_columns)} * at.C);"
        reduction = f" reduction(+:{','.join([*sums, *lines])})" if sums or lines else ""
        for line in self._loop(body, stage=one.stage - 1, around=(before, after)):
            yield line.replace("PRAGMA", f"#pragma omp simd{reduction}")
        yield from (f"  result[{i}] = {a};" for i, a in enumerate(sums))
        yield "}"

    def reduction(self, at: int) -> Iterator[str]:
        """A reduction pass, and the numbers of tensors, matrices, rows and columns that follow."""
        one = self.program.passes[at]
        passes_elements = bool(one.sums or _reducing(one.rows) or _reducing(one.across))
        if passes_elements:
            yield from self._reduce(at)
        yield from self._numbers(at)
        yield from self._small(at)
        yield f'extern "C" void steepest_pass_{at}(const Table *table) {{'
        yield "  const Table t = *table;"
        if passes_elements:
            call = f"reduce_{at}(lines_of(t, tensor, offset), length,"
            call += " t.scalars + t.scalar_row[tensor] * t.columns,"
            call += f" t.own + tensor * {self.width}, t.partial + r * {len(one.sums)},"
            call += f" t.column_partial + t.partial_first[r], {self.pointers});"
            yield ROWS.replace("CALL", call)
        yield from self._tensors(at)
        yield "  #pragma omp parallel for schedule(dynamic, 1) num_threads(t.threads)"
        yield "  for (int64_t tensor = 0; tensor < t.n; ++tensor)"
        yield f"    if (t.grads[tensor]) small_{at}(t, tensor);"
        yield "}"

    # ---- numbers of matrices, rows and columns ------------------------------------------------

    def _small(self, at: int) -> Iterator[str]:
        """Of one tensor: sums of columns added up, then what follows, in float64."""
        one, program = self.program.passes[at], self.program
        of_columns = _reducing(one.across)
        yield f"static void small_{at}(const Table &t, int64_t tensor) {{"
        yield "  const Lines at = lines_of(t, tensor, 0);"
        yield "  const double *scalars = t.scalars + t.scalar_row[tensor] * t.columns;"
        yield f"  const double *own = t.own + tensor * {self.width};"
        yield f"  const double facts[] = {{(double)t.sizes[tensor], {self.facts}}};"
        yield "  const double size = facts[0], n_rows = facts[1], n_columns = facts[2];"
        yield "  const double factored = facts[3];"
        yield "  (void)scalars; (void)own; (void)size; (void)n_rows; (void)n_columns;"
        yield "  (void)factored;"
        if of_columns:
            places = [program.column_values.index(node) for node in of_columns]
            for place in places:
                yield f"  memset(at.column + {place} * at.column_apart, 0, 8 * at.M * at.C);"
            yield "  for (int64_t r = t.first_row[tensor]; r < t.first_row[tensor + 1]; ++r) {"
            yield "    const int64_t first = t.rows[3 * r + 1] / at.C;"
            yield "    const int64_t last = first + t.rows[3 * r + 2] / at.C - 1;"
            yield "    const double *part = t.column_partial + t.partial_first[r];"
            yield "    for (int64_t m = first / at.R; m <= last / at.R; ++m) {"
            for place in places:
                where = f"at.column + {place} * at.column_apart + m * at.C"
                yield f"      double *to_{place} = {where};"
                yield f"      for (int64_t j = 0; j < at.C; ++j) to_{place}[j] += part[j];"
                yield "      part += at.C;"
            yield "    }"
            yield "  }"
        loops: Mapping[str, tuple[tuple[Node, ...], str, str]] = {
            "matrix": (
                one.matrices,
                "for (int64_t matrix = 0; matrix < at.M; ++matrix) {",
                "at.matrix[{} * at.matrix_apart + matrix]",
            ),
            "row": (
                one.rows,
                "for (int64_t line = 0; line < at.M * at.R; ++line) { "
                "const int64_t matrix = line / at.R; (void)matrix;",
                "at.row[{} * at.row_apart + line]",
            ),
            "column": (
                one.across,
                "for (int64_t k = 0; k < at.M * at.C; ++k) { "
                "const int64_t matrix = k / at.C; (void)matrix;",
                "at.column[{} * at.column_apart + k]",
            ),
        }
        for extent, (nodes, head, where) in loops.items():
            if all(node.reduces for node in nodes) and extent != "matrix":
                continue
            if nodes:
                yield f"  {head}"
                yield from (f"    {line}" for line in self._following(one, extent, nodes, where))
                yield "  }"
        yield "}"

    def _following(
        self, one: Pass, extent: str, nodes: Sequence[Node], where: str
    ) -> Iterator[str]:
        """The numbers of one matrix, row or column."""
        program = self.program
        kept = {
            "matrix": program.matrix_values,
            "row": program.row_values,
            "column": program.column_values,
        }
        names = {node: f"scalars[{i + 1}]" for i, node in enumerate(program.columns)}
        own = enumerate(program.tensor_columns)
        names |= {node: f"own[{i}]" for i, node in own if node.stage <= one.stage}
        of_matrix = "at.matrix[{} * at.matrix_apart + matrix]"
        for i, node in enumerate(program.matrix_values):
            if node.stage < one.stage or (extent != "matrix" and node.stage == one.stage):
                names[node] = of_matrix.format(i)
        place = {node: i for i, node in enumerate(kept[extent])}
        names |= {
            node: where.format(i)
            for node, i in place.items()
            if node.stage < one.stage or (node.reduces and node.stage == one.stage)
        }
        for node in _reducing(nodes) if extent == "matrix" else ():
            source = program.row_values.index(node.args[0])
            row = f"at.row[{source} * at.row_apart + matrix * at.R + r]"
            yield f"double s{place[node]} = 0;"
            yield f"for (int64_t r = 0; r < at.R; ++r) s{place[node]} += {row};"
            yield f"{where.format(place[node])} = s{place[node]};"
        roots = [node for node in nodes if not node.reduces]
        for node in ordered(roots, known=frozenset(names)):
            if node.op in FACTS:
                names[node] = FACTS[node.op]
            elif node.op in ("row", "column"):
                names[node] = self._slot(node, "line" if node.op == "row" else "k")
        yield from statements(roots, names, "double")
        yield from (f"{where.format(place[node])} = {names[node]};" for node in roots)

    def _slot(self, node: Node, index: str) -> str:
        return f"(double)load({self._address(node.name)}[{index}])"

    def _address(self, slot: str) -> str:
        for kind, slots in (("row", self.program.row_slots), ("column", self.program.column_slots)):
            if slot in slots:
                place = f"t.{kind}_slots[{slots.index(slot)} * t.n + tensor]"
                return f"(({self.slot_kind} *){place})"
        raise KeyError(slot)

    def finish(self) -> Iterator[str]:
        """Write the slots that have a number per row or column."""
        program = self.program
        kinds = (
            ("row", program.row_slots, program.row_values, "at.M * at.R"),
            ("column", program.column_slots, program.column_values, "at.M * at.C"),
        )
        yield "  for (int64_t tensor = 0; tensor < t.n; ++tensor) {"
        yield "    if (!t.grads[tensor]) continue;"
        yield "    const Lines at = lines_of(t, tensor, 0); (void)at;"
        for kind, slots, kept, count in kinds:
            for slot in slots:
                if slot not in program.new_slots:
                    continue
                value = f"at.{kind}[{kept.index(program.new_slots[slot])} * at.{kind}_apart + i]"
                real = "double" if self.slot_kind == "double" else "float"
                yield f"    for (int64_t i = 0; i < {count}; ++i)"
                yield f"      store({self._address(slot)}[i], ({real}){value});"
        yield "  }"


def _reducing(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(node for node in nodes if node.reduces)
