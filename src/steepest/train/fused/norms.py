"""Layer norm and batch norm, in C++."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from steepest.train.fused.text import adding, number
from steepest.train.fused.writer import Array, CarriesOut, Unfit, Writer

__all__ = ["NORMS"]

_ATEN = torch.ops.aten


# ---------------------------------------------------------------------- layer norm


def _normalized(x: Array, shape: Sequence[int], *scales: Any) -> tuple[int, int]:
    """How many rows are normalized, and how long they are."""
    if any(scale is not None for scale in scales):
        raise Unfit("a layer norm whose weights all members share")
    length = math.prod(shape)
    return math.prod(x.shape) // length, length


def _layer_norm(writer: Writer, node: fx.Node, args: Any) -> list[Array]:
    """The normalized rows, and of each its mean and one by its standard deviation."""
    x, shape, weight, bias, eps = args
    x, (rows, length) = writer.solid(x), _normalized(x, shape, weight, bias)
    ends = (*x.shape[: len(x.shape) - len(shape)], *[1] * len(shape))
    out, mean, scale = (writer.new(s, x.dtype) for s in (x.shape, ends, ends))
    kind, each = x.kind, f"for (int64_t i = 0; i < {length}; ++i)"
    lines = [
        f"for (int64_t r = 0; r < {rows}; ++r) {{",
        f"const {kind} *const v = {writer.base(x)} + r * {length};",
        f"{kind} *const o = {writer.base(out)} + r * {length}, sum = 0, square = 0;",
        f"{adding('sum')}\n{each} sum += v[i];",
        f"const {kind} middle = sum / {length};",
        f"{adding('square')}\n{each} square += (v[i] - middle) * (v[i] - middle);",
        f"const {kind} by = 1 / std::sqrt(square / {length} + {number(eps, kind)});",
        f"SIMD\n{each} o[i] = (v[i] - middle) * by;",
        f"({writer.base(mean)})[r] = middle; ({writer.base(scale)})[r] = by;",
        "}",
    ]
    writer.write(lines, x, out, mean, scale)
    return [out, mean, scale]


def _layer_norm_backward(writer: Writer, node: fx.Node, args: Any) -> list[Array | None]:
    g, x, shape, mean, scale, weight, bias, wanted = args
    if any(wanted[1:]):
        raise Unfit("a layer norm whose weights all members share")
    g, x, (rows, length) = writer.solid(g), writer.solid(x), _normalized(x, shape, weight, bias)
    mean, scale, out = writer.solid(mean), writer.solid(scale), writer.new(x.shape, x.dtype)
    kind, each = x.kind, f"for (int64_t i = 0; i < {length}; ++i)"
    lines = [
        f"for (int64_t r = 0; r < {rows}; ++r) {{",
        f"const {kind} *const v = {writer.base(x)} + r * {length};",
        f"const {kind} *const g = {writer.base(g)} + r * {length};",
        f"{kind} *const o = {writer.base(out)} + r * {length}, sum = 0, along = 0;",
        f"const {kind} middle = ({writer.base(mean)})[r], by = ({writer.base(scale)})[r];",
        f"{adding('sum', 'along')}\n{each} {{ sum += g[i]; along += g[i] * (v[i] - middle); }}",
        f"sum /= {length}; along *= by * by / {length};",
        f"SIMD\n{each} o[i] = (g[i] - sum - (v[i] - middle) * along) * by;",
        "}",
    ]
    writer.write(lines, g, x, mean, scale, out)
    return [out, None, None]


# ---------------------------------------------------------------------- batch norm


def _channels(x: Array) -> tuple[int, int, int]:
    """Examples, channels and places of what is normalized, with channels merged with members."""
    if not (x.second and x.merged) or len(x.shape) < 2:
        raise Unfit("a batch norm of other than each member's channels")
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _is(value: Any, constant: float) -> bool:
    return isinstance(value, Array) and value.memory is None and value.value == constant


def _each(b: int, s: int, c: int, body: str, *names: str) -> list[str]:
    """For every number ``[i]`` of channel c what ``body`` says; ``names``: sums that it adds to.

    With places, runs of ``s`` numbers lie together; without, a channel's numbers lie ``c`` apart.
    """
    if s == 1:
        body = body.replace("[i]", f"[i * {c} + c]")
        return [f"for (int64_t i = 0; i < {b}; ++i) {{ {body} }}"]
    simd = adding(*(f"{name}_" for name in names)) if names else "SIMD"
    for name in names:
        body = body.replace(f"{name} +=", f"{name}_ +=")
    parts = "".join(f"real {name}_ = 0; " for name in names)
    added = "".join(f"{name} += {name}_; " for name in names)
    body = body.replace("[i]", "[first + i]")
    return [
        f"for (int64_t n = 0; n < {b}; ++n) {{ const int64_t first = (n * {c} + c) * {s}; {parts}",
        f"{simd}\nfor (int64_t i = 0; i < {s}; ++i) {{ {body} }}",
        f"{added} }}",
    ]


def _batch_norm(writer: Writer, node: fx.Node, args: Any) -> list[Array]:
    """What is normalized, and of each channel its mean and one by its standard deviation."""
    x, weight, bias, mean_kept, variance_kept, training, momentum, eps = args
    b, c, s = _channels(x)
    if not training or not (_is(weight, 1) and _is(bias, 0)):
        raise Unfit("a batch norm of another kind than the usual one in training")
    kept = [a for a in (mean_kept, variance_kept) if a is not None]
    if any(a.memory is None or not a.memory.writable or a.shape != (c,) for a in kept):
        raise Unfit("a batch norm whose statistics are no buffers")
    x = writer.solid(x)
    out, mean, scale = (writer.new(shape, x.dtype) for shape in (x.shape, (c,), (c,)))
    kind, n = x.kind, b * s
    lines = [
        f"typedef {kind} real; const real *const v = {writer.base(x)};",
        f"real *const o = {writer.base(out)};",
        f"for (int64_t c = 0; c < {c}; ++c) {{",
        "double sum = 0, square = 0;",
        *_each(b, s, c, "sum += v[i];", "sum"),
        f"const real middle = (real)(sum / {n});",
        *_each(b, s, c, "square += (v[i] - middle) * (v[i] - middle);", "square"),
        f"const real by = (real)(1 / std::sqrt(square / {n} + {eps!r}));",
        *_each(b, s, c, "o[i] = (v[i] - middle) * by;"),
        f"({writer.base(mean)})[c] = middle; ({writer.base(scale)})[c] = by;",
    ]
    fresh = [f"sum / {n}", f"square / {n - 1}" if n > 1 else "NAN"]
    for held, value in zip((mean_kept, variance_kept), fresh, strict=True):
        if held is not None:
            place = f"({writer.base(held)})[c]"
            lines.append(
                f"{place} = ({kind})({1 - momentum!r} * {place} + {momentum!r} * {value});"
            )
    writer.write(["{", *lines, "} }"], x, out, mean, scale, *kept)
    return [replace(out, merged=True, second=True), mean, scale]


def _batch_norm_backward(writer: Writer, node: fx.Node, args: Any) -> list[Array | None]:
    g, x, weight, _, _, mean, scale, training, _, wanted = args
    b, c, s = _channels(x)
    if not training or not _is(weight, 1) or any(wanted[1:]) or _channels(g) != (b, c, s):
        raise Unfit("a batch norm of another kind than the usual one in training")
    g, x = writer.solid(g), writer.solid(x)
    out = writer.new(x.shape, x.dtype)
    kind, n = x.kind, b * s
    lines = [
        f"typedef {kind} real; const real *const v = {writer.base(x)};",
        f"const real *const g = {writer.base(g)}; real *const o = {writer.base(out)};",
        f"for (int64_t c = 0; c < {c}; ++c) {{",
        f"const real middle = ({writer.base(mean)})[c], by = ({writer.base(scale)})[c];",
        "double sum = 0, along = 0;",
        *_each(b, s, c, "sum += g[i]; along += g[i] * (v[i] - middle);", "sum", "along"),
        f"const real less = (real)(sum / {n}), tilt = (real)(along * by * by / {n});",
        *_each(b, s, c, "o[i] = (g[i] - less - (v[i] - middle) * tilt) * by;"),
    ]
    writer.write(["{", *lines, "} }"], g, x, mean, scale, out)
    return [replace(out, merged=True, second=True), None, None]


NORMS: dict[Any, CarriesOut] = {
    _ATEN.native_batch_norm: _batch_norm,
    _ATEN.native_batch_norm_backward: _batch_norm_backward,
    _ATEN.native_layer_norm: _layer_norm,
    _ATEN.native_layer_norm_backward: _layer_norm_backward,
}
"""How they are carried out."""
