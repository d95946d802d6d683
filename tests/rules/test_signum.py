"""Signum and signSGD against their paper."""

import pytest


@pytest.mark.parametrize("decay", ["l2", "decoupled"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_follows_the_paper(agrees, decay, momentum):
    agrees("signum", lr=1e-2, weight_decay=0.1, decay=decay, momentum=momentum)
