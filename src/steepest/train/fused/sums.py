"""Sums and the like over dimensions, and softmax, in C++."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from steepest.train.fused.text import Loop, adding, number
from steepest.train.fused.writer import Array, CarriesOut, Unfit, Writer

__all__ = ["SUMS", "along"]

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class _Sum:
    """What is done along the dimensions that go away.

    Attributes:
        start: Of ``a``, which becomes the outcome.
        more: ``a`` with one number ``x`` more.
        simd: How the compiler may take numbers together.
        mean: Divide by how many there were.
    """

    start: str
    more: str
    simd: str = ""
    mean: bool = False

    def __call__(self, writer: Writer, node: fx.Node, args: Any) -> Array:
        x = args[0]
        shape, dtype = writer.own(node)
        gone = _dimensions(x, args[1:])
        if "INFINITY" in self.start and not dtype.is_floating_point:
            raise Unfit(f"the largest or smallest of {dtype}")
        out = writer.output(shape, dtype)
        # a number after the other, or all of a row at once: as the numbers lie
        write = self._numbers if len(x.shape) - 1 in gone else self._rows
        writer.write(write(writer, x, out, gone), out, x)
        return out

    def _numbers(self, writer: Writer, x: Array, out: Array, gone: Sequence[int]) -> list[str]:
        kept = [d for d in range(len(x.shape)) if d not in gone]
        walked, strides = writer.spread(x, x.shape), _with_gone(out, x, gone)
        outer = Loop([x.shape[d] for d in kept],
                     {"out": [strides[d] for d in kept], "x": [walked[d] for d in kept]},
                     letter="j")  # fmt: skip
        inner = Loop([x.shape[d] for d in gone], {"x": [walked[d] for d in gone]})
        if x.memory is None:
            value = number(x.value, x.kind)
        else:
            value = f"{x.memory.name}[{outer.at('x')} + {inner.at('x')} + {x.offset}]"
        kind, count = out.kind, math.prod(x.shape[d] for d in gone)
        share = f" / ({kind}){count}" if self.mean else ""
        return outer.text(
            f"{kind} a = ({kind}){self.start};",
            *inner.text(f"a = {self._more(kind, 'a', value)};", simd=self.simd),
            f"{writer.element(out, 'out', outer)} = a{share};",
            simd="",
        )

    def _rows(self, writer: Writer, x: Array, out: Array, gone: Sequence[int]) -> list[str]:
        order = [*gone, *(d for d in range(len(x.shape)) if d not in gone)]
        walked, strides = writer.spread(x, x.shape), _with_gone(out, x, gone)
        each = Loop(out.shape, {"out": out.strides})
        loop = Loop([x.shape[d] for d in order],
                    {"out": [strides[d] for d in order], "x": [walked[d] for d in order]},
                    )  # fmt: skip
        kind, count = out.kind, math.prod(x.shape[d] for d in gone)
        one, a = writer.element(out, "out", each), writer.element(out, "out", loop)
        lines = each.text(f"{one} = ({kind}){self.start};")
        lines += loop.text(f"{a} = {self._more(kind, a, writer.element(x, 'x', loop))};")
        return lines + (each.text(f"{one} /= ({kind}){count};") if self.mean else [])

    def _more(self, kind: str, a: str, x: str) -> str:
        return self.more.format(a=a, x=f"({kind})({x})", T=kind)


def _dimensions(x: Array, rest: Sequence[Any]) -> list[int]:
    dims = rest[0] if rest else None
    if dims is None or dims == []:
        raise Unfit("an operation mixes members: a sum over all of them")
    return sorted({along(x, d) for d in ([dims] if isinstance(dims, int) else dims)})


def along(x: Array, dim: int) -> int:
    """The number of a dimension among one member's."""
    found = dim % (len(x.shape) + 1) - 1
    if found < 0:
        raise Unfit("an operation mixes members: it runs along them")
    return found


def _with_gone(out: Array, x: Array, gone: Sequence[int]) -> list[int]:
    """The strides of what is left, in the dimensions of what there was."""
    if len(out.shape) == len(x.shape):
        return [0 if d in gone else s for d, s in enumerate(out.strides)]
    left = iter(out.strides)
    return [0 if d in gone else next(left) for d in range(len(x.shape))]


# ---------------------------------------------------------------------- softmax


