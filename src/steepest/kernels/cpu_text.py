"""The C++ of a traced rule, function by function.

The functions are handed a `steepest.kernels.cpu.Table` and do all rows of it in one call.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from steepest.kernels.symbols import COMPARISONS, Node, ordered
from steepest.kernels.trace import Program

__all__ = ["DTYPES", "FACTS", "PRELUDE", "ROWS", "Writer", "statements"]

DTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "half",
}
"""Element types that a kernel takes, and what they are called in C++."""

PRELUDE = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
using std::abs; using std::sqrt; using std::pow; using std::exp; using std::log;

struct Table {
  int64_t n, items, columns, threads;
  const int64_t *item_rows, *rows;          // items + 1;  (tensor, offset, length) per row
  const uint64_t *params, *grads, *slots;   // n;  n;  k * n
  const int64_t *scalar_row;                // n
  const double *scalars;                    // rows of `columns`; the first factor is for g
  const int64_t *first_row, *sizes;         // n + 1;  n
  double *partial, *own, *totals;           // sums of a row;  numbers of a tensor;  sums of all
  const uint64_t *keys;                     // n: of the noise of stochastic rounding
  const int64_t *geometry;                  // n: (matrices, rows of each, columns of each)
  const int64_t *matrix_first, *row_first, *column_first;  // n + 1, where a tensor's numbers begin
  double *matrix_values, *row_values, *column_values;      // kept numbers, one kind after the other
  const uint64_t *row_slots, *column_slots; // as slots
  const int64_t *partial_first;             // of a row: where its sums of columns are
  double *column_partial;
};

struct bfloat16 { uint16_t bits; };
struct half { uint16_t bits; };

static inline float load(float x) { return x; }
static inline double load(double x) { return x; }
static inline float load(bfloat16 x) {
  uint32_t u = (uint32_t)x.bits << 16; float f; memcpy(&f, &u, 4); return f;
}
static inline float load(half x) {  // exact, subnormals, inf and NaN included
  uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = (uint32_t)(x.bits & 0x7fff) << 13;
  float scaled; memcpy(&scaled, &rest, 4); scaled *= 5.192296858534828e33f;  // 2^112
  uint32_t u; memcpy(&u, &scaled, 4);
  u = rest >= 0x0f800000u ? rest | 0x7f800000u : u;
  u |= sign; float f; memcpy(&f, &u, 4); return f;
}
static inline void store(float &to, float x) { to = x; }
static inline void store(double &to, double x) { to = x; }
static inline void store(bfloat16 &to, float x) {  // to nearest, ties to even
  uint32_t u; memcpy(&u, &x, 4);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  to.bits = (uint16_t)(x != x ? 0x7fc0u : rounded);
}
static inline void store(bfloat16 &to, float x, uint32_t noise) {  // up or down, by 16 random bits
  uint32_t u; memcpy(&u, &x, 4);
  to.bits = (uint16_t)(x != x ? 0x7fc0u : (u + noise) >> 16);
}
static inline uint64_t mix(uint64_t x) {  // SplitMix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
static inline uint32_t scatter(uint32_t x, uint32_t a, uint32_t b) {  // two rounds, two keys
  x ^= a; x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15;
  x += b; x *= 0x846ca68bu; return x ^ (x >> 16);
}
static inline void store(half &to, float x) {  // to nearest, ties to even
  uint32_t u; memcpy(&u, &x, 4);
  uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  uint32_t normal = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
  float f; memcpy(&f, &a, 4); f += 0.5f; uint32_t tiny; memcpy(&tiny, &f, 4); tiny -= 0x3f000000u;
  uint32_t r = a < 0x38800000u ? tiny : normal;
  r = a >= 0x477ff000u ? 0x7c00u : r;
  r = a > 0x7f800000u ? 0x7e00u : r;
  to.bits = (uint16_t)(r | sign);
}
// In two selections each: as one condition GCC 12 leaves the loop scalar, 3 times slower.
template <class T> static inline T maximum(T a, T b) { T c = a > b ? a : b; return a != a ? a : c; }
template <class T> static inline T minimum(T a, T b) { T c = a < b ? a : b; return a != a ? a : c; }
template <class T> static inline T sign(T a) { return a != a ? a : (T)(a > 0) - (T)(a < 0); }
"""

ROWS = r"""
  #pragma omp parallel for schedule(dynamic, 1) num_threads(t.threads) if (t.threads > 1)
  for (int64_t item = 0; item < t.items; ++item)
    for (int64_t r = t.item_rows[item]; r < t.item_rows[item + 1]; ++r) {
      const int64_t tensor = t.rows[3 * r], offset = t.rows[3 * r + 1], length = t.rows[3 * r + 2];
      if (!t.grads[tensor]) continue;
      CALL
    }"""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">"}
_INFIX |= {"ge": ">=", "eq": "==", "ne": "!="}


def _literal(value: float, real: str) -> str:
    if math.isnan(value):
        return f"({real})NAN"
    if math.isinf(value):
        return f"({real}){'-' if value < 0 else ''}INFINITY"
    return f"({real}){value!r}"


