"""The tensor operations of a function as a flat list, freed of what does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from steepest.train.fused import Lowered, Unfit, lower

__all__ = ["Grads", "Recording", "record"]

_ATEN = torch.ops.aten
_VIEWS = {
    _ATEN.detach.default,
    _ATEN.alias.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.view.default,
    _ATEN._unsafe_view.default,
    _ATEN.expand.default,
}
_INTO = {_ATEN.bmm.default: _ATEN.bmm.out, _ATEN.sum.dim_IntList: _ATEN.sum.IntList_out}
_CONSTANTS = {_ATEN.scalar_tensor.default, _ATEN.arange.start, _ATEN.arange.default}

Grads = list[Tensor | None]


class Recording:
    """The operations of one pass.

    Args:
        module: Takes all tensors in a row, then `kept`; returns losses and gradients.
        kept: Shape and type of gradients that are written to the same place in every step, by the
            number of the parameter.
        lowered: The same for one member, in C++; or why it cannot be.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        kept: Mapping[int, tuple[torch.Size, torch.dtype]],
        lowered: Lowered | str,
    ) -> None:
        self.module = module
        self.kept = dict(kept)
        self.lowered = lowered

    def places(self, device: torch.device) -> list[Tensor]:
        """New memory for the gradients that stay where they are."""
        return [torch.empty(size, dtype=dtype, device=device) for size, dtype in self.kept.values()]

    def __call__(self, tensors: Sequence[Tensor], places: Sequence[Tensor]) -> tuple[Tensor, Grads]:
        """Losses ``[M]`` and the gradients of the trained parameters."""
        with torch.no_grad():
            losses, *grads = self.module.forward(*tensors, *places)
        return losses, grads


def record(
    run: Callable[..., list[Tensor | None]], tensors: Sequence[Tensor], *, buffers: int, batch: int
) -> Recording:
    """Record what a function does with tensors, which it may change.

    Args:
        run: Returns losses, then gradients.
        tensors: What it is called with.
        buffers: Those from this number on are what it may change,
        batch: and those from this number on are the batch.
    """
    module = make_fx(run)(*tensors)
    graph = module.graph
    for node in list(graph.nodes):
        if _says_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif _is_constant(node):
            _keep_constant(module, node)
    lowered = _lower(module, buffers, batch)
    kept = _keep_places(graph)
    for node in graph.nodes:
        node.meta.clear()  # shapes and where they came from: larger than the list itself
    graph.lint()
    module.recompile()
    return Recording(module, kept, lowered)


def _lower(module: fx.GraphModule, buffers: int, batch: int) -> Lowered | str:
    try:
        return lower(module, buffers=buffers, batch=batch)
    except Unfit as reason:
        return str(reason)
    except Exception as error:  # noqa: BLE001  an operation as nobody has called it yet; torch can
        text = str(error).strip().split("\n")[0]
        return f"it cannot be written in C++ ({type(error).__name__}: {text})"


def _says_nothing(node: fx.Node) -> bool:
    """A view of a tensor with the same shape and strides is that tensor."""
    if node.target not in _VIEWS or not isinstance(node.args[0], fx.Node):
        return False
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.shape == after.shape and before.stride() == after.stride()


def _is_constant(node: fx.Node) -> bool:
    """Made of plain numbers, and only read."""
    if node.target not in _CONSTANTS or node.all_input_nodes:
        return False
    return all(map(_only_reads, node.users))


def _only_reads(node: fx.Node) -> bool:
    """What it returns is new, and what it is given stays as it is."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    schema = node.target._schema
    return not schema.is_mutable and all(r.alias_info is None for r in schema.returns)


def _keep_constant(module: fx.GraphModule, node: fx.Node) -> None:
    name = f"_constant_{node.name}"
    target: Any = node.target
    module.register_buffer(name, target(*node.args, **node.kwargs), persistent=False)
    with module.graph.inserting_before(node):
        found = module.graph.get_attr(name)
    node.replace_all_uses_with(found)
    module.graph.erase_node(node)


def _keep_places(graph: fx.Graph) -> dict[int, tuple[torch.Size, torch.dtype]]:
    """Let products and sums that are gradients be written to places that are handed in."""
    output = next(node for node in graph.nodes if node.op == "output")
    results: Any = output.args[0]
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    kept: dict[int, tuple[torch.Size, torch.dtype]] = {}
    for number, node in enumerate(results[1:]):
        if not isinstance(node, fx.Node) or node.target not in _INTO:
            continue
        value = node.meta.get("val")
        if list(node.users) != [output] or not isinstance(value, Tensor):
            continue
        if not value.is_contiguous() or node.kwargs.get("dtype") is not None:
            continue
        with graph.inserting_after(last):
            last = graph.placeholder(f"place_{number}")
        node.target = _INTO[node.target]
        node.kwargs = {**node.kwargs, "out": last}
        kept[number] = (value.shape, value.dtype)
    return kept
