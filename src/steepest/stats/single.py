"""What comparing single runs would have claimed."""

# arms A, seeds R

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import sample

__all__ = ["OneSeed", "one_seed"]


@dataclass(frozen=True, kw_only=True)
class OneSeed:
    """What comparisons of one run per arm would have named as the winner.

    Attributes:
        best: The arm that all seeds together put first.
        seeds: How many comparisons on a common seed there are.
        named: By arm, on how many of them it ended best; arms that tie share the seed.
        wrong: Share of the seeds on which another arm than ``best`` would have been named.
        wrong_unpaired: The same where every arm has a seed of its own, over all such choices.
    """

    best: str
    seeds: int
    named: Mapping[str, float]
    wrong: float
    wrong_unpaired: float


def one_seed(values: Mapping[str, npt.ArrayLike], best: str, *, higher_is_better: bool) -> OneSeed:
    r"""How often a comparison of one run per arm would have named another arm than ``best``.

    On common seeds it is counted. With a seed of its own for every arm it is, over all choices,

    .. math:: 1 - \frac1R \sum_r \prod_{a \ne best}
        \Big( P(x_a < x_{best,r}) + \tfrac12 P(x_a = x_{best,r}) \Big)

    Args:
        values: Per arm the final metric on common seeds (R,); NaN or infinite where it diverged,
            which is worse than any value.
        best: The arm that the whole race puts first.
        higher_is_better: True for accuracies, False for losses.

    >>> claims = one_seed({"a": [3, 3, 1], "b": [2, 2, 2]}, "a", higher_is_better=True)
    >>> claims.named, round(claims.wrong, 2), round(claims.wrong_unpaired, 2)
    ({'a': 2.0, 'b': 1.0}, 0.33, 0.33)
    """
    sign = 1.0 if higher_is_better else -1.0
    arrays = {arm: sample(of, arm) for arm, of in values.items()}
    sizes = {arm: of.size for arm, of in arrays.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise InputError(f"one_seed: every arm needs a value on every seed, got {sizes}")
    if best not in arrays:
        raise InputError(f"one_seed: '{best}' is none of the arms {', '.join(arrays)}")
    quality = {arm: np.where(np.isfinite(of), sign * of, -np.inf) for arm, of in arrays.items()}
    table_AR = np.stack(list(quality.values()))
    top_AR = table_AR == table_AR.max(axis=0)
    share_AR = top_AR / top_AR.sum(axis=0)
    named = dict(zip(quality, share_AR.sum(axis=1).tolist(), strict=True))
    first_R = quality[best]
    ahead_R = np.ones_like(first_R)
    for arm, of in quality.items():
        if arm != best:
            below = (of[None] < first_R[:, None]).mean(axis=1)
            ahead_R *= below + 0.5 * (of[None] == first_R[:, None]).mean(axis=1)
    return OneSeed(
        best=best,
        seeds=int(first_R.size),
        named=named,
        wrong=1.0 - named[best] / first_R.size,
        wrong_unpaired=float(1.0 - ahead_R.mean()),
    )
