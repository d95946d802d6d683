"""Views: what an operation gives without computing anything.

An array here has its members first, whatever the recording has made of them. There they may be
**merged** with the dimension that follows (``[M * k, …]``, for products and pools), or stand
**second** (``[k, M, …]`` and ``[k, M * n, …]``, for convolutions in groups). Such arrays can be
viewed back, and handed to the operations that they were made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx

from steepest.train.fused.writer import Array, Unfit, Writer

__all__ = ["VIEWS", "aliases", "changes", "view"]

_ATEN = torch.ops.aten

VIEWS = {
    _ATEN.alias, _ATEN.as_strided, _ATEN.detach, _ATEN.expand, _ATEN.permute, _ATEN.select,
    _ATEN.slice, _ATEN.squeeze, _ATEN.t, _ATEN.transpose, _ATEN.unbind, _ATEN.unsqueeze,
    _ATEN.view, _ATEN._unsafe_view, _ATEN.split, _ATEN.split_with_sizes, _ATEN.chunk,
}  # fmt: skip
"""Operations that give what they are handed, in another shape."""

_SHAPED = {_ATEN.view, _ATEN._unsafe_view}
_SAME = {_ATEN.alias, _ATEN.clone, _ATEN.detach}
_MIXED = "an operation mixes members"


def changes(node: fx.Node) -> bool:
    """Whether an operation writes to what it is handed."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def aliases(graph: fx.Graph) -> set[fx.Node]:
    """Copies that are as good as what they are copies of, since neither is ever written to."""
    roots: dict[fx.Node, fx.Node] = {}
    written: set[fx.Node] = set()
    for node in graph.nodes:
        first = node.args[0] if node.args else None
        sees = getattr(node.target, "overloadpacket", None) in VIEWS or node.target is getitem
        known = isinstance(first, fx.Node) and sees
        roots[node] = roots[first] if known else node  # type: ignore[index]
        if changes(node):
            written |= {roots[n] for n in node.all_input_nodes}
    copies = (n for n in graph.nodes if n.target is _ATEN.clone.default)
    return {n for n in copies if not {n, roots[n.args[0]]} & written}


def view(writer: Writer, node: fx.Node, packet: Any, args: Any) -> Any:
    """What a view gives, or a copy that need not be made.

    Raises:
        Unfit: If it cannot be had.
    """
    array, *rest = args
    value = node.meta["val"]
    if packet in _SAME:
        return array
    if array.memory is None:
        many = value if isinstance(value, (list, tuple)) else [value]
        found = [Array(tuple(v.shape[1:]), array.dtype, value=array.value) for v in many]
        return found if isinstance(value, (list, tuple)) else found[0]
    if not array.shared and isinstance(value, Tensor):
        regrouped = _regrouped(writer, array, packet, rest, list(value.shape))
        if regrouped is not None:
            return regrouped
    target: Any = node.target
    try:
        meta = target(array.meta, *rest, **node.kwargs)
    except RuntimeError as error:
        if packet not in _SHAPED or array.shared:
            raise Unfit(f"a view that cannot be had ({packet}: {error})") from error
        array = writer.copy(array)
        meta = target(array.meta, *rest, **node.kwargs)
    if isinstance(meta, (list, tuple)):
        return [writer.viewed(array, part) for part in meta]
    return writer.viewed(array, meta)


def _regrouped(
    writer: Writer, array: Array, packet: Any, rest: Any, shape: list[int]
) -> Array | None:
    """A view that moves members or merges them, or of an array where they are; else None."""
    members = writer.members
    if array.second and not array.merged and packet is _ATEN.permute:
        places = [1, 0, *range(2, len(shape))]
        return _permuted(writer, array, [places[dim % len(shape)] for dim in rest[0]])
    if (
        array.merged
        and packet is _ATEN.transpose
        and sorted(d % len(shape) for d in rest) == [0, 1]
    ):
        turned = writer.viewed(array, _meta(array).transpose(1, 2))
        return replace(turned, merged=True, second=not array.second)
    if array.second:
        if packet not in _SHAPED:
            raise Unfit(_MIXED)
        merged = shape[1] != members
        inside = [members, shape[0], *([shape[1] // members] if merged else []), *shape[2:]]
        if merged and (array.merged or shape[1] % members):
            raise Unfit(_MIXED)
        return replace(_reshaped(writer, array, inside), second=True, merged=merged)
    if not array.merged and packet is _ATEN.permute:
        dims = [dim % len(shape) for dim in rest[0]]
        return _permuted(writer, array, dims) if dims[0] != 0 else None
    if packet in _SHAPED and (array.merged or shape[0] not in (0, members)):
        many, left = divmod(shape[0], members)
        if left or not shape:
            raise Unfit(_MIXED)
        merged = shape[0] != members
        inside = [members, many, *shape[1:]] if merged else shape
        return replace(_reshaped(writer, array, inside), merged=merged)
    return _turned(writer, array, packet, rest) if array.merged else None


def _permuted(writer: Writer, array: Array, dims: Sequence[int]) -> Array:
    """Dimensions of an array, members first, in the order that the recording gives them."""
    if 0 not in dims[:2]:
        raise Unfit(_MIXED)
    second = dims[0] != 0
    inside = [0, dims[0], *dims[2:]] if second else list(dims)
    return replace(writer.viewed(array, _meta(array).permute(inside)), second=second)


def _reshaped(writer: Writer, array: Array, shape: Sequence[int]) -> Array:
    try:
        meta = _meta(array).view(shape)
    except RuntimeError:
        array = writer.copy(array)
        meta = _meta(array).view(shape)
    return writer.viewed(array, meta)


def _turned(writer: Writer, array: Array, packet: Any, rest: Any) -> Array:
    """Two dimensions change places behind the one that members are merged with."""
    meta = _meta(array)
    if packet is not _ATEN.transpose or 0 in rest:
        raise Unfit(_MIXED)
    dims = [dim + 1 if dim > 0 else dim for dim in rest]
    if any(dim % meta.ndim < 2 for dim in dims):
        raise Unfit(_MIXED)
    return replace(writer.viewed(array, meta.transpose(*dims)), merged=True)


def _meta(array: Array) -> Tensor:
    assert array.meta is not None  # noqa: S101  it lies in memory
    return array.meta
