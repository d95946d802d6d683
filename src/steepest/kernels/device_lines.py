"""A launch on the device of a rule that has numbers of rows and columns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.kernels.device import DeviceLaunch
from steepest.kernels.lines import geometry

__all__ = ["DeviceLinesLaunch"]

_BLOCK = 256


class DeviceLinesLaunch(DeviceLaunch):
    """Blocks whose steps need numbers of rows and columns, by Triton kernels."""

    def _tables(self, n: int) -> None:
        super()._tables(n)
        program = self.program
        shapes = [geometry(tuple(p.shape), program.view) for p in self.params]
        counts = {
            "matrix": [m for m, *_ in shapes],
            "row": [m * r for m, r, *_ in shapes],
            "column": [m * c for m, _, c, _ in shapes],
        }
        kept = {
            "matrix": program.matrix_values,
            "row": program.row_values,
            "column": program.column_values,
        }
        self._units = {extent: sum(count) for extent, count in counts.items()}
        self._tensor_of = {
            extent: self._moved(np.repeat(np.arange(n), count)) for extent, count in counts.items()
        }
        firsts = (self._moved(np.array([0, *accumulate(count)])) for count in counts.values())
        values = (
            torch.zeros(
                max(1, self._units[extent] * len(nodes)), dtype=torch.float64, device=self.device
            )
            for extent, nodes in kept.items()
        )
        self._extra = (self._moved(np.array(shapes).reshape(-1)), *firsts, *values)
        self._row_slots, self._column_slots = (
            self._moved(np.array([x.data_ptr() for c in columns for x in c], dtype=np.uint64))
            for columns in (self.of_rows, self.of_columns)
        )

    def _after_pass(self, index: int, tables: tuple[Tensor, Tensor, Tensor]) -> None:
        self._call(self.kernel.lines[index], tables)

    def _elements(self, grads: Tensor, scalar_row: Tensor, scalars: Tensor) -> None:
        super()._elements(grads, scalar_row, scalars)
        self._call(self.kernel.lines[-1], (grads, scalar_row, scalars))

    def _call(
        self, functions: Iterable[tuple[str, Any]], tables: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        grads, scalar_row, scalars = tables
        with self._context():
            for extent, function in functions:
                if not self._units[extent]:
                    continue
                function[(self._units[extent],)](
                    self._tensor_of[extent],
                    self._sizes,
                    self._params_there,
                    grads,
                    self._slots_there,
                    self._row_slots,
                    self._column_slots,
                    scalar_row,
                    scalars,
                    self._own,
                    self.n,
                    *self._extra,
                    COLUMNS=self._columns,
                    WIDTH=self._width,
                    BLOCK=_BLOCK,
                )
