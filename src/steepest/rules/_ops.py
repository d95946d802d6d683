"""The few functions that a formula needs beside ``+ - * / **``, for whatever it is handed.

A formula runs on Python floats, NumPy arrays, torch tensors (also under ``vmap`` and
``torch.compile``), JAX arrays, and on the symbols of a tracer. Each call looks at its arguments
and takes the function of their library; nothing is imported that the caller has not imported,
and nothing is cached, since a cache is a side effect and breaks graph capture.

A type of one's own joins in with one attribute: ``__steepest_ops__``, an object that has
``sqrt``, ``sign``, ``where``, ``maximum`` and ``minimum``.
"""

from __future__ import annotations

import math
import sys
from typing import Any

__all__ = ["ema", "maximum", "minimum", "sign", "sqrt", "where"]

Array = Any
"""A float, an array, a tensor or a symbol."""


def _library(x: Array) -> Any:
    """The module that computes with ``x``, or None for a plain Python number."""
    if isinstance(x, (bool, int, float)):
        return None
    ops = getattr(x, "__steepest_ops__", None)
    if ops is not None:
        return ops
    for cls in type(x).__mro__:
        root = cls.__module__.partition(".")[0]
        if root == "torch":
            return sys.modules["torch"]
        if root == "numpy":
            return sys.modules["numpy"]
        if root in {"jax", "jaxlib"}:
            return sys.modules["jax.numpy"]
    raise TypeError(
        f"a rule cannot compute with {type(x).__module__}.{type(x).__qualname__}; expected a float, "
        "a NumPy or JAX array, a torch tensor, or a type with __steepest_ops__"
    )


def _library_of(*xs: Array) -> Any:
    for x in xs:
        library = _library(x)
        if library is not None:
            return library
    return None


def sqrt(x: Array) -> Array:
    """Square root; NaN below zero, for floats as for arrays.

    >>> sqrt(9.0), sqrt(-1.0)
    (3.0, nan)
    """
    library = _library(x)
    if library is None:
        return math.sqrt(x) if x >= 0 else math.nan
    return library.sqrt(x)


def sign(x: Array) -> Array:
    """-1, 0 or 1.

    >>> sign(-2.5), sign(0.0)
    (-1.0, 0.0)
    """
    library = _library(x)
    if library is None:
        return float((x > 0) - (x < 0)) if x == x else math.nan
    return library.sign(x)


def where(condition: Array, a: Array, b: Array) -> Array:
    """``a`` where the condition holds, else ``b``. A Python condition chooses one of them whole.

    >>> where(3 > 2, 1.0, 0.0)
    1.0
    """
    if isinstance(condition, bool):
        return a if condition else b
    return _library_of(condition, a, b).where(condition, a, b)


def _extremum(name: str, clamp: str, a: Array, b: Array) -> Array:
    library = _library_of(a, b)
    if library is None:
        return max(a, b) if name == "maximum" else min(a, b)
    if library.__name__ == "torch":  # torch.maximum takes tensors only
        if isinstance(b, (bool, int, float)):
            return library.clamp(a, **{clamp: b})
        if isinstance(a, (bool, int, float)):
            return library.clamp(b, **{clamp: a})
    return getattr(library, name)(a, b)


def maximum(a: Array, b: Array) -> Array:
    """The larger one, element by element; NaN if either is.

    >>> maximum(1.0, 2.0)
    2.0
    """
    return _extremum("maximum", "min", a, b)


def minimum(a: Array, b: Array) -> Array:
    """The smaller one, element by element; NaN if either is.

    >>> minimum(1.0, 2.0)
    1.0
    """
    return _extremum("minimum", "max", a, b)


def ema(average: Array, x: Array, beta: Array) -> Array:
    """Exponential moving average: ``beta * average + (1 - beta) * x``.

    >>> ema(1.0, 3.0, 0.5)
    2.0
    """
    return beta * average + (1 - beta) * x
