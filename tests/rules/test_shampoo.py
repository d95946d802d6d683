"""Shampoo against its paper."""

import numpy as np
import pytest

from steepest import rules

SHAPES = ((6, 4), (5, 5))


@pytest.mark.parametrize("decay", ["l2", "decoupled"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("update_freq", [1.0, 7.0])
def test_follows_the_paper(agrees, decay, momentum, update_freq):
    agrees(
        "shampoo",
        SHAPES,
        lr=0.1,
        weight_decay=0.1,
        decay=decay,
        momentum=momentum,
        eps=0.1,
        update_freq=update_freq,
    )


def test_follows_the_paper_with_square_roots(agrees):
    agrees("shampoo", SHAPES, lr=0.1, root=2.0, eps=1.0)


def test_the_first_step_turns_a_full_gradient_into_an_orthogonal_one():
    # (gg^T)^-1/4 g (g^Tg)^-1/4 = U V^T
    g = np.random.default_rng(0).normal(size=(4, 4))
    left, _, right = np.linalg.svd(g)
    zeros = np.zeros((4, 4))
    step, *_ = rules.get("shampoo")(zeros, g, zeros, zeros, zeros, zeros, None, 1, lr=1.0, eps=0.0)
    np.testing.assert_allclose(step, -left @ right, atol=1e-10)
