"""AdEMAMix against its paper."""

import pytest


@pytest.mark.parametrize("decay", ["decoupled", "l2"])
@pytest.mark.parametrize("warmup", [0.0, 40.0, 1000.0])
def test_follows_the_paper(agrees, decay, warmup):
    agrees(
        "ademamix",
        lr=1e-2,
        weight_decay=0.1,
        eps=0.1,
        decay=decay,
        alpha_slow=5.0,
        alpha_warmup=warmup,
        beta3_warmup=warmup,
    )


def test_without_the_fast_average_the_gradient_itself_stands_in_its_place(agrees):
    agrees("ademamix", lr=1e-2, beta1=0.0, weight_decay=0.1)
