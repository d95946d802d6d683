"""The launch of a rule that has numbers of rows and columns.

M        matrices in a tensor     R, C     rows and columns of each     line    a row of any of them
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
from torch import Tensor

from steepest.kernels.reducing import ReducingLaunch
from steepest.kernels.symbols import View

__all__ = ["LinesLaunch", "geometry", "why_no_lines"]

_CHUNK = 65_536


def geometry(shape: tuple[int, ...], view: View) -> tuple[int, int, int, int]:
    """M, R, C, and whether the tensor has rows and columns at all.

    >>> geometry((8, 4, 3, 5), "last"), geometry((8, 4, 3, 5), "first"), geometry((7,), "first")
    ((32, 3, 5, 1), (1, 8, 60, 1), (1, 1, 7, 0))
    """
    if len(shape) < 2:
        return 1, 1, math.prod(shape), 0
    if view == "first":
        return 1, shape[0], math.prod(shape[1:]), 1
    return math.prod(shape[:-2]), shape[-2], shape[-1], 1


def why_no_lines(p: Tensor, view: View) -> str | None:
    """Why the rows of a parameter do not lie one after the other; None if they do."""
    outermost = p.ndim < 2 or p.stride(0) * p.shape[0] == p.numel()
    if p.is_contiguous() or (view == "first" and outermost):
        return None
    return f"the rows of a parameter do not lie one after the other (strides {p.stride()})"


class LinesLaunch(ReducingLaunch):
    """Blocks whose steps need numbers of rows and columns."""

    def _span(self, tensor: int, chunk: int) -> int:
        columns = max(1, self._geometry()[tensor][2])
        return max(1, _CHUNK // columns) * columns

    def _geometry(self) -> list[tuple[int, int, int, int]]:
        return [geometry(tuple(p.shape), self.program.view) for p in self.params]

    def _tables(self, n: int) -> None:
        super()._tables(n)
        program, shapes = self.program, self._geometry()
        self._table.geometry = self._keep("geometry", shapes)
        for name, counts, kept in (
            ("matrix", [m for m, *_ in shapes], program.matrix_values),
            ("row", [m * r for m, r, *_ in shapes], program.row_values),
            ("column", [m * c for m, _, c, _ in shapes], program.column_values),
        ):
            first = [0, *accumulate(counts)]
            setattr(self._table, f"{name}_first", self._keep(f"{name}_first", first))
            values = np.zeros(max(1, first[-1] * len(kept)))
            setattr(self._table, f"{name}_values", self._keep(f"{name}_values", values, np.float64))
        for name, columns in (("row", self.of_rows), ("column", self.of_columns)):
            pointers = [x.data_ptr() for column in columns for x in column]
            setattr(self._table, f"{name}_slots", self._keep(f"{name}_slots", pointers, np.uint64))
        widest = max(
            (sum(node.reduces for node in one.across) for one in program.passes), default=0
        )
        sizes = [
            widest * shapes[tensor][2] * self._touched(shapes[tensor], offset, length)
            for tensor, offset, length in self._arrays["rows"].reshape(-1, 3).tolist()
        ]
        first = [0, *accumulate(sizes)]
        self._table.partial_first = self._keep("partial_first", first)
        self._table.column_partial = self._keep(
            "column_partial", np.zeros(max(1, first[-1])), np.float64
        )

    @staticmethod
    def _touched(shape: tuple[int, int, int, int], offset: int, length: int) -> int:
        """How many matrices some lines belong to."""
        _, rows, columns, _ = shape
        first, last = offset // columns, (offset + length) // columns - 1
        return last // rows - first // rows + 1
