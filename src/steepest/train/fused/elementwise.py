"""What is done element by element, in C++.

{0}, {1}, …    elements of what an operation takes
T              the type of what it gives
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from steepest.train.fused.writer import Array

__all__ = ["Expression", "expression"]

_ATEN = torch.ops.aten

Expression = tuple[str, Sequence[Any]]
"""C++ of an element, and what it is made of: arrays and numbers."""

_PLAIN: dict[Any, str] = {
    _ATEN.abs: "(T)std::abs({0})",
    _ATEN.bitwise_and: "{0} & {1}",
    _ATEN.bitwise_not: "~{0}",
    _ATEN.bitwise_or: "{0} | {1}",
    _ATEN.bitwise_xor: "{0} ^ {1}",
    _ATEN.__rshift__: "{0} >> {1}",
    _ATEN.__lshift__: "{0} << {1}",
    _ATEN.bitwise_right_shift: "{0} >> {1}",
    _ATEN.bitwise_left_shift: "{0} << {1}",
    _ATEN.clamp_max: "smaller<T>({0}, {1})",
    _ATEN.clamp_min: "larger<T>({0}, {1})",
    _ATEN.cos: "std::cos((T){0})",
    _ATEN.eq: "{0} == {1}",
    _ATEN.erf: "erf_((T){0})",
    _ATEN.exp: "exp_((T){0})",
    _ATEN.fill: "{1}",
    _ATEN.expm1: "std::expm1((T){0})",
    _ATEN.ge: "{0} >= {1}",
    _ATEN.gt: "{0} > {1}",
    _ATEN.hardtanh_backward: "({1} <= {2} || {1} >= {3}) ? (T)0 : {0}",
    _ATEN.le: "{0} <= {1}",
    _ATEN.leaky_relu_backward: "{1} > (T)0 ? {0} : {2} * {0}",
    _ATEN.log: "std::log((T){0})",
    _ATEN.log1p: "std::log1p((T){0})",
    _ATEN.logical_and: "(bool){0} && (bool){1}",
    _ATEN.logical_not: "!(bool){0}",
    _ATEN.logical_or: "(bool){0} || (bool){1}",
    _ATEN.lt: "{0} < {1}",
    _ATEN.masked_fill: "{1} ? (T){2} : {0}",
    _ATEN.maximum: "larger<T>({0}, {1})",
    _ATEN.minimum: "smaller<T>({0}, {1})",
    _ATEN.mul: "(T){0} * (T){1}",
    _ATEN.ne: "{0} != {1}",
    _ATEN.neg: "-(T){0}",
    _ATEN.reciprocal: "(T)1 / (T){0}",
    _ATEN.relu: "relu_<T>({0})",
    _ATEN.rsqrt: "(T)1 / std::sqrt((T){0})",
    _ATEN.sgn: "sign_<T>({0})",
    _ATEN.sigmoid: "sigmoid_((T){0})",
    _ATEN.sigmoid_backward: "{0} * {1} * ((T)1 - {1})",
    _ATEN.sign: "sign_<T>({0})",
    _ATEN.silu: "{0} * sigmoid_((T){0})",
    _ATEN.silu_backward: "{0} * sigmoid_({1}) * ((T)1 + {1} * ((T)1 - sigmoid_({1})))",
    _ATEN.sin: "std::sin((T){0})",
    _ATEN.sqrt: "std::sqrt((T){0})",
    _ATEN.square: "(T){0} * (T){0}",
    _ATEN.tanh: "tanh_((T){0})",
    _ATEN.tanh_backward: "{0} * ((T)1 - {1} * {1})",
    _ATEN.threshold_backward: "{1} <= {2} ? (T)0 : {0}",
    _ATEN.where: "{0} ? (T){1} : (T){2}",
}


def expression(packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression | None:
    """What an element of an operation's outcome is; None if that is not known.

    Args:
        packet: The operation, whatever its overload.
        args: Arrays, numbers and whatever else it was called with.
        kwargs: The same, by name.
    """
    if packet in _OWN:
        return _OWN[packet](args, kwargs)
    text = _PLAIN.get(packet)
    return None if text is None else (text, _operands(args))


def _operands(args: Sequence[Any]) -> list[Any]:
    return [a for a in args if isinstance(a, (Array, int, float, bool))]


def _filled_up(args: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Arguments after the first, with defaults for those that were left out."""
    given = list(args[1:])
    return [*given, *defaults[len(given) :]]


