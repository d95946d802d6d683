"""How each operation of a recorded pass is written in C++."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch import fx

from steepest.train.fused.elementwise import expression
from steepest.train.fused.norms import NORMS
from steepest.train.fused.products import Product
from steepest.train.fused.spatial import SPATIAL
from steepest.train.fused.sums import SUMS, along
from steepest.train.fused.text import Loop
from steepest.train.fused.views import VIEWS, changes, view
from steepest.train.fused.writer import Array, CarriesOut, Unfit, Writer

__all__ = ["carry_out"]

_ATEN = torch.ops.aten

Values = Mapping[fx.Node, Any]


def carry_out(writer: Writer, node: fx.Node, arrays: Values) -> Any:
    """Write one operation; what it gives.

    Raises:
        Unfit: If it cannot be written for one member.
    """
    target = node.target
    if target is getitem:
        several: Any = node.args
        return arrays[several[0]][several[1]]
    packet: Any = getattr(target, "overloadpacket", None)
    args: Any = fx.map_arg(node.args, lambda n: arrays[n])
    if packet in VIEWS or node in writer.aliases:
        return view(writer, node, packet, args)
    if packet in _REGROUPED:
        return _REGROUPED[packet](writer, node, args)
    kwargs: Any = fx.map_arg(node.kwargs, lambda n: arrays[n])
    handed = (arrays[n] for n in node.all_input_nodes)
    if any(isinstance(a, Array) and a.regrouped for a in handed):
        raise Unfit(f"an operation mixes members ({packet})")
    if changes(node):
        into = _changed(node, args, kwargs)
        if packet is _ATEN.copy_:
            return writer.each(into, [args[1]], f"({into.kind}){{0}}")
        if packet is _ATEN.zero_:
            return writer.each(into, [], "0")
        plain = getattr(_ATEN, packet.__name__.removesuffix("_"))
        return _pointwise(writer, node, plain, args, kwargs, into)
    if packet in _OTHERS:
        return _OTHERS[packet](writer, node, args)
    return _pointwise(writer, node, packet, args, kwargs, None)


def _changed(node: fx.Node, args: Any, kwargs: Any) -> Array:
    """What it writes to: its first argument, or the one that is there for that."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    places = [a.name for a in schema.arguments if a.is_out]
    into = kwargs[places[0]] if places else args[0]
    if len(places) > 1 or not isinstance(into, Array):
        raise Unfit(f"there is no C++ for {schema.name}")
    if into.memory is None or not into.memory.writable:
        raise Unfit(f"it changes in place what it was given ({schema.name})")
    return into


# ---------------------------------------------------------------------- numbers


def _filled(value: Callable[[Any], Any]) -> CarriesOut:
    def fill(writer: Writer, node: fx.Node, args: Any) -> Array:
        found = node.meta["val"]
        many, left = divmod(found.shape[0], writer.members) if found.ndim else (0, 1)
        if not left and many > 1:
            shape = (many, *found.shape[1:])
            return Array(shape, found.dtype, value=value(args), merged=True)
        shape, dtype = writer.own(node)
        array = Array(shape, dtype, value=value(args))
        return writer.copy(array) if any(map(_may_change, node.users)) else array

    return fill


def _counted(writer: Writer, node: fx.Node, args: Any) -> Array:
    """``0, V, 2 V, …``, a number for each member: where its rows begin among those of all."""
    shape, dtype = writer.own(node)
    if shape != () or len(args) != 3 or args[:2] != (0, writer.members * args[2]):
        raise Unfit("a row of numbers that does not belong to members")
    return Array((), dtype, value=f"member * {args[2]}")


def _may_change(user: fx.Node) -> bool:
    """Whether somebody writes to what it is handed, itself or through a view."""
    return changes(user) or getattr(user.target, "overloadpacket", None) in VIEWS


def _empty(writer: Writer, node: fx.Node, args: Any) -> Array:
    return writer.new(*writer.own(node))


# ---------------------------------------------------------------------- putting together


def _together(part_of: Callable[[Any, int, int, int], Any]) -> CarriesOut:
    """Arrays beside each other: ``part_of(outcome, dim, begin, length)`` is where one goes."""

    def carry_out(writer: Writer, node: fx.Node, args: Any) -> Array:
        parts, dim = args[0], args[1] if len(args) > 1 else 0
        out = writer.output(*writer.own(node))
        dim = along(out, dim) + 1
        begin = 0
        for part in parts:
            length = part.shape[dim - 1] if part_of is _narrow else 1
            place = writer.viewed(out, part_of(out.meta, dim, begin, length))
            writer.each(place, [part], "{0}")
            begin += length
        return out

    return carry_out


def _narrow(meta: Any, dim: int, begin: int, length: int) -> Any:
    return meta.narrow(dim, begin, length)


