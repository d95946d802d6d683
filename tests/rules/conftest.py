"""What the tests of the rules share: gradients that are hard on a formula, and a comparison."""

from types import SimpleNamespace

import numpy as np
import pytest

from steepest import rules
from steepest.testing.follow import follow, follow_oracle
from steepest.testing.oracles_modern import ORACLES_MODERN

STEPS = 120


def _case(shapes, *, lr, seed=0, steps=STEPS, **values):
    """Gradients of changing size, some missing, and a learning rate that changes every step."""
    rng = np.random.default_rng(seed)
    params = [rng.normal(size=shape) for shape in shapes]
    grads = [
        [
            None if rng.random() < 0.1 else np.exp(rng.normal()) * rng.normal(size=shape)
            for shape in shapes
        ]
        for _ in range(steps)
    ]
    rates = lr * (1.1 + np.sin(np.arange(steps) / 7))
    return SimpleNamespace(
        params=params, grads=grads, values=[{**values, "lr": float(rate)} for rate in rates]
    )


def _distance(path, other):
    """The largest difference of two trajectories, as a part of the largest number in them."""
    assert len(path) == len(other)
    scale = max(np.abs(x).max() for tensors in other for x in tensors)
    pairs = [pair for a, b in zip(path, other, strict=True) for pair in zip(a, b, strict=True)]
    return max(np.abs(x - y).max() for x, y in pairs) / scale


@pytest.fixture
def case():
    """Make the parameters, gradients and values of a run."""
    return _case


@pytest.fixture
def distance():
    """Compare two trajectories."""
    return _distance


@pytest.fixture
def agrees():
    """Assert that a rule follows its oracle to 1e-12 over 120 steps, and has moved at all."""

    def check(name, shapes=((4, 3), (5,)), *, tolerance=1e-12, **values):
        rule, run = rules.get(name), _case(shapes, **values)
        path, _ = follow(rule, run.params, run.grads, run.values)
        expected = follow_oracle(ORACLES_MODERN[name], rule, run.params, run.grads, run.values)
        assert _distance(path, expected) < tolerance
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(path[-1], run.params, strict=True))

    return check
