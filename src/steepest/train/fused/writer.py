"""What a pass in C++ is written with: arrays of one member's numbers, and loops over them.

    M    members: the first dimension of every array that is not a constant

Views are not carried out: torch itself is asked, on tensors without data, where their elements
lie. What an operation gives lies in scratch memory until its last use, and then another takes the
place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from steepest.train.fused.text import KINDS, PRELUDE, Loop, number, run

__all__ = ["Array", "CarriesOut", "Unfit", "Writer"]

CarriesOut = Callable[["Writer", fx.Node, Any], Any]
"""Writes one operation, given what its arguments have become; says what it gives."""

_ALIGNED = 64  # bytes
_PAGE = 4096


class Unfit(Exception):  # noqa: N818  (of a pass: not a mistake)
    """A pass that does not become C++; the message says why."""


@dataclass(eq=False)
class _Memory:
    """Where numbers lie: what is given, a result, or scratch."""

    name: str
    kind: str
    size: int = 0  # bytes, of scratch
    writable: bool = True
    first: int = -1
    last: int = -1
    copied: _Memory | None = None  # where rows of a batch are copied to


@dataclass(eq=False)
class Array:
    """What an operation gives or takes.

    Attributes:
        shape: Of one member's part.
        meta: A tensor without data that lies as it does, members first; a constant has none.
        memory: Where it lies; None for a number.
        value: The number, or what it is computed as in C++.
        shared: It is a constant tensor, the same for all members.
        merged: The recording has its members and the dimension after them as one.
        second: The recording has its members second.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    meta: Tensor | None = None
    memory: _Memory | None = None
    value: float | int | bool | str = 0
    shared: bool = False
    merged: bool = False
    second: bool = False
    strides: tuple[int, ...] = field(init=False)
    offset: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.strides = (0,) * len(self.shape)
        if self.meta is not None:
            self.strides = self.meta.stride() if self.shared else self.meta.stride()[1:]
            self.offset = int(self.meta.storage_offset())

    @property
    def kind(self) -> str:
        """Its elements' type in C++."""
        return KINDS[self.dtype]

    @property
    def regrouped(self) -> bool:
        """Whether the recording has its members elsewhere than first and alone."""
        return self.merged or self.second

    @property
    def dense(self) -> bool:
        """Whether its elements lie one after the other."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return self.memory is not None


class Writer:
    """Takes down the C++ of a pass, operation by operation.

    Args:
        members: How many there are; nothing that is written depends on it.
        buffers: The tensors given from this number on may be written to,
        batch: and those from this number on are the batch.
    """

    def __init__(self, members: int, buffers: int, batch: int) -> None:
        self.members, self.buffers, self.batch = members, buffers, batch
        self.lines: list[str] = []
        self.memories: list[_Memory] = []
        self.constants: list[Tensor] = []
        self.wanted: dict[int, _Memory] = {}  # results
        self.destination: int | None = None
        self.aliases: set[fx.Node] = set()  # copies that need not be made
        self._count = 0

    # ------------------------------------------------------------------ arrays

    def given(self, number_: int, tensor: Tensor) -> Array:
        """A tensor that the pass is called with."""
        if tensor.dtype not in KINDS:
            raise Unfit(f"it computes with {tensor.dtype}")
        if tensor.ndim == 0 or tensor.shape[0] != self.members:
            raise Unfit(f"it is given a tensor of shape {tuple(tensor.shape)}, without members")
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        memory = _Memory(f"g{number_}", KINDS[tensor.dtype])
        memory.writable = self.buffers <= number_ < self.batch
        if number_ >= self.batch:
            if tensor.ndim < 2 or not tensor.is_contiguous():
                raise Unfit(f"its batch lies in an unusual way ({tuple(tensor.stride())})")
            size = int(tensor.numel() // self.members) * tensor.dtype.itemsize
            copied = _Memory(f"s{len(self.memories)}", memory.kind, size, first=0)
            self.memories.append(copied)
            memory = replace(memory, copied=copied)
        return Array(tuple(tensor.shape[1:]), tensor.dtype, meta, memory)

    def constant(self, tensor: Tensor) -> Array:
        """A tensor of the recording itself: the same for all members."""
        if tensor.dtype not in KINDS:
            raise Unfit(f"it computes with {tensor.dtype}")
        if tensor.numel() == 1:
            return Array(tuple(tensor.shape), tensor.dtype, value=tensor.item(), shared=True)
        self.constants.append(tensor.contiguous())
        name = f"c{len(self.constants) - 1}"
        memory = _Memory(name, KINDS[tensor.dtype], writable=False)
        meta = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return Array(tuple(tensor.shape), tensor.dtype, meta, memory, shared=True)

    def new(self, shape: Sequence[int], dtype: torch.dtype) -> Array:
        """Memory for what an operation gives."""
        if dtype not in KINDS:
            raise Unfit(f"it computes with {dtype}")
        meta = torch.empty(self.members, *shape, dtype=dtype, device="meta")
        size = int(meta.numel() // self.members) * dtype.itemsize
        memory = _Memory(f"s{len(self.memories)}", KINDS[dtype], size)
        self.memories.append(memory)
        return Array(tuple(shape), dtype, meta, memory)

    def output(self, shape: Sequence[int], dtype: torch.dtype) -> Array:
        """Memory for what the operation at hand gives: the caller's, if it is a result."""
        number_, self.destination = self.destination, None
        return self.new(shape, dtype) if number_ is None else self.result(number_, shape, dtype)

    def result(self, number_: int, shape: Sequence[int], dtype: torch.dtype) -> Array:
        """Memory where the caller wants a result."""
        if dtype not in KINDS:
            raise Unfit(f"it computes with {dtype}")
        meta = torch.empty(self.members, *shape, dtype=dtype, device="meta")
        memory = _Memory(f"r{number_}", KINDS[dtype], int(meta.numel() // self.members))
        self.wanted[number_] = memory
        return Array(tuple(shape), dtype, meta, memory)

    def own(self, node: fx.Node) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of one member's part of what an operation gives."""
        value = node.meta["val"]
        if not isinstance(value, Tensor):
            raise Unfit(f"there is no C++ for {node.target}")
        if value.ndim == 0 or value.shape[0] != self.members:
            raise Unfit(f"an operation without members ({node.target})")
        return tuple(value.shape[1:]), value.dtype

    def viewed(self, array: Array, meta: Tensor) -> Array:
        """The same numbers, seen as ``meta`` lies."""
        if array.memory is None:
            return Array(tuple(meta.shape[1:]), array.dtype, value=array.value)
        if array.shared:
            return Array(tuple(meta.shape), array.dtype, meta, array.memory, shared=True)
        if meta.ndim == 0 or meta.shape[0] != self.members:
            raise Unfit("an operation mixes members")
        base = array.meta
        if base is not None and self.members > 1 and meta.stride(0) != base.stride(0):
            raise Unfit("an operation mixes members")
        return Array(tuple(meta.shape[1:]), array.dtype, meta, array.memory)

    # ------------------------------------------------------------------ lines

    def use(self, *arrays: Array) -> None:
        """Note that the next line uses these."""
        for array in arrays:
            memory = array.memory
            if memory is not None:
                memory = memory.copied or memory
                memory.first = self._count if memory.first < 0 else memory.first
                memory.last = self._count

    def write(self, lines: Iterable[str], *arrays: Array) -> None:
        """Take down lines that use these arrays."""
        self.use(*arrays)
        self._count += 1
        self.lines += lines

    def base(self, array: Array) -> str:
        """A pointer to its first element."""
        assert array.memory is not None  # noqa: S101  a number has no place
        return array.memory.name + (f" + {array.offset}" if array.offset else "")

    def spread(self, array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The strides with which an array is walked through by loops over a shape."""
        if array.memory is None:
            return (0,) * len(shape)
        own, strides = array.shape, array.strides
        if array.shared and len(own) == len(shape) + 1:
            if own[0] != 1:
                raise Unfit("a constant has a number for every member")
            own, strides = own[1:], strides[1:]
        missing = len(shape) - len(own)
        if missing and not array.shared:
            raise Unfit(f"an operation mixes members: {own} beside {shape}")
        if missing < 0 or any(a not in (1, b) for a, b in zip(own, shape[missing:], strict=True)):
            raise Unfit(f"{own} cannot be spread to {shape}")
        kept = (0 if a == 1 else s for a, s in zip(own, strides, strict=True))
        return (*([0] * missing), *kept)

    def element(self, array: Array, name: str, loop: Loop) -> str:
        """An element inside loops."""
        if array.memory is None:
            return number(array.value, array.kind)
        return f"{array.memory.name}[{loop.at(name)}{f' + {array.offset}' if array.offset else ''}]"

    def each(self, into: Array, sources: Sequence[Array], expression: str) -> Array:
        """For every element of ``into``: an expression of the sources' elements ``{0}, {1}, …``."""
        places = {"out": into.strides}
        places |= {str(i): self.spread(s, into.shape) for i, s in enumerate(sources)}
        loop = Loop(into.shape, places)
        values = [self.element(s, str(i), loop) for i, s in enumerate(sources)]
        body = f"{self.element(into, 'out', loop)} = {expression.format(*values)};"
        self.write(loop.text(body), into, *sources)
        return into

    def solid(self, array: Array) -> Array:
        """The same numbers in memory, one after the other."""
        if array.dense:
            return array
        copied = self.copy(array)
        return replace(copied, merged=array.merged, second=array.second)

    def copy(self, array: Array) -> Array:
        """A copy of its own."""
        return self.each(self.new(array.shape, array.dtype), [array], "{0}")

    # ------------------------------------------------------------------ the whole

    def source(self, tensors: dict[int, Array]) -> tuple[str, int]:
        """The C++, and the bytes of scratch that a thread needs."""
        offsets, size = _places(self.memories)
        head = [
            f"{m.kind} *const {m.name} = ({m.kind} *)(scratch + {offset});"
            for m, offset in zip(self.memories, offsets, strict=True)
        ]
        for place, (i, array) in enumerate(tensors.items()):
            assert array.meta is not None  # noqa: S101  what is given lies somewhere
            assert array.memory is not None  # noqa: S101
            kind, where = array.kind, f"given[{place}]"
            const = "" if array.memory.writable else "const "
            if (into := array.memory.copied) is None:
                text = f"({const}{kind} *){where} + member * {array.meta.stride(0)}"
            else:
                count, size_ = array.shape[0], math.prod(array.shape[1:])
                text = f"rows({where}, numbers, member, {count}, {size_}, {into.name})"
            head.append(f"{const}{kind} *const g{i} = {text};")
        for i, tensor in enumerate(self.constants):
            kind = KINDS[tensor.dtype]
            head.append(f"const {kind} *const c{i} = (const {kind} *)given[{len(tensors) + i}];")
        for i, memory in sorted(self.wanted.items()):
            kind, step = memory.kind, memory.size
            head.append(f"{kind} *const r{i} = ({kind} *)results[{i}] + member * {step};")
        body = "\n  ".join([*head, "int64_t outside = 0;", *self.lines, "return outside != 0;"])
        text = (
            f"{PRELUDE}\nstatic int64_t one(int64_t member, const void *const *given, "
            f"const int64_t *numbers, void *const *results, char *scratch) {{\n  {body}\n}}\n"
            f"{run(size)}"
        )
        return text, size


def _places(memories: Sequence[_Memory]) -> tuple[list[int], int]:
    """Where each begins, so that no two in use at once overlap, and how much they need."""
    placed: list[tuple[int, int, _Memory]] = []
    for memory in memories:
        size = -(-max(1, memory.size) // _ALIGNED) * _ALIGNED
        at = 0
        for lo, hi, other in sorted(placed, key=lambda place: place[:2]):
            if other.last < memory.first or memory.last < other.first:
                continue
            if at + size <= lo:
                break
            at = max(at, hi)
        placed.append((at, at + size, memory))
    needed = max((hi for _, hi, _ in placed), default=0)
    return [lo for lo, _, _ in placed], -(-needed // _PAGE) * _PAGE
