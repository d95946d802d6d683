"""Parameters that are spread over processes (DTensor): each process does its own shard in place.

An elementwise rule needs no element but its own, so the step of a shard is the shard of the step,
and no process has to hear of another. A kernel is handed the local tensors.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from steepest.kernels import Block

__all__ = ["is_sharded", "local", "refusal", "release"]

_LOCAL: WeakKeyDictionary[Block, Block] = WeakKeyDictionary()


def _distributed() -> type[Any] | None:
    """The class of such tensors; None in a process that has not imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return None if module is None else module.DTensor


def is_sharded(block: Block) -> bool:
    """Whether some parameter lies in several processes."""
    kind = _distributed()
    return kind is not None and any(isinstance(p, kind) for p in block.params)


def refusal(block: Block) -> str | None:
    """Why a sharded block cannot be done shard by shard; None if it can."""
    kind: Any = _distributed() or Tensor
    if block.rule.kind != "elementwise":
        return f"a parameter is a DTensor, and {block.rule.name} needs more than its own shard"
    if block.differentiable:
        return "autograd cannot look into a kernel (differentiable=True)"
    slots = [
        column
        for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
        if column is not None and slot.per == "element"
    ]
    for p, g, *own in zip(block.params, block.grads, *slots, strict=True):
        for x in (p, g, *own):
            if x is None:
                continue
            if not isinstance(x, kind):
                return "a parameter is a DTensor, but its gradient or its state is not"
            if x.device_mesh != p.device_mesh or x.placements != p.placements:
                return (
                    f"a parameter is spread as {p.placements}, but its gradient or its state as "
                    f"{x.placements}"
                )
        if any(placement.is_partial() for placement in p.placements):
            return "a parameter is a DTensor of partial sums"
    return None


def local(block: Block) -> Block:
    """The block of this process's shards; the same object for as long as they are the same."""
    known = _LOCAL.get(block)
    if known is None or any(
        _here(p).data_ptr() != mine.data_ptr()
        for p, mine in zip(block.params, known.params, strict=True)
    ):
        known = replace(
            block,
            params=[_here(p) for p in block.params],
            grads=[],
            slots=tuple(
                column and [_here(x) for x in column] if slot.per == "element" else column
                for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
            ),
            cache=None,
        )
        _LOCAL[block] = known
    known.values = block.values
    known.grads = [None if g is None else _here(g) for g in block.grads]
    for p, g in zip(known.params, known.grads, strict=True):
        p.grad = g
    return known


def release(block: Block) -> None:
    """Let go of the gradients: kept here, they would take memory until the next step."""
    mine = _LOCAL[block]
    mine.grads = []
    for p in mine.params:
        p.grad = None


def _here(x: Tensor) -> Tensor:
    found: Tensor = x.to_local()  # type: ignore[attr-defined]
    return found.detach()