class _Row:
    """The numbers of an array along one dimension, for each place in the others.

    Args:
        array: In memory.
        dim: Which dimension.
        name: What a row's first number is called.
        writes: Whether the row is written to.
    """

    def __init__(self, array: Array, dim: int, name: str, *, writes: bool = False) -> None:
        assert array.memory is not None  # noqa: S101  numbers are put into memory before
        rest = [d for d in range(len(array.shape)) if d != dim]
        self.heads = [f"for (int64_t j{d} = 0; j{d} < {array.shape[d]}; ++j{d})" for d in rest]
        at = " + ".join([*(f"j{d} * {array.strides[d]}" for d in rest), str(array.offset)])
        const = "" if writes else "const "
        self.start = f"{const}{array.kind} *const {name} = {array.memory.name} + {at};"
        self.element = f"{name}[i * {array.strides[dim]}]"
        self.loop = f"for (int64_t i = 0; i < {array.shape[dim]}; ++i)"


def _softmax(*, log: bool, safe: bool = False) -> CarriesOut:
    def carry_out(writer: Writer, node: fx.Node, args: Any) -> Array:
        shape, dtype = writer.own(node)
        x, dim = writer.solid(args[0]), along(args[0], args[1])
        if dtype != x.dtype:
            raise Unfit("a softmax in another type")
        out, each = writer.output(shape, dtype), writer.new(shape, dtype)
        rows, into, of = (
            _Row(x, dim, "v"), _Row(out, dim, "o", writes=True), _Row(each, dim, "e", writes=True)
        )  # fmt: skip
        v, o, e, loop, kind = rows.element, into.element, of.element, rows.loop, x.kind
        writer.write(
            [
                *rows.heads, "{", rows.start, into.start,
                f"{kind} most = -INFINITY;",
                f'_Pragma("omp simd reduction(max:most)")\n{loop} most = {v} > most ? {v} : most;',
                "if (most == -INFINITY) most = 0;" if safe else "",
                f"SIMD\n{loop} {o} = {v} - most;", "}",
            ],
            x, out,
        )  # fmt: skip
        writer.each(each, [out], "exp_({0})")  # of all rows at once: most are shorter than vectors
        last = f"{o} -= shift;" if log else f"{o} = {e} * shift;"
        shift = "std::log(sum)" if log else f"({kind})1 / sum"
        if safe:  # of a row of -inf: 0
            last = f"{o} = sum == 0 ? ({kind})0 : {e} * shift;"
        lines = [
            f"{kind} sum = 0;",
            f"{adding('sum')}\n{loop} sum += {e};",
            f"const {kind} shift = {shift};",
            f"SIMD\n{loop} {last}",
        ]
        writer.write([*into.heads, "{", into.start, of.start, *lines, "}"], each, out)
        return out

    return carry_out


def _softmax_backward(*, log: bool) -> CarriesOut:
    def carry_out(writer: Writer, node: fx.Node, args: Any) -> Array:
        shape, dtype = writer.own(node)
        g, y, dim = writer.solid(args[0]), writer.solid(args[1]), along(args[1], args[2])
        if {g.dtype, y.dtype} != {dtype}:
            raise Unfit("a softmax in another type")
        out = writer.output(shape, dtype)
        if log:
            y = writer.each(writer.new(shape, dtype), [y], "exp_({0})")
        given, rows = _Row(g, dim, "g"), _Row(y, dim, "v")
        into = _Row(out, dim, "o", writes=True)
        u, v, o, loop = given.element, rows.element, into.element, rows.loop
        value = f"{u} - {v} * sum" if log else f"({u} - sum) * {v}"
        lines = [
            f"{y.kind} sum = 0;",
            f"{adding('sum')}\n{loop} sum += {u if log else f'{u} * {v}'};",
            f"SIMD\n{loop} {o} = {value};",
        ]
        starts = [given.start, rows.start, into.start]
        writer.write([*rows.heads, "{", *starts, *lines, "}"], g, y, out)
        return out

    return carry_out


SUMS: dict[Any, CarriesOut] = {
    _ATEN.amax: _Sum("-INFINITY", "larger<{T}>({x}, {a})"),
    _ATEN.amin: _Sum("INFINITY", "smaller<{T}>({x}, {a})"),
    _ATEN._log_softmax: _softmax(log=True),
    _ATEN._log_softmax_backward_data: _softmax_backward(log=True),
    _ATEN.mean: _Sum("0", "{a} + {x}", adding("a"), mean=True),
    _ATEN._safe_softmax: _softmax(log=False, safe=True),
    _ATEN._softmax: _softmax(log=False),
    _ATEN._softmax_backward_data: _softmax_backward(log=False),
    _ATEN.sum: _Sum("0", "{a} + {x}", adding("a")),
}
"""How they are carried out."""
