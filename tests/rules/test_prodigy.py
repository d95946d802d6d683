"""Prodigy against its paper: the one rule whose formula needs sums over all parameters."""

import numpy as np
import pytest

from steepest import rules
from steepest.errors import InputError
from steepest.testing.follow import follow
from steepest.testing.oracles_modern import prodigy_step, values_of


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
@pytest.mark.parametrize(
    "more",
    [
        {"d_coef": 0.1},
        {"d_coef": 2.0},
        {"use_bias_correction": True, "safeguard_warmup": True},
        {"beta3": 0.9, "beta1": 0.5},
        {"beta1": 0.0},
    ],
)
def test_follows_the_paper(case, distance, decay, more):
    prodigy = rules.get("prodigy")
    run = case([(4, 3), (5,)], lr=1.0, weight_decay=0.1, eps=0.01, d0=1e-3, decay=decay, **more)
    # these gradients do not know where p is, so nothing but this bounds the estimate
    run.values = [{"growth_rate": 1.02, **v} for v in run.values]
    path, _ = follow(prodigy, run.params, run.grads, run.values)
    params, state, times, expected = list(run.params), {}, [0, 0], []
    for grads, values in zip(run.grads, run.values, strict=True):
        times = [t + (g is not None) for t, g in zip(times, grads, strict=True)]
        params = prodigy_step(params, grads, times, state, values_of(prodigy, **values))
        expected.append(list(params))
    assert distance(path, expected) < 1e-12


def test_says_that_it_needs_sums_over_all_parameters():
    zeros = np.zeros(2)
    with pytest.raises(InputError, match="needs sums over all parameters"):
        rules.get("prodigy")(zeros, zeros, zeros, zeros, zeros, zeros, 1e-6, 1e-6, 0.0, 1)


def test_the_estimate_is_shared_by_all_tensors(case):
    run = case([(3,), (2, 2)], lr=1.0, d0=1e-3)
    run.grads = [[np.ones(3), np.full((2, 2), -1.0)] for _ in run.grads]
    _, slots = follow(rules.get("prodigy"), run.params, run.grads, run.values)
    assert slots[0]["d"] == slots[1]["d"] > 1e-3
