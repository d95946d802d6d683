"""From a recorded pass of all members to C++ that does the pass of one.

Every operation of the recording is written as loops over one member's numbers, in the order in
which they were recorded; what the pass gives is written to where the caller wants it.

An operation that is not known, that mixes members, or that writes to what it was given makes the
pass `Unfit`; it is then carried out by torch, operation by operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from steepest.train.fused.operations import carry_out
from steepest.train.fused.views import aliases
from steepest.train.fused.writer import Array, Unfit, Writer

__all__ = ["Lowered", "lower"]


_LARGEST = 1500  # operations


@dataclass(frozen=True)
class Lowered:
    """A pass of one member in C++.

    Attributes:
        source: Compiles to `steepest_pass`.
        scratch: Bytes that each thread needs.
        used: Numbers of the tensors that are read, and of each its shape without members.
        batch: Those from this number on are the batch.
        constants: Tensors that are read after those.
        results: Shape (of one member) and type of what is written, in order.
        outputs: For losses and gradients the number of their result, or None without a gradient.
        operations: How many there are; each takes about 0.01 s to compile.
    """

    source: str
    scratch: int
    used: dict[int, tuple[int, ...]]
    batch: int
    constants: tuple[Tensor, ...]
    results: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    outputs: tuple[int | None, ...]
    operations: int


def lower(module: fx.GraphModule, *, buffers: int, batch: int) -> Lowered:
    """The pass of one member, from the recorded pass of all.

    Args:
        module: Takes tensors, returns losses and gradients; its nodes know shapes and types.
        buffers: The tensors from this number on may be written to,
        batch: and those from this number on are the batch.

    Raises:
        Unfit: If an operation cannot be written so.
    """
    module.graph.eliminate_dead_code()
    size = sum(node.op == "call_function" for node in module.graph.nodes)
    if size > _LARGEST:
        raise Unfit(f"{size} operations would take too long to compile")
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    output = next(node for node in module.graph.nodes if node.op == "output")
    members = int(inputs[0].meta["val"].shape[0])
    writer = Writer(members, buffers, batch)
    writer.aliases = aliases(module.graph)
    arrays: dict[fx.Node, Any] = {}
    used: dict[int, Array] = {}
    results: Any = output.args[0]
    wanted = list(dict.fromkeys(node for node in results if isinstance(node, fx.Node)))
    number_of = {node: i for i, node in enumerate(wanted)}
    for i, node in enumerate(inputs):
        if node.users:
            used[i] = arrays[node] = writer.given(i, node.meta["val"])
    for node in module.graph.nodes:
        if node.op == "get_attr":
            arrays[node] = writer.constant(getattr(module, str(node.target)))
        elif node.op == "call_function":
            writer.destination = number_of.get(node)
            arrays[node] = carry_out(writer, node, arrays)
    outcome = []
    for i, node in enumerate(wanted):
        array, shape = arrays[node], tuple(node.meta["val"].shape[1:])
        if array.memory is None or array.memory is not writer.wanted.get(i):
            writer.each(writer.result(i, shape, array.dtype), [array], "{0}")
        outcome.append((shape, array.dtype))
    source, scratch = writer.source(used)
    return Lowered(
        source,
        scratch,
        {i: array.shape for i, array in used.items()},
        batch,
        tuple(writer.constants),
        tuple(outcome),
        tuple(None if node is None else number_of[node] for node in results),
        size,
    )
