"""Convolutions and pools, in C++."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from steepest.train.fused.convolutions import Convolution
from steepest.train.fused.writer import Array, CarriesOut, Unfit, Writer

__all__ = ["SPATIAL"]

_ATEN = torch.ops.aten


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[-1])


def _images(array: Array) -> tuple[int, ...]:
    """Shape of images whose channels are merged with members; one channel each leaves no trace."""
    if array.second and not array.merged and len(array.shape) == 3:
        return (array.shape[0], 1, *array.shape[1:])
    if array.second and array.merged and len(array.shape) == 4:
        return array.shape
    raise Unfit("a convolution of other than each member's images")


def _weights(array: Array) -> tuple[int, ...]:
    """Shape of weights whose outcomes are merged with members; one outcome leaves no trace."""
    if not array.regrouped and len(array.shape) == 3:
        return (1, *array.shape)
    if array.merged and not array.second and len(array.shape) == 4:
        return array.shape
    raise Unfit("a convolution with other than each member's weights")


def _new(writer: Writer, shape: tuple[int, ...], dtype: torch.dtype, *, one: int) -> Array:
    """Images (``one=1``) or weights (0): where that dimension is 1, nothing is merged."""
    merged = shape[one] != 1
    shape = shape if merged else (*shape[:one], *shape[one + 1 :])
    return replace(writer.new(shape, dtype), second=one == 1, merged=merged)


def _sizes(writer: Writer, x: Array, w: Array, rest: Sequence[Any]) -> Convolution:
    """Of a convolution of images whose members are groups.

    Args:
        writer: Who knows how many members there are.
        x: Images.
        w: Weights.
        rest: Bias, stride, padding, dilation, whether it is transposed, more padding, groups.
    """
    bias, stride, padding, dilation, transposed, _, groups = rest
    (b, c, height, width), (o, inputs, high, wide) = _images(x), _weights(w)
    if transposed or bias is not None or c != inputs or groups != writer.members:
        raise Unfit("a convolution of another kind than the usual one")
    if x.dtype not in (torch.float32, torch.float64) or w.dtype != x.dtype:
        raise Unfit(f"a convolution of {x.dtype}")
    return Convolution(
        (b, c, height, width), (o, c, high, wide), _pair(stride), _pair(padding), _pair(dilation)
    )


def _convolution(writer: Writer, node: fx.Node, args: Any) -> Array:
    x, w = writer.solid(args[0]), writer.solid(args[1])
    sizes = _sizes(writer, args[0], args[1], args[2:])
    out = _new(writer, sizes.y, x.dtype, one=1)
    at = writer.new((sizes.taps,), torch.int64)
    planes = writer.new((sizes.planes,), x.dtype)
    rows = writer.new((sizes.w[0] * sizes.row,), x.dtype)
    places = ", ".join(map(writer.base, (x, w, out, at, planes)))
    call = f"convolve<{x.kind}>({sizes.text()}, {places}, {sizes.planes}, {writer.base(rows)});"
    writer.write([call], x, w, out, at, planes, rows)
    return out


def _convolution_backward(writer: Writer, node: fx.Node, args: Any) -> list[Array | None]:
    wanted = args[-1]
    sizes = _sizes(writer, args[1], args[2], [None, *args[4:-1]])
    if wanted[2] or _images(args[0]) != sizes.y:
        raise Unfit("a convolution of another kind than the usual one")
    g, x, w = (writer.solid(a) for a in args[:3])
    filled = sizes.outcomes
    dx = _new(writer, sizes.x, x.dtype, one=1) if wanted[0] else None
    dw = _new(writer, sizes.w, x.dtype, one=0) if wanted[1] else None
    at = writer.new((sizes.taps,), torch.int64)
    planes, rows, turned, sums, some = (
        writer.new((size,), x.dtype)
        for size in (
            sizes.planes, sizes.w[0] * sizes.row, sizes.row * filled, sizes.taps * filled,
            sizes.some,
        )
    )  # fmt: skip
    gradients = ["nullptr" if a is None else writer.base(a) for a in (dx, dw)]
    call = (
        f"convolve_back<{x.kind}>({sizes.text()}, {writer.base(x)}, {writer.base(w)}, "
        f"{writer.base(g)}, {', '.join(gradients)}, {writer.base(at)}, {writer.base(planes)}, "
        f"{sizes.planes}, {', '.join(map(writer.base, (rows, turned, sums, some)))});"
    )
    made = [a for a in (dx, dw) if a is not None]
    writer.write([call], g, x, w, at, planes, rows, turned, sums, some, *made)
    return [dx, dw, None]


# ---------------------------------------------------------------------- pools


@dataclass(frozen=True)
class _Pool:
    """Windows that lie inside of the images.

    Attributes:
        images: How many there are.
        size: Rows and columns of an image.
        window: The same of a window.
        stride: From one window to the next.
    """

    images: int
    size: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]

    @classmethod
    def of(
        cls, x: Array, kernel: Any, stride: Any, *, padding: Any = 0, ceil: Any = False
    ) -> _Pool:
        """The windows of a pool over images that are merged with members."""
        if not x.merged or x.second or len(x.shape) != 4:
            raise Unfit("a pool of other than each member's images")
        if ceil or any(padding if isinstance(padding, (list, tuple)) else [padding]):
            raise Unfit("a pool whose windows reach beyond the image")
        return cls(math.prod(x.shape[:2]), _pair(x.shape[2:]), _pair(kernel),
                   _pair(stride or kernel))  # fmt: skip

    @property
    def outcome(self) -> tuple[int, int]:
        """How many windows there are, down and across."""
        sides = zip(self.size, self.window, self.stride, strict=True)
        rows, columns = ((n - k) // s + 1 for n, k, s in sides)
        return rows, columns

    @property
    def places(self) -> list[int]:
        """Where a window's numbers lie, from its first one on."""
        return [i * self.size[1] + j for i in range(self.window[0]) for j in range(self.window[1])]

    def text(self, starts: Sequence[str], body: Sequence[str], *, simd: bool = True) -> list[str]:
        """Loops over windows.

        Args:
            starts: For a row of windows, of image ``m``; ``line`` is where its numbers begin.
            body: For the window ``i``, whose numbers begin at ``line + i * stride``.
            simd: Whether windows can be taken together.
        """
        (rows, columns), (height, width) = self.outcome, self.size
        return [
            f"for (int64_t m = 0; m < {self.images}; ++m) for (int64_t y = 0; y < {rows}; ++y) {{",
            f"const int64_t line = m * {height * width} + y * {self.stride[0] * width};",
            f"const int64_t row = (m * {rows} + y) * {columns};",
            *starts,
            *(["SIMD"] if simd else []),
            f"for (int64_t i = 0; i < {columns}; ++i) {{",
            f"const int64_t at = line + i * {self.stride[1]};",
            *body,
            "} }",
        ]


