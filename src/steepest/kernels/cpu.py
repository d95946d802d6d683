"""One C++ function per traced rule and dtype: OpenMP over chunks, SIMD within a chunk.

    n        tensors          k    element slots
    row      one chunk: (tensor, offset, length)
    item     consecutive rows that one thread takes at a time

The function is handed a `Table` and does all rows of it in one call. Rules that look at whole
tensors have more functions, one per reduction pass, to be called before it in order: each sums up
chunk by chunk in float64, adds the chunks' sums in the order of the chunks, so that the outcome
depends on no thread, and computes the numbers per tensor that follow.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from steepest.kernels import compiler
from steepest.kernels.cpu_rows import RowsWriter
from steepest.kernels.cpu_text import DTYPES, PRELUDE, ROWS, Writer
from steepest.kernels.trace import Program

__all__ = ["DTYPES", "Kernel", "Table", "build", "source"]


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
                "first_row",
                "sizes",
                "partial",
                "own",
                "totals",
                "keys",
                "geometry",
                "matrix_first",
                "row_first",
                "column_first",
                "matrix_values",
                "row_values",
                "column_values",
                "row_slots",
                "column_slots",
                "partial_first",
                "column_partial",
            )
        ),
    ]


@dataclass(frozen=True)
class Kernel:
    """A compiled rule.

    Attributes:
        program: What it computes.
        run: The function; takes the address of a `Table`.
        passes: The functions to call before it; likewise.
        source: Its C++.
    """

    program: Program
    run: ctypes._NamedFuncPointer
    passes: tuple[ctypes._NamedFuncPointer, ...]
    source: str


def source(
    program: Program, dtype: torch.dtype, slot_dtype: torch.dtype, *, noisy: bool = False
) -> str:
    """The C++ of a kernel.

    Args:
        program: The traced rule.
        dtype: Of parameters and gradients.
        slot_dtype: Of the slots that have the parameter's shape.
        noisy: Round bfloat16 stochastically.
    """
    kind = Writer if program.view == "none" else RowsWriter
    writer = kind(program, dtype, slot_dtype, noisy=noisy)
    lines = [PRELUDE, f"// {program.fixed}", *writer.chunk()]
    for at in range(len(program.passes)):
        lines += writer.reduction(at)
    lines += ['extern "C" void steepest_run(const Table *table) {', "  const Table t = *table;"]
    return "\n".join([*lines, ROWS.replace("CALL", writer.call()), *writer.finish(), "}"])


_BUILT: dict[tuple[Program, torch.dtype, torch.dtype, bool], Kernel] = {}


def build(
    program: Program, dtype: torch.dtype, slot_dtype: torch.dtype, *, noisy: bool = False
) -> Kernel:
    """The kernel of a traced rule; compiled at most once.

    Raises:
        KernelUnavailable: If it cannot be compiled here.
    """
    key = (program, dtype, slot_dtype, noisy)
    if key not in _BUILT:
        text = source(program, dtype, slot_dtype, noisy=noisy)
        library = compiler.load(text)
        passes = [getattr(library, f"steepest_pass_{i}") for i in range(len(program.passes))]
        for function in (library.steepest_run, *passes):
            function.argtypes, function.restype = [ctypes.c_void_p], None
        _BUILT[key] = Kernel(program, library.steepest_run, tuple(passes), text)
    return _BUILT[key]
