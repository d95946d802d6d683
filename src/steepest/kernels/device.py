"""A launch on the device: the same table of pointers, in the device's memory.

The host reads where the gradients are and uploads that; whether it also runs the scalar program
depends on where the steps are counted (see `steepest.kernels.cuda`).
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.kernels import Block, cpu, cuda
from steepest.kernels.table import Launch
from steepest.kernels.trace import Program

__all__ = ["DeviceLaunch", "counts_on_device"]

_WARPS = 4
_SPAN = 256  # rows whose sums one program adds up at a time


def counts_on_device(block: Block) -> bool:
    """Whether the host may not read the steps: they lie beside the parameters."""
    numbers = [
        column[0]
        for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
        if column and slot.per == "tensor"
    ]
    if not isinstance(block.steps, int):
        numbers += block.steps[:1]
    return block.capturable or any(x.device.type != "cpu" for x in numbers)


class DeviceLaunch(Launch):
    """Blocks that one Triton kernel does in one launch."""

    kernel: cuda.Kernel
    _extra: tuple[Tensor, ...] = ()
    """What the kernels are handed beside; the first is the shapes."""

    def __init__(self, blocks: Sequence[Block], program: Program, kernel: cuda.Kernel) -> None:
        self.on_device = any(map(counts_on_device, blocks))
        self.device = blocks[0].params[0].device
        self._staged: list[Tensor] = []
        if self.on_device:
            n, width = sum(len(b.params) for b in blocks), max(1, len(program.numbers))
            self._hyper = torch.zeros(len(blocks), width, dtype=torch.float64, device=self.device)
            columns = 1 + len(program.columns) + (blocks[0].noise is not None)
            self._scalar_table = torch.zeros(n, columns, dtype=torch.float64, device=self.device)
            signs = [-1.0 if b.maximize else 1.0 for b in blocks]
            self._factors = torch.tensor(signs, dtype=torch.float64, device=self.device)
            block_of = [i for i, b in enumerate(blocks) for _ in b.params]
            self._block_of = torch.tensor(block_of, dtype=torch.int64, device=self.device)
            self._one = torch.ones((), device=self.device)
            width = max(1, len(program.totals))
            self._nothing = torch.full((width,), math.nan, dtype=torch.float64, device=self.device)
        super().__init__(blocks, program, kernel)
        self._uploaded: np.ndarray[Any, Any] | None = None
        if self.on_device:
            self._there = {name: self._moved(self._arrays[name]) for name in ("steps", "numbers")}
            self._grads = torch.zeros(self.n, dtype=torch.int64, device=self.device)
            self._own_row = torch.arange(self.n, device=self.device)

    def _moved(self, values: Any) -> Tensor:
        """An array of addresses in the device's memory; never empty."""
        array = np.asarray(values).view(np.int64) if len(values) else np.zeros(1, np.int64)
        return torch.from_numpy(array.copy()).to(self.device)

    def _tables(self, n: int) -> None:
        sizes = np.array([p.numel() for p in self.params], dtype=np.int64)
        counts = -(-sizes // cuda.BLOCK)
        tensor = np.repeat(np.arange(n), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        offset = (np.arange(len(tensor)) - first) * cuda.BLOCK
        length = np.minimum(cuda.BLOCK, sizes[tensor] - offset)
        rows = np.stack([tensor, offset, length], axis=1)
        params = np.array([p.data_ptr() for p in self.params], dtype=np.uint64)
        slots = np.array([x.data_ptr() for c in self.slots for x in c], dtype=np.uint64)
        self._count = len(rows)
        self._rows_there = self._moved(rows.reshape(-1))
        self._params_there, self._slots_there = self._moved(params), self._moved(slots)
        program = self.program
        self._width = max(1, len(program.tensor_columns))
        self._first_row = self._moved(np.searchsorted(tensor, np.arange(n + 1)))
        self._sizes = self._moved(sizes)
        widest = max((len(one.sums) for one in program.passes), default=0)
        room = (
            n * self._width,
            max(1, len(rows) * widest),
            n * max(1, len(program.totals)),
            n * max(1, len(program.tensor_slots)),
        )
        self._own, self._partial, self._shares, self._aside = (
            torch.zeros(size, dtype=torch.float64, device=self.device) for size in room
        )
        keys = np.array([k for b in self.blocks for k in b.noise or ()], dtype=np.uint64)
        self._keys = self._moved(keys)
        self._aligned = bool(((params % 16) == 0).all() and ((slots % 16) == 0).all())
        self._table = cpu.Table(
            n=n,
            columns=self._columns,
            params=self._keep("params", params, np.uint64),
            grads=self._keep("grads", np.zeros(n), np.uint64),
            scalar_row=self._keep("scalar_row", np.zeros(n)),
        )
        self._table_address = 1  # stands for "there is a gradient" of an empty tensor

    def set_values(self, index: int, values: Mapping[str, Any]) -> None:
        """Take new hyperparameters for a block."""
        if not self.on_device:
            super().set_values(index, values)
            return
        self._moving[index] = {
            k: v for k, v in values.items() if isinstance(v, Tensor) and k in self.program.numbers
        }
        row = [
            0.0 if isinstance(values[name], Tensor) else float(values[name])
            for name in self.program.numbers
        ]
        if row:
            self._hyper[index] = self._upload(np.array(row))

    def _upload(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A copy on the device, without waiting for it."""
        staged = torch.from_numpy(array.copy())
        if self.device.type != "cuda":
            return staged
        staged = staged.pin_memory()
        if torch.cuda.is_current_stream_capturing():
            self._staged.append(staged)  # read again whenever the graph is replayed
        return staged.to(self.device, non_blocking=True)

    def sums(self, scale: float) -> Tensor | None:
        """What these tensors contribute to the sums over all, if the rule asks for any.

        Args:
            scale: What gradients are multiplied by first.
        """
        if not self.program.totals:
            return None
        self._fill(scale, (math.nan,) * len(self.program.totals))  # what follows is not read yet
        tables = self._tables_there()
        self._passes(*tables, stop=self.program.early)
        return self._summed()

    def _summed(self) -> Tensor:
        return self._shares.view(self.n, -1).sum(0)

    def _launch(self) -> None:
        tables = self._tables_there()
        self._passes(*tables, start=self.program.early if self.program.totals else 0)
        self._elements(*tables)

    def _tables_there(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients, rows of the scalar table and the table itself, uploaded in one piece."""
        n = self.n
        scalars = np.frombuffer(self._scalars).view(np.int64)
        grads = self._arrays["grads"]
        rows = self._arrays["scalar_row"]
        there = self._upload(np.concatenate([grads.view(np.int64), rows, scalars]))
        return there[:n], there[n : 2 * n], there[2 * n :].view(torch.float64)

    def sums_there(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> Tensor | None:
        """As `sums`; nothing is read on the host."""
        self._prepare_there()
        if not self.program.totals:
            return None
        self._scalars_there(grad_scale, found_inf, None)
        self._passes(self._grads, self._own_row, self._scalar_table, stop=self.program.early)
        return self._summed()

    def run_there(
        self, grad_scale: Tensor | None, found_inf: Tensor | None, totals: Tensor | None
    ) -> None:
        """Run the scalar program on the device, then the kernel; nothing is read on the host.

        Args:
            grad_scale: What gradients are divided by first.
            found_inf: Not zero: nothing is to change.
            totals: The sums over all tensors, for rules that ask for them.
        """
        self._scalars_there(grad_scale, found_inf, totals)
        tables = (self._grads, self._own_row, self._scalar_table)
        self._passes(*tables, start=self.program.early if self.program.totals else 0)
        self._elements(*tables)

    def _prepare_there(self) -> None:
        """Upload what has changed since the last step."""
        grads = self._arrays["grads"].view(np.int64)
        if self._uploaded is None or not np.array_equal(grads, self._uploaded):
            self._grads.copy_(self._upload(grads))
            self._uploaded = grads.copy()
        for index, moving in enumerate(self._moving):
            for name, value in moving.items():
                self._hyper[index, self.program.numbers.index(name)].copy_(value.squeeze())

    def _scalars_there(
        self, grad_scale: Tensor | None, found_inf: Tensor | None, totals: Tensor | None
    ) -> None:
        """The scalar program; without the totals that it needs, only what leads to them."""
        tl = importlib.import_module("triton.language")
        kinds = [*self.steps[:1], *(column[0] for column in self.numbers)]
        wide = bool(kinds) and kinds[0].dtype is torch.float64
        fixed = self.blocks[0].steps
        unknown = bool(self.program.totals) and totals is None
        with self._context():
            self.kernel.scalars[(self.n,)](
                self._grads,
                self._there["steps"],
                self._there["numbers"],
                self._hyper,
                self._block_of,
                self._factors,
                self._scalar_table,
                self.n,
                float(fixed) if isinstance(fixed, int) else 0.0,
                self._one if grad_scale is None else grad_scale,
                self._one if found_inf is None else found_inf,
                self._aside,
                self._nothing if totals is None else totals,
                COUNTED=not isinstance(fixed, int),
                NUMBERS=tl.float64 if wide else tl.float32,
                COLUMNS=self._columns,
                VALUES=self._hyper.shape[1],
                SCALED=grad_scale is not None,
                FOUND=found_inf is not None,
                FIRST=totals is None,
                LAST=not unknown,
                num_warps=1,
            )

    def _shape(self) -> dict[str, Any]:
        grads = self._arrays["grads"]
        aligned = self._aligned and not (grads[grads > 1] % 16).any()
        return {"ALIGN": 16 if aligned else 1, "BLOCK": cuda.BLOCK, "num_warps": _WARPS}

    def _passes(
        self,
        grads: Tensor,
        scalar_row: Tensor,
        scalars: Tensor,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        """Some of the reduction passes."""
        passes = list(enumerate(self.kernel.passes))[start:stop]
        if not passes:
            return
        sizes = {"COLUMNS": self._columns, "WIDTH": self._width}
        shape = self._shape()
        tables = (self._rows_there, self._params_there, grads, self._slots_there)
        numbers = (scalar_row, scalars, self._own, self._partial)
        with self._context():
            for index, (reduce, follow) in passes:
                if self._count and self.program.passes[index].sums:
                    reduce[(self._count,)](
                        *tables, *numbers, self.n, *self._extra, **sizes, **shape
                    )
                follow[(self.n,)](
                    grads,
                    self._first_row,
                    self._sizes,
                    *numbers,
                    self._shares,
                    *self._extra[:1],
                    **sizes,
                    SPAN=_SPAN,
                )
                self._after_pass(index, (grads, scalar_row, scalars))

    def _after_pass(self, index: int, tables: tuple[Tensor, Tensor, Tensor]) -> None:
        """What follows a reduction pass beside the numbers of tensors."""

    def _elements(self, grads: Tensor, scalar_row: Tensor, scalars: Tensor) -> None:
        if not self._count:
            return
        tables = (self._rows_there, self._params_there, grads, self._slots_there)
        with self._context():
            self.kernel.elements[(self._count,)](
                *tables,
                scalar_row,
                scalars,
                self._own,
                self._keys,
                self.n,
                *self._extra,
                COLUMNS=self._columns,
                WIDTH=self._width,
                **self._shape(),
            )

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        cuda_device = self.device.type == "cuda"
        return torch.cuda.device(self.device) if cuda_device else contextlib.nullcontext()
