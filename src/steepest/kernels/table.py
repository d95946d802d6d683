"""The pointer table of one launch: which memory a kernel works on, and with which numbers.

    n      tensors of all blocks, in the order of the blocks
    row    a row of the scalar table: what the tensors of one block at one step have in common

Pointers of parameters and slots stay; pointers of gradients are read each step, steps counted
where torch keeps them (``state["step"]``), and the scalar program is run once per row.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.kernels import Block, cpu, walk
from steepest.kernels.scalars import scalar_function
from steepest.kernels.trace import Program

__all__ = ["Launch", "alike", "same_layout"]

_CHUNK = 65_536  # elements per row: a quarter of a megabyte per stream
_ITEM = 16_384  # elements that a thread takes at a time, at least
_ALONE = 131_072  # up to so many elements (40 µs) it does not pay to wait for a second thread


class Launch:
    """Blocks that one kernel does in one call.

    Attributes:
        blocks: What is done, in order.
        kernel: The compiled rule.
        gather: What a `walk.Walker` reads into.
        held: The tensors whose addresses are in the table.
    """

    on_device = False
    """Whether steps are counted, and the scalar program is run, on the device."""

    def __init__(self, blocks: Sequence[Block], program: Program, kernel: Any) -> None:
        self.blocks = list(blocks)
        self.kernel = kernel
        self.program = program
        self._scalars_of = scalar_function(program)
        self._noisy = blocks[0].noise is not None
        self._columns = 1 + len(program.columns) + self._noisy
        self._tensor_slots = len(program.tensor_slots)
        names = list(blocks[0].rule.slots)

        def columns_of(slots: Sequence[str]) -> list[list[Tensor]]:
            return [[x for b in blocks for x in b.slots[names.index(s)] or ()] for s in slots]

        self.params = [p for b in blocks for p in b.params]
        self.slots = columns_of(program.element_slots)
        self.numbers = columns_of(program.tensor_slots)
        self.of_rows = columns_of(program.row_slots)
        self.of_columns = columns_of(program.column_slots)
        self.steps = [x for b in blocks if not isinstance(b.steps, int) for x in b.steps]
        kept = (*self.slots, *self.numbers, *self.of_rows, *self.of_columns)
        self.held = [*self.params, *(x for column in kept for x in column), *self.steps]
        n = self.n = len(self.params)

        self._values: list[dict[str, Any]] = [{} for _ in blocks]
        self._moving: list[dict[str, Tensor]] = [{} for _ in blocks]
        for index, block in enumerate(blocks):
            self.set_values(index, block.values)

        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._tables(n)
        self._gather(n)
        self._mixed = [False] * len(blocks)
        self._rows(len(blocks))

    # ---- what is fixed ------------------------------------------------------------------------

    def _keep(self, name: str, values: Any, dtype: Any = np.int64) -> int:
        """Keep an array alive; its address."""
        array = np.ascontiguousarray(np.asarray(values, dtype=dtype).reshape(-1))
        self._arrays[name] = array
        return int(array.ctypes.data)

    def _tables(self, n: int) -> None:
        rows: list[tuple[int, int, int]] = []
        sizes = [p.numel() for p in self.params]
        total = sum(sizes)
        threads = torch.get_num_threads()
        chunk = self._chunk(total, threads)
        item_rows, filled = [0], 0
        for tensor, size in enumerate(sizes):
            span = self._span(tensor, chunk)
            for offset in range(0, size, span):
                rows.append((tensor, offset, min(span, size - offset)))
                filled += rows[-1][2]
                if filled >= min(_ITEM, chunk) and total > _ALONE:
                    item_rows.append(len(rows))
                    filled = 0
        if item_rows[-1] != len(rows):
            item_rows.append(len(rows))
        self._table = cpu.Table(
            n=n,
            items=len(item_rows) - 1,
            columns=self._columns,
            threads=max(1, min(threads, len(item_rows) - 1)),
            item_rows=self._keep("item_rows", item_rows),
            rows=self._keep("rows", rows),
            params=self._keep("params", [p.data_ptr() for p in self.params], np.uint64),
            grads=self._keep("grads", np.zeros(n), np.uint64),
            slots=self._keep("slots", [x.data_ptr() for c in self.slots for x in c], np.uint64),
            scalar_row=self._keep("scalar_row", np.zeros(n)),
            keys=self._keep("keys", [k for b in self.blocks for k in b.noise or ()], np.uint64),
        )
        self._threads = torch.get_num_threads()
        self._table_address = ctypes.addressof(self._table)

    def _chunk(self, total: int, threads: int) -> int:
        """Elements per row."""
        return min(_CHUNK, max(_ITEM // 4, -(-total // (4 * threads) // 16) * 16))

    def _span(self, tensor: int, chunk: int) -> int:
        """Elements per row of one tensor, of at most ``chunk`` where that is possible."""
        return chunk

    def _gather(self, n: int) -> None:
        ends = list(accumulate(len(b.params) for b in self.blocks))
        self._ranges = list(zip([0, *ends[:-1]], ends, strict=True))
        self._found = (walk.Block * len(self.blocks))(
            *(
                walk.Block(
                    lo=lo,
                    hi=hi,
                    has_steps=not (self.on_device or isinstance(b.steps, int)),
                    t=float(b.steps) if isinstance(b.steps, int) else 0.0,
                )
                for (lo, hi), b in zip(self._ranges, self.blocks, strict=True)
            )
        )
        steps: list[int] = []
        for block in self.blocks:
            counted = [] if isinstance(block.steps, int) else block.steps
            steps += [x.data_ptr() for x in counted] or [0] * len(block.params)
        numbers = [x.data_ptr() for column in self.numbers for x in column]
        dims = [0, *accumulate(p.ndim for p in self.params)]
        self.gather = walk.Gather(
            n=n,
            blocks=len(self.blocks),
            tensor_slots=0 if self.on_device else self._tensor_slots,
            wide_steps=bool(self.steps) and self.steps[0].dtype is torch.float64,
            wide_slots=bool(self.numbers) and self.numbers[0][0].dtype is torch.float64,
            block=ctypes.addressof(self._found),
            param_data=self._table.params,
            dim_first=self._keep("dim_first", dims),
            sizes=self._keep("sizes", [s for p in self.params for s in p.shape]),
            strides=self._keep("strides", [s for p in self.params for s in p.stride()]),
            steps=self._keep("steps", steps, np.uint64),
            slots=self._keep("numbers", numbers, np.uint64),
            grads=self._table.grads,
            t=self._keep("t", np.zeros(n), np.float64),
            slot_values=self._keep("slot_values", np.zeros(n * self._tensor_slots), np.float64),
            scalar_row=self._table.scalar_row,
        )

    def aim(self, walker: walk.Walker) -> bool:
        """Let a walker read for this launch; False if some object is not laid out as expected."""
        handles = [walker.handle(p) for p in self.params]
        if None in handles:
            return False
        self.gather.params = self._keep("handles", handles, np.uint64)
        kinds = walker.kind(int(self._arrays["handles"][0]))
        for name, kind in zip(("dtype", "layout", "device"), kinds, strict=True):
            setattr(self.gather, name, kind)
        return True

    def _rows(self, rows: int) -> None:
        """Make room for that many rows of scalars."""
        self._room = rows
        self._scalars = bytearray(8 * rows * self._columns)
        self._new_numbers = bytearray(8 * rows * max(1, self._tensor_slots))
        self._table.scalars = _address(self._scalars)
        self.gather.new_slots = _address(self._new_numbers)
        self._pack = struct.Struct(f"{self._columns}d").pack_into
        self._pack_numbers = struct.Struct(f"{self._tensor_slots}d").pack_into

    # ---- what changes -------------------------------------------------------------------------

    def set_values(self, index: int, values: Mapping[str, Any]) -> None:
        """Take new hyperparameters for a block."""
        moving = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        self._moving[index] = moving
        self._values[index] = {**values, **{k: v.item() for k, v in moving.items()}}

    def gather_in_python(self) -> bool:
        """What `walk.Walker.gather` does, slowly; False if something else has changed."""
        grads, times = self._arrays["grads"], self._arrays["t"]
        data, numbers = self._arrays["params"], self._arrays["slot_values"]
        for (lo, hi), found, block in zip(self._ranges, self._found, self.blocks, strict=True):
            found.active, seen = 0, set()
            for i in range(lo, hi):
                p, g = self.params[i], self.params[i].grad
                if p.data_ptr() != data[i]:
                    return False
                grads[i] = 0
                if g is None:
                    continue
                if not alike(g, p):
                    return False
                grads[i] = g.data_ptr() or self._table_address
                found.active += 1
                if self.on_device:
                    continue
                steps = block.steps
                times[i] = steps if isinstance(steps, int) else steps[i - lo].item() + 1
                for j, column in enumerate(self.numbers):
                    numbers[j * self.n + i] = column[i].item()
                seen.add((times[i], *numbers[i :: self.n]))
                found.t = times[i]
            found.uniform = len(seen) <= 1
        return True

    def commit_in_python(self) -> None:
        """What `walk.Walker.commit` does, slowly."""
        grads, times, rows = (self._arrays[k] for k in ("grads", "t", "scalar_row"))
        new = np.frombuffer(self._new_numbers).reshape(-1, max(1, self._tensor_slots))
        for (lo, hi), block in zip(self._ranges, self.blocks, strict=True):
            for i in (i for i in range(lo, hi) if grads[i]):
                torch.autograd.graph.increment_version(self.params[i])
                if self.on_device:
                    continue
                if not isinstance(block.steps, int):
                    block.steps[i - lo].fill_(times[i])
                for j, column in enumerate(self.numbers):
                    column[i].fill_(new[rows[i], j])

    def sums(self, scale: float) -> Tensor | None:
        """What these tensors contribute to the sums over all tensors; None without such sums.

        Args:
            scale: What gradients are multiplied by first.
        """
        return None

    def run(self, scale: float, totals: Sequence[float] = ()) -> None:
        """Run the scalar program, then the kernel, on what was gathered.

        Args:
            scale: What gradients are multiplied by first.
            totals: The sums over all tensors, for rules that ask for them.
        """
        self._fill(scale, totals)
        self._launch()

    def _fill(self, scale: float, totals: Sequence[float]) -> None:
        """Run the scalar program for every row."""
        self._totals = totals
        spare = len(self.blocks)
        for index, found in enumerate(self._found):
            if not found.active:
                continue
            if not found.uniform:
                spare = self._run_mixed(index, spare, scale)
                continue
            lo, hi = self._ranges[index]
            if self._mixed[index] or index:
                self._arrays["scalar_row"][lo:hi] = index
                self._mixed[index] = False
            numbers: Sequence[float] = ()
            if self._tensor_slots:
                first = lo + int(np.argmax(self._arrays["grads"][lo:hi] != 0))
                numbers = self._arrays["slot_values"][first :: self.n].tolist()
            self._row(index, index, found.t, numbers, scale)

    def _launch(self) -> None:
        self._take_threads()
        self.kernel.run(self._table_address)

    def _take_threads(self) -> None:
        """Use as many threads as torch does now."""
        threads = torch.get_num_threads()
        if threads != self._threads:
            self._threads = threads
            self._table.threads = max(1, min(threads, self._table.items))

    def _row(self, index: int, row: int, t: float, numbers: Sequence[float], scale: float) -> None:
        values = self._values[index]
        for name, tensor in self._moving[index].items():
            values[name] = tensor.item()
        results = self._scalars_of(t, values, numbers, self._totals)
        factor = -scale if self.blocks[index].maximize else scale
        at = len(self.program.columns)
        last = (t,) if self._noisy else ()
        self._pack(self._scalars, 8 * row * self._columns, factor, *results[:at], *last)
        if self._tensor_slots:
            self._pack_numbers(self._new_numbers, 8 * row * self._tensor_slots, *results[at:])

    def _run_mixed(self, index: int, spare: int, scale: float) -> int:
        """A block whose tensors are not all at the same step: one row for each that there is."""
        self._mixed[index] = True
        lo, hi = self._ranges[index]
        active = lo + np.flatnonzero(self._arrays["grads"][lo:hi])
        numbers = self._arrays["slot_values"].reshape(-1, self.n)[:, active]
        keys = np.vstack([self._arrays["t"][active], numbers]).T
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        if spare + len(distinct) > self._room:
            before = bytes(self._scalars), bytes(self._new_numbers)
            self._rows(2 * (spare + len(distinct)))
            self._scalars[: len(before[0])], self._new_numbers[: len(before[1])] = before
        self._arrays["scalar_row"][active] = spare + inverse.reshape(-1)
        for row, (t, *own) in enumerate(distinct.tolist(), start=spare):
            self._row(index, row, t, own, scale)
        return spare + len(distinct)


def alike(g: Tensor, p: Tensor) -> bool:
    """Whether a kernel can walk through both in step: same type, shape and strides."""
    if g.dtype is not p.dtype or g.layout is not p.layout or g.device != p.device:
        return False
    return same_layout(g, p) and not g.is_neg()


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether the elements of both lie in the same order."""
    if a.shape != b.shape:
        return False
    if a.stride() == b.stride() or not a.numel():
        return True
    return all(s == t or d == 1 for s, t, d in zip(a.stride(), b.stride(), b.shape, strict=True))


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
