"""ADOPT against its paper."""

import numpy as np
import pytest

from steepest import rules


@pytest.mark.parametrize("decay", ["l2", "decoupled"])
@pytest.mark.parametrize("eps", [1e-6, 0.5])
@pytest.mark.parametrize("clip", [True, False])
def test_follows_the_paper(agrees, decay, eps, clip):
    agrees("adopt", lr=1e-2, weight_decay=0.1, decay=decay, eps=eps, clip=clip, beta2=0.99)


def test_clips_as_timm_does(agrees):
    agrees("adopt", lr=1e-2, clip_exponent=0.333)


def test_the_first_step_only_measures_the_second_moment():
    g = np.array([3.0, -2.0])
    step, exp_avg, exp_avg_sq = rules.get("adopt")(np.zeros(2), g, np.zeros(2), np.zeros(2), 1)
    assert not step.any()
    assert not exp_avg.any()
    assert exp_avg_sq.tolist() == [9.0, 4.0]