def _select(meta: Any, dim: int, begin: int, length: int) -> Any:
    return meta.select(dim, begin)


def _put_back(part_of: Any) -> CarriesOut:
    """The gradient of a view: what was not seen has none."""

    def carry_out(writer: Writer, node: fx.Node, args: Any) -> Array:
        part, _, *where = args
        out = writer.each(writer.output(*writer.own(node)), [], "0")
        writer.each(writer.viewed(out, part_of(out.meta, *where)), [part], "{0}")
        return out

    return carry_out


# ---------------------------------------------------------------------- element by element


def _pointwise(
    writer: Writer, node: fx.Node, packet: Any, args: Any, kwargs: Any, into: Array | None
) -> Array:
    shape, dtype = writer.own(node)
    made = expression(packet, args, kwargs)
    if made is None:
        raise Unfit(f"there is no C++ for {packet}")
    text, operands = made
    arrays = [_as_array(operand, operands, dtype) for operand in operands]
    if into is None:
        into = writer.output(shape, dtype)
    elif into.memory is not None:
        arrays = [
            writer.copy(a) if a.memory is into.memory and not _in_step(a, into) else a
            for a in arrays
        ]
    kind = into.kind
    text = text.replace("(T)", f"({kind})").replace("<T>", f"<{kind}>")
    return writer.each(into, arrays, f"({kind})({text})")


def _in_step(source: Array, into: Array) -> bool:
    """Whether every element is read before it is overwritten."""
    return source.strides == into.strides and source.offset == into.offset


def _as_array(operand: Any, all_of_them: Sequence[Any], dtype: torch.dtype) -> Array:
    """Numbers have the type of the tensors beside them, unless they are of a wider kind."""
    if isinstance(operand, Array):
        return operand
    beside = [a.dtype for a in all_of_them if isinstance(a, Array) and a.shape != ()]
    kind = beside[0] if beside else dtype
    if isinstance(operand, float) and not kind.is_floating_point:
        kind = dtype if dtype.is_floating_point else torch.float64
    return Array((), kind, value=operand)


# ---------------------------------------------------------------------- by number


def _looked_up(value: str, size: int) -> list[str]:
    """The number ``n`` of one of ``size`` things; of one that is none, the whole pass is void."""
    return [f"int64_t n = {value};", f"if (n < 0 || n >= {size}) {{ outside = 1; n = 0; }}"]


def _gather(writer: Writer, node: fx.Node, args: Any) -> Array:
    x, index = writer.solid(args[0]), args[2]
    dim = along(x, args[1])
    shape, dtype = writer.own(node)
    out = writer.output(shape, dtype)
    loop = Loop(shape, {
        "out": out.strides,
        "index": writer.spread(index, shape),
        "x": tuple(0 if d == dim else s for d, s in enumerate(x.strides)),
    })  # fmt: skip
    lines = loop.text(
        *_looked_up(writer.element(index, "index", loop), x.shape[dim]),
        f"{writer.element(out, 'out', loop)} = "
        f"{writer.element(x, 'x', loop)[:-1]} + n * {x.strides[dim]}];",
        simd="",
    )
    writer.write(lines, x, index, out)
    return out


def _scatter_add(writer: Writer, node: fx.Node, args: Any) -> Array:
    start, index, source = args[0], args[2], args[3]
    shape, dtype = writer.own(node)
    out = writer.each(writer.output(shape, dtype), [start], "{0}")
    dim = along(out, args[1])
    walked = index.shape
    loop = Loop(walked, {
        "out": tuple(0 if d == dim else s for d, s in enumerate(out.strides)),
        "index": writer.spread(index, walked),
        "x": _first_part(writer, source, walked),
    })  # fmt: skip
    lines = loop.text(
        *_looked_up(writer.element(index, "index", loop), out.shape[dim]),
        f"{writer.element(out, 'out', loop)[:-1]} + n * {out.strides[dim]}] += "
        f"{writer.element(source, 'x', loop)};",
        simd="",
    )
    writer.write(lines, out, index, source)
    return out


