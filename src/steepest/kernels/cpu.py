"""One C++ function per traced rule and dtype: OpenMP over chunks, SIMD within a chunk.

    n        tensors          k    element slots
    row      one chunk: (tensor, offset, length)
    item     consecutive rows that one thread takes at a time

The function is handed a `Table` and does all rows of it in one call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from steepest.kernels import compiler
from steepest.kernels.trace import COMPARISONS, Program, ordered

__all__ = ["DTYPES", "Kernel", "Table", "build", "source"]

DTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "half",
}
"""Element types that a kernel takes, and what they are called in C++."""

_PRELUDE = r"""
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

_RUN = r"""
extern "C" void steepest_run(const Table *table) {
  const Table t = *table;
  #pragma omp parallel for schedule(dynamic, 1) num_threads(t.threads) if (t.threads > 1)
  for (int64_t item = 0; item < t.items; ++item)
    for (int64_t r = t.item_rows[item]; r < t.item_rows[item + 1]; ++r) {
      const int64_t tensor = t.rows[3 * r], offset = t.rows[3 * r + 1], length = t.rows[3 * r + 2];
      if (!t.grads[tensor]) continue;
      chunk(length, t.scalars + t.scalar_row[tensor] * t.columns%s);
    }
}
"""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">"}
_INFIX |= {"ge": ">=", "eq": "==", "ne": "!="}


class Table(ctypes.Structure):
    """What the function is handed; the same fields as in C++."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n", "items", "columns", "threads")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "item_rows",
                "rows",
                "params",
                "grads",
                "slots",
                "scalar_row",
                "scalars",
            )
        ),
    ]


@dataclass(frozen=True)
class Kernel:
    """A compiled rule.

    Attributes:
        program: What it computes.
        run: The function; takes the address of a `Table`.
        source: Its C++.
    """

    program: Program
    run: ctypes._NamedFuncPointer
    source: str


def _literal(value: float, real: str) -> str:
    if math.isnan(value):
        return f"({real})NAN"
    if math.isinf(value):
        return f"({real}){'-' if value < 0 else ''}INFINITY"
    return f"({real}){value!r}"


def _statements(program: Program, real: str) -> Iterator[str]:
    """The element graph as C++, one named value per node; the results are ``step, new_*``."""
    names = {node: f"c{i}" for i, node in enumerate(program.columns)}
    for count, node in enumerate(ordered(program.element_roots)):
        if node in names:
            continue
        if node.op == "const":
            names[node] = _literal(node.value, real)
            continue
        if not node.per_element:
            continue
        if node.op == "element":
            names[node] = f"x_{node.name}"
            continue
        args = [names[a] for a in node.args]
        if node.op in _INFIX:
            text = f"{args[0]} {_INFIX[node.op]} {args[1]}"
        elif node.op == "neg":
            text = f"-{args[0]}"
        elif node.op == "where":
            condition = args[0] if node.args[0].op in COMPARISONS else f"({args[0]} != 0)"
            if not node.args[0].per_element:
                condition = f"({args[0]} != 0)"
            text = f"{condition} ? {args[1]} : {args[2]}"
        else:
            text = f"{node.op}({', '.join(args)})"
        kind = "bool" if node.op in COMPARISONS else real
        names[node] = f"v{count}"
        yield f"const {kind} v{count} = {text};"
    yield f"const {real} step = {names[program.step]};"
    for slot in program.element_slots:
        if slot in program.new_slots:
            yield f"const {real} new_{slot} = {names[program.new_slots[slot]]};"


def source(program: Program, dtype: torch.dtype, slot_dtype: torch.dtype) -> str:
    """The C++ of a kernel.

    Args:
        program: The traced rule.
        dtype: Of parameters and gradients.
        slot_dtype: Of the slots that have the parameter's shape.
    """
    real = "double" if dtype is torch.float64 else "float"
    kind, slot_kind = DTYPES[dtype], DTYPES[slot_dtype]
    slots = program.element_slots
    lines = [
        _PRELUDE,
        f"// {program.fixed}",
        "static void chunk(int64_t length, const double *__restrict scalars,",
        f"                  {kind} *__restrict p, const {kind} *__restrict g"
        + "".join(f", {slot_kind} *__restrict s_{s}" for s in slots)
        + ") {",
        f"  const {real} factor = ({real})scalars[0];",
        *(f"  const {real} c{i} = ({real})scalars[{i + 1}];" for i in range(len(program.columns))),
        "  #pragma omp simd",
        "  for (int64_t i = 0; i < length; ++i) {",
        f"    const {real} x_p = load(p[i]), x_g = factor * load(g[i]);",
        *(f"    const {real} x_{s} = load(s_{s}[i]);" for s in slots),
        *(f"    {line}" for line in _statements(program, real)),
        "    store(p[i], x_p + step);",
        *(f"    store(s_{s}[i], new_{s});" for s in slots if s in program.new_slots),
        "  }",
        "}",
    ]
    pointers = f", ({kind} *)t.params[tensor] + offset, (const {kind} *)t.grads[tensor] + offset"
    for i in range(len(slots)):
        pointers += f",\n            ({slot_kind} *)t.slots[{i} * t.n + tensor] + offset"
    return "\n".join(lines) + _RUN.replace("%s", pointers)


_BUILT: dict[tuple[Program, torch.dtype, torch.dtype], Kernel] = {}


def build(program: Program, dtype: torch.dtype, slot_dtype: torch.dtype) -> Kernel:
    """The kernel of a traced rule; compiled at most once.

    Raises:
        KernelUnavailable: If it cannot be compiled here.
    """
    key = (program, dtype, slot_dtype)
    if key not in _BUILT:
        text = source(program, dtype, slot_dtype)
        run = compiler.load(text).steepest_run
        run.argtypes, run.restype = [ctypes.c_void_p], None
        _BUILT[key] = Kernel(program, run, text)
    return _BUILT[key]
