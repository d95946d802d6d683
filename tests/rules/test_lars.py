"""LARS against its paper."""

import pytest


@pytest.mark.parametrize("ratio", ["separate", "joint"])
@pytest.mark.parametrize("lr_place", ["buffer", "step"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.0, False)])
def test_follows_the_paper(agrees, ratio, lr_place, momentum, nesterov):
    agrees(
        "lars",
        lr=0.3,
        weight_decay=0.1,
        eps=0.1,
        trust_coefficient=0.1,
        momentum=momentum,
        ratio=ratio,
        lr_place=lr_place,
        nesterov=nesterov,
    )


@pytest.mark.parametrize("adapt", ["always", "decayed"])
def test_without_decay_the_ratio_can_be_left_out(agrees, adapt):
    agrees("lars", lr=0.1, weight_decay=0.0, adapt=adapt, trust_coefficient=0.1)
