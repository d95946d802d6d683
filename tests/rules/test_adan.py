"""Adan against its paper."""

import numpy as np
import pytest

from steepest import rules


@pytest.mark.parametrize("decay", ["proximal", "decoupled", "l2"])
@pytest.mark.parametrize("difference", ["beta2", "one_minus_beta2"])
def test_follows_the_paper(agrees, decay, difference):
    agrees("adan", lr=1e-2, weight_decay=0.1, eps=0.1, decay=decay, difference=difference)


def test_the_proximal_decay_is_the_minimum_of_its_objective():
    # p minimises lr * wd / 2 p^2 + 1/2 (p - (p0 + u))^2, so p (1 + lr * wd) = p0 + u
    zeros = np.zeros(1)
    p0, g = np.array([2.0]), np.array([1.0])
    u, *_ = rules.get("adan")(p0, g, zeros, zeros, zeros, zeros, 1, lr=0.5, weight_decay=0.0)
    step, *_ = rules.get("adan")(p0, g, zeros, zeros, zeros, zeros, 1, lr=0.5, weight_decay=0.4)
    assert (p0 + step) * (1 + 0.5 * 0.4) == pytest.approx(p0 + u, rel=1e-15)
