"""Lion against its paper.

Compared by hand with lion-pytorch 0.2.5, timm 1.0.31 and optax 0.2.8; see `rules/_dialects.py`.
"""

import pytest


@pytest.mark.parametrize("decay", ["l2", "decoupled", "independent", "proximal"])
def test_follows_the_paper_with_every_meaning_of_decay(agrees, decay):
    agrees("lion", lr=1e-2, weight_decay=0.1, decay=decay)


def test_follows_the_paper_with_other_coefficients(agrees):
    agrees("lion", lr=1e-2, beta1=0.5, beta2=0.0)
