"""Looking again after more seeds, without paying for it in wrong decisions.

Whoever adds seeds until a test says "different" will always be told so in the end. The remedy is
to spend the error rate α in parts, one per look (alpha spending: Lan & DeMets, Biometrika 70:659,
1983). Look j spends two thirds of what the looks before have left:

    α_j = α (2/3) (1/3)^(j-1)        α_1 + α_2 + … = α

The parts add up to α for any number of looks, taken whenever the user likes (also because of what
was seen), since the chance of any wrong decision is at most the sum of the looks' chances: no
joint distribution, no maximum number of seeds has to be known. The intervals of all looks hold
together with probability >= 1 - α (repeated confidence intervals: Jennison & Turnbull, JRSS B
51:305, 1989), so the verdict is read off their intersection: what was decided stays decided, and
decision and interval cannot contradict each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy.typing as npt

from steepest.errors import InputError
from steepest.stats._checks import check_level, sample
from steepest.stats.verdict import Comparison, Decision, PairVerdict, decide_all

__all__ = ["decide_looks", "look_level"]

_SHARE = 2 / 3  # of what is left; the first look then still decides two arms from 6 seeds at 95 %


def look_level(level: float, look: int) -> float:
    """The level at which look number ``look`` (from 1) is decided, so that all keep ``level``.

    >>> [round(look_level(0.95, look), 4) for look in (1, 2, 3)]
    [0.9667, 0.9889, 0.9963]
    """
    if look < 1:
        raise InputError(f"looks are counted from 1, got look {look}")
    return 1 - check_level(level) * _SHARE * (1 - _SHARE) ** (look - 1)


def decide_looks(
    samples: Mapping[str, npt.ArrayLike],
    looks: Sequence[int],
    *,
    higher_is_better: bool,
    level: float = 0.95,
    min_effect: float = 0.0,
    first_look: int = 1,
    seed: int = 0,
) -> list[PairVerdict]:
    """The verdict after several looks: `decide_all` under alpha spending.

    Args:
        samples: Per arm one number per seed, in the order in which the seeds were run.
        looks: How many seeds there were at each look, rising; the last is all of them.
        higher_is_better: True for accuracies, False for losses.
        level: One minus the risk of any wrong decision, over all pairs and all looks, also those
            still to come.
        min_effect: Smallest difference that matters.
        first_look: The number of the first of these looks, from 1: more where there were looks
            before them that are not repeated here.
        seed: Of the Monte-Carlo samples past 2^20 sign patterns.

    Returns:
        One verdict per pair. The comparison is that of the last look, with the intersection of
        all looks' intervals, at ``level``; ``p_adjusted`` is the smallest over the looks, each
        multiplied by α/α_j; ``seeds_needed`` is for one more look, at its stricter level.

    >>> a = [0.99, 0.98, 0.99, 0.99, 0.98, 0.99, 0.99, 0.98, 0.99]
    >>> b = [0.97, 0.97, 0.96, 0.97, 0.97, 0.96, 0.97, 0.98, 0.97]
    >>> [v.decision for v in decide_looks({"a": a, "b": b}, [4, 9], higher_is_better=True)]
    ['better']
    """
    alpha = check_level(level)
    arrays = {label: sample(values, label) for label, values in samples.items()}
    sizes = {label: values.size for label, values in arrays.items()}
    rising = all(n < later for n, later in itertools.pairwise(looks))
    if not looks or looks[0] < 1 or not rising or set(sizes.values()) != {looks[-1]}:
        raise InputError(
            f"looks must be rising seed counts of which the last is all seeds of every arm; "
            f"got looks {list(looks)} and runs {sizes}"
        )

    def decide(n: int, look: int) -> list[PairVerdict]:
        return decide_all(
            {label: values[:n] for label, values in arrays.items()},
            higher_is_better=higher_is_better,
            level=look_level(level, look),
            min_effect=min_effect,
            seed=seed,
        )

    seen = [decide(n, look) for look, n in enumerate(looks, start=first_look)]
    following = decide(looks[-1], first_look + len(looks))
    final = []
    for of_pair, ahead in zip(zip(*seen, strict=True), following, strict=True):
        comparison = _intersection([verdict.comparison for verdict in of_pair], level)
        p_adjusted = min(
            verdict.p_adjusted * alpha / (1 - look_level(level, look))
            for look, verdict in enumerate(of_pair, start=first_look)
        )
        sign = comparison.direction * (1 if higher_is_better else -1)
        decision: Decision = "better" if sign > 0 else "worse" if sign < 0 else "undecided"
        needed = comparison.n if sign else ahead.comparison.seeds_needed
        final.append(
            PairVerdict(
                a=ahead.a,
                b=ahead.b,
                comparison=replace(comparison, seeds_needed=needed),
                p_adjusted=min(1.0, p_adjusted),
                decision=decision,
            )
        )
    return final


def _intersection(looks: Sequence[Comparison], level: float) -> Comparison:
    """The last look with the intersection of all intervals; their hull where that is empty.

    Intervals of two looks that do not meet mean that the seeds are not of one kind (somebody
    changed something in between): then nothing is claimed that one of them denies.
    """
    low, high = max(c.low for c in looks), min(c.high for c in looks)
    if low > high:
        low, high = min(c.low for c in looks), max(c.high for c in looks)
    return replace(looks[-1], low=low, high=high, level=level)