def _max_pool(writer: Writer, node: fx.Node, args: Any) -> list[Array]:
    """The largest number of each window, and where in its image it is."""
    kernel, stride, padding, dilation, ceil = _with_defaults(args[1:], [None, 0, 1, False])
    if any(d != 1 for d in (dilation if isinstance(dilation, (list, tuple)) else [dilation])):
        raise Unfit("a pool whose windows have gaps")
    pool, x = _Pool.of(args[0], kernel, stride, padding=padding, ceil=ceil), writer.solid(args[0])
    out = writer.new((*x.shape[:2], *pool.outcome), x.dtype)
    where = writer.new((*x.shape[:2], *pool.outcome), torch.int32)
    kind, width = x.kind, pool.size[1]
    taken = [
        f"{{ const {kind} u = v[at + {place}]; const bool more = u > most || u != u; "
        f"most = more ? u : most; n = more ? {place} : n; }}"
        for place in pool.places[1:]
    ]
    starts = [
        f"const {kind} *const v = {writer.base(x)}; {kind} *const o = {writer.base(out)} + row;",
        f"int32_t *const w = {writer.base(where)} + row;",
    ]
    body = [
        f"{kind} most = v[at]; int32_t n = 0;",
        *taken,
        f"o[i] = most; w[i] = (int32_t)(y * {pool.stride[0] * width} + i * {pool.stride[1]}) + n;",
    ]
    writer.write(pool.text(starts, body), x, out, where)
    return [replace(out, merged=True), replace(where, merged=True)]


