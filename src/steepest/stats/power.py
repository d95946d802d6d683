"""How many seeds it takes to find a difference of a given size."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["SEED_CAP", "seeds_for_power"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_SMOOTH = 30  # seeds; below, the sign-flip test's levels are coarse

SEED_CAP = 1000
"""More seeds than this are "not with any reasonable number"."""


def seeds_for_power(
    effect: float, *, alpha: float = 0.05, power: float = 0.8, cap: int = SEED_CAP
) -> int | None:
    r"""The number of seeds with which a difference of this size is found, with this probability.

    .. math::
        \min n: \; P\big(T_{n-1}(\delta\sqrt n) > t_{n-1,\,1-\alpha_n/2}\big) \ge \text{power},
        \qquad \alpha_n = \lfloor \alpha 2^{n-1} \rfloor / 2^{n-1}

    with T the non-central t distribution and α_n the level that a sign-flip test of n differences
    really has. Where α_n is its floor, 2/2^n, all signs must agree: Φ(δ)^n. In between, one more
    seed makes up for the coarse steps of the permutation distribution (checked by simulation).

    Args:
        effect: The mean difference in units of the differences' standard deviation (its sign
            does not matter); the part beyond the smallest difference that matters.
        alpha: Two-sided error rate of this comparison, after Holm.
        power: Probability of finding it.
        cap: None is returned where more than this would be needed.

    >>> seeds_for_power(1.0), seeds_for_power(0.5), seeds_for_power(0.05)
    (11, 34, None)
    """
    from scipy.special import ndtri

    effect = abs(effect)
    if not effect > 0:
        return None
    by_normal_theory = ((ndtri(1 - alpha / 2) + ndtri(power)) / effect) ** 2
    if by_normal_theory > cap:  # which is a lower bound
        return None
    ns = np.arange(2, min(cap, int(1.5 * by_normal_theory) + 50) + 1)
    halves = 2.0 ** (np.minimum(ns, _SMOOTH) - 1)  # from there on the steps are too fine to matter
    tails = np.floor(alpha * halves * (1 + 1e-12))
    unanimous = (0.5 * math.erfc(-effect / math.sqrt(2))) ** ns
    found = np.where(tails > 1, _t_power(effect, ns, tails / halves), np.where(tails, unanimous, 0))
    enough = np.flatnonzero(found >= power)
    return int(ns[enough[0]]) if enough.size else None


def _t_power(effect: float, ns: IntArray, alphas: FloatArray) -> FloatArray:
    from scipy.special import nctdtr, stdtrit

    sizes = np.maximum(ns - (ns < _SMOOTH), 2)
    shift = np.sqrt(sizes) * effect
    sure = shift > 30  # beyond the range of the non-central t distribution
    critical = stdtrit(sizes - 1, 1 - np.maximum(alphas, 1e-15) / 2)
    return np.where(sure, 1.0, 1 - nctdtr(sizes - 1, np.where(sure, 0.0, shift), critical))