def statements(roots: Sequence[Node], names: dict[Node, str], real: str) -> Iterator[str]:
    """What the roots need as C++, one named value per node; fills in the nodes' names.

    Args:
        roots: What is computed.
        names: What has a name already.
        real: The type to compute with.
    """
    conditions: set[Node] = set()
    for count, node in enumerate(ordered(roots, known=frozenset(names))):
        if node.op == "const":
            names[node] = _literal(node.value, real)
            continue
        args = [names[a] for a in node.args]
        if node.op in _INFIX:
            text = f"{args[0]} {_INFIX[node.op]} {args[1]}"
        elif node.op == "neg":
            text = f"-{args[0]}"
        elif node.op == "where":
            condition = args[0] if node.args[0] in conditions else f"({args[0]} != 0)"
            text = f"{condition} ? {args[1]} : {args[2]}"
        else:
            text = f"{node.op}({', '.join(args)})"
        kind = real
        if node.op in COMPARISONS:
            conditions.add(node)
            kind = "bool"
        names[node] = f"v{count}"
        yield f"const {kind} v{count} = {text};"


FACTS = {"size": "size", "rows": "n_rows", "columns": "n_columns", "factored": "factored"}


class Writer:
    """The C++ of one kernel, function by function."""

    facts = "0, 0, 0"
    """Of a tensor: how many rows and columns, and whether it has them."""

    def __init__(
        self, program: Program, dtype: torch.dtype, slot_dtype: torch.dtype, *, noisy: bool
    ) -> None:
        self.program = program
        self.noisy = noisy
        self.real = "double" if dtype is torch.float64 else "float"
        self.kind, self.slot_kind = DTYPES[dtype], DTYPES[slot_dtype]
        self.arguments = f"{self.kind} *__restrict p, const {self.kind} *__restrict g" + "".join(
            f", {self.slot_kind} *__restrict s_{s}" for s in program.element_slots
        )
        self.pointers = (
            f"({self.kind} *)t.params[tensor] + offset, "
            f"(const {self.kind} *)t.grads[tensor] + offset"
        )
        for i in range(len(program.element_slots)):
            self.pointers += (
                f",\n            ({self.slot_kind} *)t.slots[{i} * t.n + tensor] + offset"
            )
        self.width = len(program.tensor_columns)

    def _loop(self, body: Callable[[dict[Node, str]], list[str]], *, stage: int) -> Iterator[str]:
        """Numbers, then a loop over the elements of a chunk.

        Args:
            body: Its lines, given the names of what is there.
            stage: How many passes have been done before.
        """
        names = {node: f"c{i}" for i, node in enumerate(self.program.columns)}
        own = enumerate(self.program.tensor_columns)
        known = {node: (i, f"w{i}") for i, node in own if node.stage <= stage}
        inputs = ("p", "g", *self.program.element_slots)
        lines = body({**names, **{node: name for node, (_, name) in known.items()}})
        used = set(re.findall(r"\w+", " ".join(lines)))
        real = self.real
        yield f"  const {real} factor = ({real})scalars[0];"
        for i, name in enumerate(names.values()):
            if name in used:
                yield f"  const {real} {name} = ({real})scalars[{i + 1}];"
        for i, name in known.values():
            if name in used:
                yield f"  const {real} {name} = ({real})own[{i}];"
        yield "  PRAGMA"
        yield "  for (int64_t i = 0; i < length; ++i) {"
        for name in inputs:
            if f"x_{name}" in used:
                scaled = "factor * " if name == "g" else ""
                array = name if name in ("p", "g") else f"s_{name}"
                yield f"    const {real} x_{name} = {scaled}load({array}[i]);"
        yield from (f"    {line}" for line in lines)
        yield "  }"

    def _elements(self, names: dict[Node, str], roots: Sequence[Node]) -> list[str]:
        for node in ordered(roots, known=frozenset(names)):
            if node.op == "element":
                names[node] = f"x_{node.name}"
        return list(statements(roots, names, self.real))

    def call(self) -> str:
        """The call of `chunk` for a row."""
        call = "chunk(length, t.scalars + t.scalar_row[tensor] * t.columns, "
        call += "t.keys[tensor], (uint64_t)offset, " if self.noisy else ""
        return call + f"t.own + tensor * {self.width}, {self.pointers});"

    def finish(self) -> Iterator[str]:
        """What is to be done when all elements have been."""
        return iter(())

    def chunk(self) -> Iterator[str]:
        """The element pass of one chunk."""
        program = self.program

        def body(names: dict[Node, str]) -> list[str]:
            lines = self._elements(names, program.element_roots)
            lines.append(f"const {self.real} step = {names[program.step]};")
            changed = [s for s in program.element_slots if s in program.new_slots]
            lines += [
                f"const {self.real} new_{s} = {names[program.new_slots[s]]};" for s in changed
            ]
            stored = {"p[i]": "x_p + step"} | {f"s_{s}[i]": f"new_{s}" for s in changed}
            return [*lines, *self._stores(stored)]

        yield "static void chunk(int64_t length, const double *__restrict scalars,"
        if self.noisy:
            yield "                  uint64_t key, uint64_t first,"
        yield f"                  const double *__restrict own, {self.arguments}) {{"
        if self.noisy:
            yield f"  key = mix(mix(key + (uint64_t)scalars[{1 + len(program.columns)}])"
            yield "            + (first >> 32));"
            yield "  const uint32_t key_a = (uint32_t)key, key_b = (uint32_t)(key >> 32);"
        for line in self._loop(body, stage=sys.maxsize):
            yield line.replace("PRAGMA", "#pragma omp simd")
        yield "}"

    def _stores(self, values: Mapping[str, str]) -> Iterator[str]:
        """Write what was computed; 16 random bits for each value of a bfloat16."""
        noise = 0
        for place, value in values.items():
            kind = self.kind if place == "p[i]" else self.slot_kind
            if not self.noisy or kind != "bfloat16":
                yield f"store({place}, {value});"
                continue
            if noise % 2 == 0:
                start = "(uint32_t)first + (uint32_t)i" if noise == 0 else f"r{noise - 2}"
                yield f"const uint32_t r{noise} = scatter({start}, key_a, key_b);"
            bits = f"r{noise - noise % 2} & 0xffffu" if noise % 2 == 0 else f"r{noise - 1} >> 16"
            yield f"store({place}, {value}, {bits});"
            noise += 1

    def reduction(self, at: int) -> Iterator[str]:
        """A reduction pass: sums of one chunk, numbers of one tensor, and all of them in order."""
        one = self.program.passes[at]
        sums = [f"a{i}" for i in range(len(one.sums))]

        def body(names: dict[Node, str]) -> list[str]:
            summed = [node.args[0] for node in one.sums]
            lines = self._elements(names, summed)
            return lines + [
                f"{a} += (double){names[x]};" for a, x in zip(sums, summed, strict=True)
            ]

        if sums:
            yield f"static void reduce_{at}(int64_t length, const double *__restrict scalars,"
            yield "                  const double *__restrict own, double *__restrict result,"
            yield f"                  {self.arguments}) {{"
            yield f"  double {', '.join(f'{a} = 0' for a in sums)};"
            for line in self._loop(body, stage=one.stage - 1):
                yield line.replace("PRAGMA", f"#pragma omp simd reduction(+:{','.join(sums)})")
            yield from (f"  result[{i}] = {a};" for i, a in enumerate(sums))
            yield "}"
        yield from self._numbers(at)
        yield f'extern "C" void steepest_pass_{at}(const Table *table) {{'
        yield "  const Table t = *table;"
        if sums:
            call = f"reduce_{at}(length, t.scalars + t.scalar_row[tensor] * t.columns, "
            call += f"t.own + tensor * {self.width}, t.partial + r * {len(sums)}, {self.pointers});"
            yield ROWS.replace("CALL", call)
        yield from self._tensors(at)
        yield "}"

    def _tensors(self, at: int) -> Iterator[str]:
        """Add up the sums of every tensor's rows in order; what follows from them."""
        sums = self.program.passes[at].sums
        if at + 1 == self.program.early:
            yield f"  for (int64_t i = 0; i < {len(self.program.totals)}; ++i) t.totals[i] = 0;"
        yield "  for (int64_t tensor = 0; tensor < t.n; ++tensor) {"
        yield "    if (!t.grads[tensor]) continue;"
        yield f"    double sums[{max(1, len(sums))}] = {{0}};"
        if sums:
            yield "    for (int64_t r = t.first_row[tensor]; r < t.first_row[tensor + 1]; ++r)"
            yield f"      for (int64_t i = 0; i < {len(sums)}; ++i)"
            yield f"        sums[i] += t.partial[r * {len(sums)} + i];"
        yield f"    numbers_{at}(t.scalars + t.scalar_row[tensor] * t.columns, sums,"
        yield f"              (double)t.sizes[tensor], {self.facts}, t.own + tensor * {self.width},"
        yield "              t.totals);"
        yield "  }"

    def _numbers(self, at: int) -> Iterator[str]:
        """What follows from the sums of one tensor, in float64."""
        one, program = self.program.passes[at], self.program
        names = {node: f"scalars[{i + 1}]" for i, node in enumerate(program.columns)}
        place = {node: i for i, node in enumerate(program.tensor_columns)}
        names |= {node: f"own[{i}]" for node, i in place.items() if node.stage < one.stage}
        names |= {node: f"sums[{i}]" for i, node in enumerate(one.sums)}
        totals = program.totals if at + 1 == program.early else ()
        roots = (*one.columns, *totals)
        for node in ordered(roots, known=frozenset(names)):
            if node.op in FACTS:
                names[node] = FACTS[node.op]
        yield f"static void numbers_{at}(const double *scalars, const double *sums, double size,"
        yield "                      double n_rows, double n_columns, double factored,"
        yield "                      double *own, double *totals) {"
        for line in statements(roots, names, "double"):
            yield f"  {line}"
        for node in (*one.sums, *one.columns):
            yield f"  own[{place[node]}] = {names[node]};"
        for i, node in enumerate(totals):
            yield f"  totals[{i}] += {names[node]};"
        yield "}"
