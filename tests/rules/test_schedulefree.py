"""Schedule-free SGD and AdamW against their paper, with x kept where the rules recover it."""

import numpy as np
import pytest

from steepest import rules
from steepest.errors import InputError
from steepest.testing.follow import follow
from steepest.testing.oracles_modern import ORACLES_MODERN, values_of


@pytest.mark.parametrize(("r", "power"), [(0.0, 2.0), (1.0, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("warmup_steps", [0.0, 30.0])
def test_sgd_follows_the_paper(agrees, r, power, warmup_steps):
    agrees(
        "schedulefree_sgd",
        lr=1e-2,
        weight_decay=0.1,
        r=r,
        weight_lr_power=power,
        warmup_steps=warmup_steps,
    )


@pytest.mark.parametrize("correction", ["denominator", "rate"])
@pytest.mark.parametrize("warmup_steps", [0.0, 30.0])
def test_adamw_follows_the_paper(agrees, correction, warmup_steps):
    agrees(
        "schedulefree_adamw",
        lr=1e-2,
        weight_decay=0.1,
        eps=0.1,
        correction=correction,
        warmup_steps=warmup_steps,
    )


@pytest.mark.parametrize("name", ["schedulefree_sgd", "schedulefree_adamw"])
def test_averaged_gives_the_x_of_the_paper(name, case):
    rule, run = rules.get(name), case([(3, 2)], lr=1e-2, weight_decay=0.1)
    path, slots = follow(rule, run.params, run.grads, run.values)
    p, memory, t = run.params[0], {}, 0
    for grads, values in zip(run.grads, run.values, strict=True):
        if grads[0] is not None:
            t += 1
            p = ORACLES_MODERN[name](p, grads[0], t, memory, values_of(rule, **values))
    x = rule.averaged(path[-1][0], slots[0], run.values[-1])
    np.testing.assert_allclose(x, memory["x"], rtol=1e-11)
    assert np.abs(x - path[-1][0]).max() > 1e-4


def test_a_rate_of_zero_at_the_start_moves_nothing():
    p, g = np.ones(2), np.ones(2)
    step, z, *_ = rules.get("schedulefree_sgd")(p, g, p, 0.0, 0.0, 1, lr=0.0)
    assert not step.any()
    assert z.tolist() == [1.0, 1.0]


def test_an_average_that_is_not_in_the_parameter_is_refused():
    with pytest.raises(InputError, match="coefficient of 0"):
        rules.get("schedulefree_sgd").averaged(np.ones(1), {"z": np.ones(1)}, {"momentum": 0.0})


def test_a_rule_without_an_average_evaluates_where_it_trains():
    p = np.ones(2)
    assert rules.get("adam").averaged(p, {}, {}) is p


def test_the_average_of_asgd_is_its_slot():
    ax = np.zeros(2)
    assert rules.get("asgd").averaged(np.ones(2), {"ax": ax}, {}) is ax