def _same(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    return "{0}", args[:1]


def _sum(sign: str) -> Callable[[Sequence[Any], Mapping[str, Any]], Expression]:
    def add(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
        alpha = kwargs.get("alpha", 1)
        if alpha == 1:
            return f"(T){{0}} {sign} (T){{1}}", args[:2]
        return f"(T){{0}} {sign} (T){{2}} * (T){{1}}", [*args[:2], alpha]

    return add


def _added_product(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    value = kwargs.get("value", 1)
    return "(T){0} + (T){3} * (T){1} * (T){2}", [*args[:3], value]


def _rsub(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    return "(T){1} - (T){2} * (T){0}", [*args[:2], kwargs.get("alpha", 1)]


def _div(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression | None:
    return None if kwargs.get("rounding_mode") else ("(T){0} / (T){1}", args[:2])


def _power(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression | None:
    base, exponent = args
    if isinstance(exponent, Array) or not isinstance(base, Array):
        return None
    products: dict[float, str] = {
        -1: "(T)1 / (T){0}",
        -0.5: "(T)1 / std::sqrt((T){0})",
        0: "(T)1",
        0.5: "std::sqrt((T){0})",
        1: "(T){0}",
        2: "(T){0} * (T){0}",
        3: "(T){0} * (T){0} * (T){0}",
    }
    if exponent in products:
        return products[exponent], [base]
    return "(T)std::pow((T){0}, (T){1})", [base, exponent]


def _between(*defaults: float | None) -> Callable[[Sequence[Any], Mapping[str, Any]], Expression]:
    def clamp(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
        low, high = _filled_up(args, defaults)
        if low is None:
            return "smaller<T>({0}, {1})", [args[0], high]
        if high is None:
            return "larger<T>({0}, {1})", [args[0], low]
        return "smaller<T>(larger<T>({0}, {1}), {2})", [args[0], low, high]

    return clamp


def _leaky(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    return "{0} > (T)0 ? {0} : {1} * {0}", [args[0], *_filled_up(args, [0.01])]


def _elu(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    text = "{0} > (T)0 ? {2} * {0} : {2} * {1} * (exp_({3} * {0}) - (T)1)"
    return text, [args[0], *_filled_up(args, [1.0, 1.0, 1.0])]


def _elu_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    g, alpha, scale, inner, of_result, x = args
    below = "({4} + {2} * {1})" if of_result else "{2} * {1} * exp_({4} * {3})"
    return f"{{4}} <= (T)0 ? {{0}} * {{3}} * {below} : {{0}} * {{2}}", [g, alpha, scale, inner, x]


def _softplus(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    beta, limit = _filled_up(args, [1, 20])
    text = "{0} * {1} > {2} ? {0} : (T)std::log1p(exp_({0} * {1})) / {1}"
    return text, [args[0], float(beta), float(limit)]


def _softplus_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    g, x, beta, limit = args
    text = "{1} * {2} > {3} ? {0} : {0} * sigmoid_({1} * {2})"
    return text, [g, x, float(beta), float(limit)]


def _gelu_share(x: str) -> str:
    return f"(T)0.5 * ((T)1 + erf_({x} * (T){math.sqrt(0.5)!r}))"


def _gelu(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    if kwargs.get("approximate", "none") == "none":
        return f"{{0}} * {_gelu_share('{0}')}", args[:1]
    inner = f"(T){math.sqrt(2 / math.pi)!r} * ({{0}} + (T)0.044715 * {{0}} * {{0}} * {{0}})"
    return f"{{0}} * (T)0.5 * ((T)1 + tanh_({inner}))", args[:1]


def _gelu_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Expression:
    if kwargs.get("approximate", "none") == "none":
        density = f"(T){1 / math.sqrt(2 * math.pi)!r} * exp_((T)-0.5 * {{1}} * {{1}})"
        return f"{{0}} * ({_gelu_share('{1}')} + {{1}} * {density})", args[:2]
    root = f"(T){math.sqrt(2 / math.pi)!r}"
    curve = f"tanh_({root} * ({{1}} + (T)0.044715 * {{1}} * {{1}} * {{1}}))"
    slope = f"{root} * ((T)1 + (T)0.134145 * {{1}} * {{1}})"
    text = f"(T)1 + {curve} + {{1}} * ((T)1 - {curve} * {curve}) * {slope}"
    return f"{{0}} * (T)0.5 * ({text})", args[:2]


_OWN: dict[Any, Callable[[Sequence[Any], Mapping[str, Any]], Expression | None]] = {
    _ATEN.add: _sum("+"),
    _ATEN.addcmul: _added_product,
    _ATEN.clamp: _between(None, None),
    _ATEN.clone: _same,
    _ATEN.div: _div,
    _ATEN.elu: _elu,
    _ATEN.elu_backward: _elu_backward,
    _ATEN.gelu: _gelu,
    _ATEN.gelu_backward: _gelu_backward,
    _ATEN.hardtanh: _between(-1.0, 1.0),
    _ATEN.leaky_relu: _leaky,
    _ATEN.lift_fresh_copy: _same,
    _ATEN.pow: _power,
    _ATEN.rsub: _rsub,
    _ATEN.softplus: _softplus,
    _ATEN.softplus_backward: _softplus_backward,
    _ATEN.sub: _sum("-"),
    _ATEN._to_copy: _same,
}
