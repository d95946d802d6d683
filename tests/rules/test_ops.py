"""The operations of the formulas: one meaning, whatever they are handed."""

import math

import numpy as np
import pytest
import torch

from steepest.rules import _ops

ARRAY = np.random.default_rng(0).normal(size=(3, 4, 5))


def _both(name, *arguments):
    """The result on NumPy arrays and on torch tensors."""
    function = getattr(_ops, name)
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    return function(*arguments), function(*tensors)


def _same(ours, expected):
    for result in ours:
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-13, atol=1e-14)


def test_reductions_over_a_tensor():
    _same(_both("total", ARRAY), ARRAY.sum())
    _same(_both("mean", ARRAY), ARRAY.mean())
    _same(_both("norm", ARRAY), np.linalg.norm(ARRAY.ravel()))
    assert _both("size", ARRAY) == (60, 60)


def test_centring_takes_the_mean_over_all_axes_but_the_first():
    _same(_both("centred", ARRAY), ARRAY - ARRAY.mean((1, 2), keepdims=True))
    _same(_both("centred", ARRAY[0, 0]), ARRAY[0, 0])
    assert _ops.centred(np.zeros((0, 3))).shape == (0, 3)
    assert _ops.centred(np.zeros((3, 0))).shape == (3, 0)


def test_matrices_are_the_last_two_axes():
    _same(_both("row_mean", ARRAY), ARRAY.mean(-1, keepdims=True))
    _same(_both("column_mean", ARRAY), ARRAY.mean(-2, keepdims=True))
    _same(_both("matrix_mean", ARRAY), ARRAY.mean((-2, -1), keepdims=True))
    _same(_both("matrix_norm", ARRAY), np.linalg.norm(ARRAY, axis=(-2, -1))[:, None, None])
    _same(_both("transpose", ARRAY), ARRAY.transpose(0, 2, 1))


def test_factorisations_put_the_matrix_together_again():
    square = ARRAY @ ARRAY.transpose(0, 2, 1)
    for pair in _both("eigh", square):
        values, vectors = map(np.asarray, pair)
        _same([(vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1)], square)
    for q in _both("orthonormal", square):
        _same([np.asarray(q).transpose(0, 2, 1) @ np.asarray(q)], np.stack([np.eye(4)] * 3))


def test_sorting_rows_and_columns():
    order = np.argsort(-ARRAY[:, 0], axis=-1)
    _same(_both("descending", ARRAY[:, 0].copy()), order)
    expected = np.stack([m[:, o] for m, o in zip(ARRAY, order, strict=True)])
    _same(_both("sort_columns", ARRAY, order, -1), expected)
    turned = ARRAY.transpose(0, 2, 1).copy()
    _same(_both("sort_columns", turned, order, -2), expected.transpose(0, 2, 1))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sign"])
@pytest.mark.parametrize("x", [0.0, 0.5, 2.0])
def test_floats_do_what_arrays_do(name, x):
    with np.errstate(divide="ignore"):
        expected = getattr(_ops, name)(np.array([x]))[0]
    assert getattr(_ops, name)(x) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", ["log", "sqrt", "sign"])
def test_what_is_no_number_stays_none(name):
    assert math.isnan(getattr(_ops, name)(math.nan))


def test_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="cannot compute with"):
        _ops.sqrt("2")
