"""The few functions that a formula needs beside ``+ - * / **``, for whatever it is handed.

A formula runs on Python floats, NumPy arrays, torch tensors (also under ``vmap`` and
``torch.compile``), JAX arrays, and on the symbols of a tracer. Each call looks at its arguments
and takes the function of their library; nothing is imported that the caller has not imported,
and nothing is cached, since a cache is a side effect and breaks graph capture.

A type of one's own joins in with one attribute: ``__steepest_ops__``, an object that has
``sqrt``, ``sign``, ``where``, ``maximum`` and ``minimum``; for the rules that need them also
``exp`` and ``log``; and for the rules of kind ``norms`` ``sum`` (over one tensor), ``size``,
``centred``, ``row_mean`` and ``column_mean``. What multiplies and decomposes matrices is for arrays
only.
"""

from __future__ import annotations

import math
import sys
from typing import Any

__all__ = [
    "centred",
    "column_mean",
    "descending",
    "eigh",
    "ema",
    "exp",
    "log",
    "matrix_mean",
    "matrix_norm",
    "maximum",
    "mean",
    "minimum",
    "norm",
    "orthonormal",
    "row_mean",
    "sign",
    "size",
    "sort_columns",
    "sqrt",
    "total",
    "transpose",
    "where",
]

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
        f"a rule cannot compute with {type(x).__module__}.{type(x).__qualname__}; expected a "
        "float, a NumPy or JAX array, a torch tensor, or a type with __steepest_ops__"
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
        return float(x > 0) - float(x < 0) if not math.isnan(x) else math.nan
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


def exp(x: Array) -> Array:
    """The exponential.

    >>> exp(0.0)
    1.0
    """
    library = _library(x)
    return math.exp(x) if library is None else library.exp(x)


def log(x: Array) -> Array:
    """The natural logarithm; NaN below zero, minus infinity at zero.

    >>> log(1.0), log(0.0)
    (0.0, -inf)
    """
    library = _library(x)
    if library is not None:
        return library.log(x)
    if x > 0:
        return math.log(x)
    return -math.inf if x == 0 else math.nan


def total(x: Array) -> Array:
    """The sum over all elements of one tensor; a number is a tensor of one element.

    >>> total(3.0)
    3.0
    """
    library = _library(x)
    return x if library is None else library.sum(x)


def size(x: Array) -> Array:
    """How many elements one tensor has.

    >>> size(3.0)
    1
    """
    library = _library(x)
    if library is None:
        return 1
    if hasattr(library, "size") and hasattr(x, "__steepest_ops__"):
        return library.size(x)
    return math.prod(x.shape)


def mean(x: Array) -> Array:
    """The mean over all elements of one tensor.

    >>> mean(3.0)
    3.0
    """
    return total(x) / size(x)


def norm(x: Array) -> Array:
    """The Euclidean norm of all elements of one tensor.

    >>> norm(-3.0)
    3.0
    """
    return sqrt(total(x * x))


def centred(x: Array) -> Array:
    """Minus the mean over all axes but the first; unchanged with fewer than two axes.

    >>> centred(3.0)
    3.0
    """
    ops = getattr(x, "__steepest_ops__", None)
    if ops is not None:
        return ops.centred(x)
    if getattr(x, "ndim", 0) < 2:
        return x
    rest = math.prod(x.shape[1:])
    means = x.reshape(x.shape[0], rest).sum(-1) / max(rest, 1)
    return x - means.reshape(x.shape[0], *[1] * (x.ndim - 1))


# Of the last two axes; the axes before them are a stack of matrices.


def row_mean(x: Array) -> Array:
    """The mean of each row, as a column: (..., m, n) -> (..., m, 1)."""
    ops = getattr(x, "__steepest_ops__", None)
    return x.sum(-1)[..., :, None] / x.shape[-1] if ops is None else ops.row_mean(x)


def column_mean(x: Array) -> Array:
    """The mean of each column, as a row: (..., m, n) -> (..., 1, n)."""
    ops = getattr(x, "__steepest_ops__", None)
    return x.sum(-2)[..., None, :] / x.shape[-2] if ops is None else ops.column_mean(x)


def matrix_mean(x: Array) -> Array:
    """The mean of each matrix: (..., m, n) -> (..., 1, 1)."""
    return column_mean(row_mean(x))


def transpose(x: Array) -> Array:
    """Rows and columns exchanged: (..., m, n) -> (..., n, m)."""
    return x.swapaxes(-1, -2)


def matrix_norm(x: Array) -> Array:
    """The Frobenius norm of each matrix: (..., m, n) -> (..., 1, 1)."""
    return sqrt((x * x).sum(-1)[..., None].sum(-2)[..., None])


def eigh(x: Array) -> tuple[Array, Array]:
    """Eigenvalues in ascending order, and the eigenvectors as columns, of symmetric matrices."""
    values, vectors = _library(x).linalg.eigh(x)
    return values, vectors


def orthonormal(x: Array) -> Array:
    """The Q of x = QR."""
    return _library(x).linalg.qr(x)[0]


def sort_columns(x: Array, order: Array, axis: int) -> Array:
    """``x`` with its last (-1) or second last (-2) axis in that order: (..., k) indices."""
    library = _library(x)
    index = order[..., None, :] if axis == -1 else order[..., :, None]
    if library.__name__ == "torch":
        return library.take_along_dim(x, index, axis)
    return library.take_along_axis(x, index, axis)


def descending(x: Array) -> Array:
    """The order that sorts the last axis from the largest to the smallest."""
    return _library(x).argsort(-x)