def _max_pool_backward(writer: Writer, node: fx.Node, args: Any) -> Array:
    g, x, where = writer.solid(args[0]), args[1], writer.solid(args[-1])
    if not (args[0].merged and x.merged and where.dtype == torch.int32):
        raise Unfit("a pool of other than each member's images")
    out = writer.each(writer.new(x.shape, x.dtype), [], "0")
    images, each = math.prod(x.shape[:2]), math.prod(g.shape[2:])
    lines = [
        f"for (int64_t m = 0; m < {images}; ++m) {{",
        f"{x.kind} *const o = {writer.base(out)} + m * {math.prod(x.shape[2:])};",
        f"for (int64_t i = 0; i < {each}; ++i)",
        f"o[({writer.base(where)})[m * {each} + i]] += ({writer.base(g)})[m * {each} + i];",
        "}",
    ]
    writer.write(lines, g, where, out)
    return replace(out, merged=True)


def _mean_pool(writer: Writer, node: fx.Node, args: Any) -> Array:
    kernel, stride, padding, ceil, _, divisor = _with_defaults(
        args[1:], [None, 0, False, True, None]
    )
    pool, x = _Pool.of(args[0], kernel, stride, padding=padding, ceil=ceil), writer.solid(args[0])
    if divisor is not None:
        raise Unfit("a mean over windows that is divided by another number")
    out = writer.new((*x.shape[:2], *pool.outcome), x.dtype)
    added = " + ".join(f"v[at + {place}]" for place in pool.places)
    starts = [
        f"const {x.kind} *const v = {writer.base(x)}; {x.kind} *const o = {writer.base(out)} + row;"
    ]
    body = [f"o[i] = ({added}) / ({x.kind}){len(pool.places)};"]
    writer.write(pool.text(starts, body), x, out)
    return replace(out, merged=True)


def _mean_pool_backward(writer: Writer, node: fx.Node, args: Any) -> Array:
    kernel, stride, padding, ceil, _, divisor = args[2:]
    pool, g, x = _Pool.of(args[1], kernel, stride, padding=padding, ceil=ceil), args[0], args[1]
    if divisor is not None or not g.merged:
        raise Unfit("a mean over windows that is divided by another number")
    g, out = writer.solid(g), writer.each(writer.new(x.shape, x.dtype), [], "0")
    starts = [
        f"const {x.kind} *const g = {writer.base(g)} + row; {x.kind} *const o = {writer.base(out)};"
    ]
    body = [f"const {x.kind} share = g[i] / ({x.kind}){len(pool.places)};"]
    body += [f"o[at + {place}] += share;" for place in pool.places]
    writer.write(pool.text(starts, body, simd=False), g, out)
    return replace(out, merged=True)


def _with_defaults(args: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Arguments after the first, with defaults for those that were left out."""
    return [*args, *defaults[len(args) - 1 :]]


SPATIAL: dict[Any, CarriesOut] = {
    _ATEN.avg_pool2d: _mean_pool,
    _ATEN.avg_pool2d_backward: _mean_pool_backward,
    _ATEN.convolution: _convolution,
    _ATEN.convolution_backward: _convolution_backward,
    _ATEN.max_pool2d_with_indices: _max_pool,
    _ATEN.max_pool2d_with_indices_backward: _max_pool_backward,
}
"""How they are carried out; members are merged with images or with channels."""
