"""The launch of a rule that looks at whole tensors: reduction passes, then the element pass.

    n      tensors              row    a chunk of a tensor

Chunks are of one size whatever the number of threads, so that sums do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from steepest.kernels.table import Launch

__all__ = ["ReducingLaunch"]

_CHUNK = 16_384


class ReducingLaunch(Launch):
    """Blocks whose steps need sums over their tensors, or over all."""

    def _chunk(self, total: int, threads: int) -> int:
        return _CHUNK

    def _tables(self, n: int) -> None:
        super()._tables(n)
        program = self.program
        rows = self._arrays["rows"].reshape(-1, 3)
        widest = max((len(one.sums) for one in program.passes), default=0)
        first = np.searchsorted(rows[:, 0], np.arange(n + 1))
        self._table.first_row = self._keep("first_row", first)
        self._table.sizes = self._keep("tensor_sizes", [p.numel() for p in self.params])
        room = {
            "partial": len(rows) * widest,
            "own": n * len(program.tensor_columns),
            "totals": len(program.totals),
        }
        for name, size in room.items():
            setattr(self._table, name, self._keep(name, np.zeros(max(1, size)), np.float64))

    def sums(self, scale: float) -> Tensor | None:
        """What these tensors contribute to the sums over all, if the rule asks for any."""
        width = len(self.program.totals)
        if not width:
            return None
        self._fill(scale, (math.nan,) * width)  # what follows from them is not read yet
        self._take_threads()
        for reduce in self.kernel.passes[: self.program.early]:
            reduce(self._table_address)
        return torch.from_numpy(self._arrays["totals"][:width].copy())

    def run(self, scale: float, totals: Sequence[float] = ()) -> None:
        """Run the scalar program, the passes that are left, and the element pass."""
        self._fill(scale, totals)
        self._take_threads()
        for reduce in self.kernel.passes[self.program.early :]:
            reduce(self._table_address)
        self._launch()
