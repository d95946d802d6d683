"""AdaBelief against its paper, and rectified as its authors' package has it."""

import pytest


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("eps", [1e-16, 0.1])
def test_follows_the_paper(agrees, rectify, amsgrad, eps):
    agrees(
        "adabelief",
        lr=1e-2,
        weight_decay=0.1,
        eps=eps,
        amsgrad=amsgrad,
        rectify=rectify,
        beta2=0.95,
    )


def test_follows_the_paper_with_an_l2_penalty(agrees):
    agrees("adabelief", lr=1e-2, weight_decay=0.1, decay="l2", eps=1e-8)
