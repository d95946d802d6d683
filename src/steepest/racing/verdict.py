"""What the finished runs allow to say about each pair of arms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, unit_of
from steepest.racing.words import (
    Words,
    about_losses,
    about_precision,
    about_progress,
    about_tuning,
    percent,
)
from steepest.stats import (
    Comparison,
    PairVerdict,
    decide_looks,
    floor_p,
    look_level,
    seeds_to_decide_at_all,
)

if TYPE_CHECKING:
    from steepest.racing.rows import TrialRow, TuningRow

__all__ = ["Sample", "SingleSeed", "Verdict", "judge", "power_note"]

ENDED = ("done", "diverged")
_TUPLES = ("seeds", "problems", "pair_sentences", "tuning_sentences", "sentences", "looks")


@dataclass(frozen=True)
class Sample:
    """What a verdict needs to know of a run.

    Attributes:
        arm: Label of its arm.
        seed: Its seed.
        status: As in the ledger.
        value: The deciding metric at the end; None where there is none.
        steps: Steps that it did.
        start_hash: Of what it started from.
        order_hash: Of the batches that it saw.
    """

    arm: str
    seed: int
    status: str
    value: float | None
    steps: int
    start_hash: str | None
    order_hash: str | None


@dataclass(frozen=True)
class SingleSeed:
    """What comparing one run with one run would have claimed, for every seed.

    Attributes:
        a: One arm.
        b: The other.
        a_ahead: Seeds on which a ended better.
        b_ahead: Seeds on which b ended better.
        ties: Seeds on which they ended equal.
        a_ahead_unpaired: Share of all pairs of runs, seeds mixed, in which a ended better.
        b_ahead_unpaired: Share in which b did.
    """

    a: str
    b: str
    a_ahead: int
    b_ahead: int
    ties: int
    a_ahead_unpaired: float
    b_ahead_unpaired: float


@dataclass(frozen=True)
class Verdict:
    """What was decided.

    Attributes:
        metric: What decided, such as ``test_accuracy``.
        higher_is_better: Of that metric.
        level: Confidence of all decisions together.
        seeds: Seeds on which all compared arms came to an end.
        pairs: One per pair of arms.
        single_seed: Per pair, what one seed would have claimed.
        problems: Why the verdict must not be relied on; empty if it may be.
        pair_sentences: What was found about the pairs, the decided ones first.
        tuning_sentences: How the settings came about: chosen ones, those at an end of their
            space, those that were given and not tuned.
        sentences: All that is to be said, the most important first.
        looks: How many seeds there were at each verdict so far. The error rate is spent look by
            look, so that ``level`` holds for all of them together and for those still to come.
    """

    metric: str
    higher_is_better: bool
    level: float
    seeds: tuple[int, ...]
    pairs: tuple[PairVerdict, ...]
    single_seed: tuple[SingleSeed, ...]
    problems: tuple[str, ...]
    pair_sentences: tuple[str, ...]
    tuning_sentences: tuple[str, ...]
    sentences: tuple[str, ...]
    looks: tuple[int, ...]

    @property
    def valid(self) -> bool:
        """Nothing is known that makes the comparison unfair."""
        return not self.problems

    @property
    def text(self) -> str:
        """The sentences as one paragraph."""
        return " ".join(self.sentences)

    def __str__(self) -> str:
        return self.text

    def pair(self, a: str, b: str) -> PairVerdict:
        """The verdict on two arms, in the order in which the race has them."""
        return next(p for p in self.pairs if {p.a, p.b} == {a, b})

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Verdict:
        """What `to_dict` wrote."""
        pairs = [{**p, "comparison": Comparison(**p["comparison"])} for p in body["pairs"]]
        return cls(
            **{
                **body,
                "pairs": tuple(PairVerdict(**pair) for pair in pairs),
                "single_seed": tuple(SingleSeed(**row) for row in body["single_seed"]),
                **{key: tuple(body[key]) for key in _TUPLES},
            }
        )


def judge(
    samples: Iterable[Sample],
    *,
    metric: str,
    higher_is_better: bool,
    level: float,
    min_effect: float,
    looks: Sequence[Sequence[int]] = (),
    tuning: TuningRow | None = None,
    trials: Sequence[TrialRow] = (),
    precision: str | None = None,
) -> Verdict:
    """Decide every pair of arms on the seeds that all of them finished.

    A run that diverged is finished, and worse than any value. Arms without any finished run (all
    failed, or the race is young) are left out and named.

    Args:
        samples: The final runs of the arms' settings.
        metric: What decides, such as ``test_accuracy``.
        higher_is_better: Of that metric.
        level: Confidence of all decisions together, of all looks.
        min_effect: The smallest difference that matters.
        looks: The seeds of every verdict so far, this one not included unless it has no new seed.
        tuning: How the arms were tuned, if they were.
        trials: Their settings.
        precision: What the runs computed in.
    """
    samples = list(samples)
    problems = _unequal(samples)
    worst = -math.inf if higher_is_better else math.inf
    values: dict[str, dict[int, float]] = {}
    for s in samples:
        by_seed = values.setdefault(s.arm, {})
        if s.status in ENDED:
            missing = s.value is None or not math.isfinite(s.value)
            by_seed[s.seed] = worst if missing else float(s.value or 0.0)
    absent = [arm for arm, by_seed in values.items() if not by_seed]
    present = {arm: by_seed for arm, by_seed in values.items() if by_seed}
    seeds = [s for s in dict.fromkeys(s.seed for s in samples) if _all_have(present, s)]
    seeds, counts, first_look = _look_by_look(seeds, looks)
    pairs: list[PairVerdict] = []
    if len(present) > 1 and seeds:
        pairs = decide_looks(
            {arm: np.array([by_seed[s] for s in seeds]) for arm, by_seed in present.items()},
            counts,
            first_look=first_look,
            higher_is_better=higher_is_better,
            level=level,
            min_effect=min_effect,
        )
    every = [v for by_seed in present.values() for v in by_seed.values() if math.isfinite(v)]
    words = Words(
        metric,
        level=level,
        pairs=len(pairs),
        look=first_look - 1 + len(counts),
        unit=unit_of(metric, every),
    )
    single_seed = tuple(
        _single_seed(a, b, present, seeds, higher_is_better=higher_is_better)
        for a, b in itertools.combinations(present if seeds else (), 2)
    )
    about_pairs = [
        words.pair(pair) + words.one_seed(single_seed)
        for pair in sorted(pairs, key=lambda p: p.decision == "undecided")
    ]
    of_tuning = about_tuning(tuning, trials)
    sentences = [
        *(f"This comparison is not fair: {problem}" for problem in problems),
        *about_progress(samples, tuning),
        *about_pairs,
        *words.lone(present, seeds),
        *about_losses(samples, absent),
        *of_tuning,
        *about_precision(precision),
    ]
    return Verdict(
        metric=metric,
        higher_is_better=higher_is_better,
        level=level,
        seeds=tuple(seeds),
        pairs=tuple(pairs),
        single_seed=single_seed,
        problems=tuple(problems),
        pair_sentences=tuple(about_pairs),
        tuning_sentences=tuple(of_tuning),
        sentences=tuple(sentences),
        looks=tuple(counts),
    )


def power_note(arms: int, seeds: int, *, level: float) -> str | None:
    """What must be said before a race that cannot decide anything; None if it can.

    The first look has two thirds of the error rate (see `steepest.stats.sequential`), shared by
    all pairs.

    >>> print(power_note(2, 3, level=0.95))
    3 seeds are too few to decide anything at the 95 % level: even if one arm wins on every seed,
    the adjusted p value is 0.38. At least 6 seeds are needed.
    >>> power_note(2, 6, level=0.95) is None
    True
    """
    pairs = arms * (arms - 1) // 2
    if pairs == 0:
        return None
    first = look_level(level, 1)
    needed = seeds_to_decide_at_all(first, pairs)
    if seeds >= needed:
        return None
    p = min(1.0, floor_p(seeds) * pairs * (1 - level) / (1 - first))
    every = "on every seed" if pairs == 1 else "against all others on every seed"
    return (
        f"{amount(seeds, 'seed')} {'is' if seeds == 1 else 'are'} too few to decide anything at "
        f"the {percent(level)} level: even if one arm wins {every}, the adjusted p value is "
        f"{p:.2g}. At least {needed} seeds are needed."
    )


def _look_by_look(
    seeds: Sequence[int], looks: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], int]:
    """Seeds in the order in which verdicts saw them, their number at each look, the first's number.

    If the arms that are compared have not all the seeds of the looks before (an arm that had
    failed was repaired), this look stands alone, with the share of the error rate that is left.
    """
    before = list(dict.fromkeys(seed for look in looks for seed in look))
    if not set(before) <= set(seeds):
        return list(seeds), [len(seeds)], len(looks) + 1
    new = [seed for seed in seeds if seed not in before]
    counts = [len(look) for look in looks]
    return [*before, *new], [*counts, *([len(seeds)] if new or not looks else [])], 1


def _unequal(samples: Sequence[Sample]) -> list[str]:
    """Seeds on which the arms did not start from the same weights, or saw other batches."""
    problems = []
    for seed in dict.fromkeys(s.seed for s in samples):
        runs = [s for s in samples if s.seed == seed]
        if len({s.start_hash for s in runs if s.start_hash}) > 1:
            problems.append(
                f"with seed {seed} the arms started from different weights; the model takes "
                "randomness from somewhere else than torch, numpy or random."
            )
        orders: dict[int, set[str]] = {}
        for s in runs:
            if s.order_hash:
                orders.setdefault(s.steps, set()).add(s.order_hash)
        if any(len(hashes) > 1 for hashes in orders.values()):
            problems.append(
                f"with seed {seed} the arms saw different batches; the data takes randomness from "
                "somewhere else than torch, numpy or random."
            )
    return problems


def _all_have(values: Mapping[str, Mapping[int, float]], seed: int) -> bool:
    return all(seed in by_seed for by_seed in values.values())


def _single_seed(
    a: str,
    b: str,
    values: Mapping[str, Mapping[int, float]],
    seeds: Sequence[int],
    *,
    higher_is_better: bool,
) -> SingleSeed:
    sign = 1 if higher_is_better else -1
    x = sign * np.array([values[a][s] for s in seeds])
    y = sign * np.array([values[b][s] for s in seeds])
    return SingleSeed(
        a=a,
        b=b,
        a_ahead=int((x > y).sum()),
        b_ahead=int((x < y).sum()),
        ties=int((x == y).sum()),
        a_ahead_unpaired=float((x[:, None] > y[None]).mean()),
        b_ahead_unpaired=float((x[:, None] < y[None]).mean()),
    )