def _first_part(writer: Writer, source: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Only as many elements of a source are used as there are indices."""
    if source.memory is None:
        return (0,) * len(shape)
    if any(a > b for a, b in zip(shape, source.shape, strict=True)):
        raise Unfit("more indices than there is to scatter")
    return source.strides


def _embedded(writer: Writer, node: fx.Node, args: Any) -> Array:
    """Rows of a table; among the rows of all members, which is how the recording counts them."""
    table, index = writer.solid(args[0]), writer.solid(args[1])
    if not table.merged or len(table.shape) != 2 or index.regrouped or any(args[3:]):
        raise Unfit("an embedding of another kind than the usual one")
    rows, width = table.shape
    out = writer.output(*writer.own(node))
    lines = [
        f"for (int64_t i = 0; i < {math.prod(index.shape)}; ++i) {{",
        *_looked_up(f"({writer.base(index)})[i] - member * {rows}", rows),
        f"memcpy({writer.base(out)} + i * {width}, {writer.base(table)} + n * {width}, "
        f"{width} * sizeof({out.kind}));",
        "}",
    ]
    writer.write(lines, table, index, out)
    return out


def _embedded_backward(writer: Writer, node: fx.Node, args: Any) -> Array:
    g, index, (all_rows, padding, by_frequency) = args[0], writer.solid(args[1]), args[2:]
    rows, left = divmod(all_rows, writer.members)
    if left or padding != -1 or by_frequency or g.regrouped or index.regrouped:
        raise Unfit("an embedding of another kind than the usual one")
    g, width = writer.solid(g), g.shape[-1]
    out = writer.each(writer.new((rows, width), g.dtype), [], "0")
    lines = [
        f"for (int64_t i = 0; i < {math.prod(index.shape)}; ++i) {{",
        *_looked_up(f"({writer.base(index)})[i] - member * {rows}", rows),
        f"{g.kind} *const o = {writer.base(out)} + n * {width};",
        f"const {g.kind} *const v = {writer.base(g)} + i * {width};",
        f"SIMD\nfor (int64_t j = 0; j < {width}; ++j) o[j] += v[j];",
        "}",
    ]
    writer.write(lines, g, index, out)
    return replace(out, merged=True)


# ---------------------------------------------------------------------- products


def _bmm(writer: Writer, node: fx.Node, args: Any) -> Array:
    a, b = args[:2]
    value = node.meta["val"]
    merged = a.merged and b.merged
    if merged:
        shape, dtype = (value.shape[0] // writer.members, *value.shape[1:]), value.dtype
    else:
        shape, dtype = writer.own(node)
    if a.memory is None or b.memory is None or dtype not in (torch.float32, torch.float64):
        raise Unfit("a product of other than matrices of float32 or float64")
    if not len(a.shape) == len(b.shape) == 2 + merged or a.merged != b.merged:
        raise Unfit("a product of other than matrices of each member")
    out, kind = replace(writer.output(shape, dtype), merged=merged), a.kind
    (m, k), n = a.shape[-2:], b.shape[-1]
    way = Product.choose(m, n, k, a_rows=a.strides[-2], b_columns=b.strides[-1])
    panel = writer.new((way.panel,), dtype) if way.panel else None
    places = []
    for x in (a, b, out):
        rows, columns = x.strides[-2:][:: -1 if way.swapped else 1]
        at = f"{writer.base(x)} + i0 * {x.strides[0]}" if merged else writer.base(x)
        places.append(f"{at}, {rows}, {columns}")
    if way.swapped:
        m, n = n, m
        places[:2] = places[1], places[0]
    space = "nullptr" if panel is None else writer.base(panel)
    call = f"product<{kind}>({m}, {n}, {k}, {', '.join(places)}, ({kind} *){space});"
    if merged:
        call = f"for (int64_t i0 = 0; i0 < {shape[0]}; ++i0) {call}"
    writer.write([call], *(x for x in (a, b, out, panel) if x is not None))
    return out


_REGROUPED: dict[Any, CarriesOut] = {
    **NORMS,
    **SPATIAL,
    _ATEN.bmm: _bmm,
    _ATEN.embedding: _embedded,
    _ATEN.embedding_dense_backward: _embedded_backward,
}
"""Those that know what to do with members that are not first and alone."""

_OTHERS: dict[Any, CarriesOut] = {
    **SUMS,
    _ATEN.arange: _counted,
    _ATEN.cat: _together(_narrow),
    _ATEN.empty_like: _empty,
    _ATEN.new_empty: _empty,
    _ATEN.select_backward: _put_back(_ATEN.select.int),
    _ATEN.slice_backward: _put_back(_ATEN.slice.Tensor),
    _ATEN.stack: _together(_select),
    _ATEN.full: _filled(lambda args: args[1]),
    _ATEN.full_like: _filled(lambda args: args[1]),
    _ATEN.gather: _gather,
    _ATEN.new_full: _filled(lambda args: args[2]),
    _ATEN.new_ones: _filled(lambda args: 1),
    _ATEN.new_zeros: _filled(lambda args: 0),
    _ATEN.ones: _filled(lambda args: 1),
    _ATEN.ones_like: _filled(lambda args: 1),
    _ATEN.scatter_add: _scatter_add,
    _ATEN.zeros: _filled(lambda args: 0),
    _ATEN.zeros_like: _filled(lambda args: 0),
}
