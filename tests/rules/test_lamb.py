"""LAMB against its paper."""

import numpy as np
import pytest

from steepest import rules


@pytest.mark.parametrize("adapt", ["always", "decayed"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("trust_clip", [False, True])
def test_follows_the_paper(agrees, adapt, weight_decay, trust_clip):
    agrees("lamb", lr=1e-2, weight_decay=weight_decay, eps=0.1, adapt=adapt, trust_clip=trust_clip)


def test_a_layer_of_zeros_takes_the_step_of_adam():
    zeros, g = np.zeros(3), np.array([1.0, 2.0, 3.0])
    step, *_ = rules.get("lamb")(zeros, g, zeros, zeros, 1, lr=0.1, eps=0.0)
    np.testing.assert_allclose(step, -0.1, rtol=1e-15)
