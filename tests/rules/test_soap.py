"""SOAP against its paper."""

import numpy as np
import pytest

from steepest import rules

SHAPES = ((5, 5), (4, 4))


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
@pytest.mark.parametrize("precondition_frequency", [1.0, 10.0])
@pytest.mark.parametrize("correct_bias", [True, False])
def test_follows_the_paper(agrees, decay, precondition_frequency, correct_bias):
    agrees(
        "soap",
        SHAPES,
        lr=1e-2,
        weight_decay=0.1,
        eps=0.1,
        decay=decay,
        correct_bias=correct_bias,
        precondition_frequency=precondition_frequency,
        tolerance=1e-10,  # eigenvectors of near eigenvalues
    )


def test_with_bases_that_stay_it_is_adam_in_rotated_coordinates(case):
    from steepest.testing.follow import follow

    rng = np.random.default_rng(3)
    run = case([(4, 4)], lr=1e-2, eps=1e-8, precondition_frequency=1000.0)
    run.grads = [[rng.normal(size=(4, 4))] for _ in run.grads]
    path, slots = follow(rules.get("soap"), run.params, run.grads, run.values)
    left, right = slots[0]["Q_0"], slots[0]["Q_1"]
    turned = [[left.T @ g[0] @ right] for g in run.grads[1:]]
    values = [{"lr": v["lr"], "beta1": 0.95, "beta2": 0.95, "eps_mode": "hat"} for v in run.values]
    values = [{**v, "weight_decay": 0.0} for v in values]
    start = left.T @ run.params[0] @ right
    adam, _ = follow(rules.get("adam"), [start], turned, values[1:])
    soap, _ = follow(
        rules.get("soap"), run.params, run.grads, [{**v, "weight_decay": 0.0} for v in run.values]
    )
    np.testing.assert_allclose(left @ adam[-1][0] @ right.T, soap[-1][0], rtol=1e-10)
    assert path[0][0] is not None
