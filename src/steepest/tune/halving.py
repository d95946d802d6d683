r"""Successive halving: many settings for a short while, the better ones for longer.

n      settings in the first rung
R      steps of a whole run
η      each rung keeps one setting in η and trains it η times as long
K      rungs

Rung k = 0 … K-1 trains :math:`n_k = \lfloor n / \eta^k \rfloor` settings for
:math:`r_k = \lceil R / \eta^{K-1-k} \rceil` steps, so that the last one has the whole length.
Every rung begins again from the start, with the schedule compressed to its length: a run that is
cut off in the middle of its schedule is compared at a learning rate that it would not end with,
which favours settings that are quick at first. Hence the cost of an arm with S tuning seeds,

.. math:: S \sum_{k=0}^{K-1} n_k r_k \quad(\approx S\,K\,n R / \eta^{K-1}),

the same for every arm, because it depends on n, R and η only.

Jamieson & Talwalkar, AISTATS 2016 (arXiv:1502.07943); Li et al., "Hyperband", JMLR 18 (2018),
whose runs go on instead of starting again. Starting again costs at most
:math:`\eta / (\eta - 1)` times as much per surviving setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steepest.errors import InputError
from steepest.tune._checks import whole
from steepest.tune.select import ranked

__all__ = ["ETA", "MIN_STEPS", "Rung", "promote", "rungs", "total_steps"]

ETA = 3
"""Hyperband's authors: 3 or 4 (arXiv:1603.06560, section 2.3)."""

MIN_STEPS = 10
"""Of the first rung: a shorter run has no room for a warmup and a decay."""


@dataclass(frozen=True)
class Rung:
    """One round of successive halving.

    Attributes:
        trials: How many settings are trained in it.
        steps: How long each.
    """

    trials: int
    steps: int


def rungs(
    trials: int, steps: int, *, eta: int = ETA, min_steps: int = MIN_STEPS
) -> tuple[Rung, ...]:
    """The rounds of successive halving, the first one first.

    Args:
        trials: Settings in the first rung, >= eta.
        steps: Of a whole run, which is that of the last rung.
        eta: Share of settings that a rung keeps, 1 in ``eta``, and growth of the length; >= 2.
        min_steps: Of the first rung; there are fewer rungs where it would be shorter.

    Raises:
        InputError: If there are too few trials or steps for two rungs.

    >>> rungs(16, 900)
    (Rung(trials=16, steps=100), Rung(trials=5, steps=300), Rung(trials=1, steps=900))
    >>> total_steps(rungs(16, 900)), 16 * 900      # what 16 whole runs would take
    (4000, 14400)
    >>> rungs(2, 900)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: halving needs at least 3 trials (eta), got 2; ask for more, or ...
    """
    for name, value, least in (("eta", eta, 2), ("min_steps", min_steps, 1), ("steps", steps, 1)):
        whole(name, value, least=least)
    whole("the number of trials", trials)
    if trials < eta:
        raise InputError(
            f"halving needs at least {eta} trials (eta), got {trials}; ask for more, or use "
            "sobol, which trains every setting for the whole length"
        )
    count = 1
    while trials // eta**count >= 1 and steps >= min_steps * eta**count:
        count += 1
    if count == 1:
        raise InputError(
            f"halving needs runs of at least {min_steps * eta} steps (eta × min_steps), got "
            f"{steps}; train for longer, or use sobol"
        )
    return tuple(
        Rung(trials // eta**k, math.ceil(steps / eta ** (count - 1 - k))) for k in range(count)
    )


def total_steps(plan: Sequence[Rung]) -> int:
    """Steps of all rungs together, for one tuning seed."""
    return sum(rung.trials * rung.steps for rung in plan)


def promote(
    scores: Sequence[Sequence[float | None]], keep: int, *, higher_is_better: bool
) -> tuple[int, ...]:
    """Which settings go on to the next rung, in their old order.

    By the mean over the tuning seeds; a setting with a failed run comes after all without, and of
    equals the lower number goes on. There are always ``keep`` of them, so that every arm's rungs
    are those of the plan.

    Args:
        scores: Per setting its scores, one per tuning seed; None or not finite: failed.
        keep: How many, from 1 to their number.
        higher_is_better: Which side is good.

    >>> promote([[0.5], [0.9], [None], [0.7]], 2, higher_is_better=True)
    (1, 3)
    """
    if not 1 <= keep <= len(scores):
        raise InputError(f"keep must be from 1 to {len(scores)} (settings), got {keep}")
    return tuple(sorted(ranked(scores, higher_is_better=higher_is_better)[:keep]))
