"""What the finished runs allow to say, in numbers and in plain words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steepest.numbers import Unit, amount, unit_of
from steepest.stats import Comparison, PairVerdict, decide_all, floor_p, seeds_to_decide_at_all

__all__ = ["Sample", "SingleSeed", "Verdict", "judge", "power_note"]

ENDED = ("done", "diverged")


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
        sentences: What was found, the most important first.
    """

    metric: str
    higher_is_better: bool
    level: float
    seeds: tuple[int, ...]
    pairs: tuple[PairVerdict, ...]
    single_seed: tuple[SingleSeed, ...]
    problems: tuple[str, ...]
    sentences: tuple[str, ...]

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
                "seeds": tuple(body["seeds"]),
                "pairs": tuple(PairVerdict(**pair) for pair in pairs),
                "single_seed": tuple(SingleSeed(**row) for row in body["single_seed"]),
                "problems": tuple(body["problems"]),
                "sentences": tuple(body["sentences"]),
            }
        )


def judge(
    samples: Iterable[Sample],
    *,
    metric: str,
    higher_is_better: bool,
    level: float,
    min_effect: float,
) -> Verdict:
    """Decide every pair of arms on the seeds that all of them finished.

    A run that diverged is finished, and worse than any value. Arms without any finished run (all
    failed, or the race is young) are left out and named.
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
    pairs: list[PairVerdict] = []
    if len(present) > 1 and seeds:
        pairs = decide_all(
            {arm: np.array([by_seed[s] for s in seeds]) for arm, by_seed in present.items()},
            higher_is_better=higher_is_better,
            level=level,
            min_effect=min_effect,
        )
    every = [v for by_seed in present.values() for v in by_seed.values() if math.isfinite(v)]
    words = _Words(
        metric,
        level=level,
        pairs=len(pairs),
        unit=unit_of(metric, every),
    )
    single_seed = tuple(
        _single_seed(a, b, present, seeds, higher_is_better=higher_is_better)
        for a, b in itertools.combinations(present if seeds else (), 2)
    )
    sentences = [
        *(f"This comparison is not fair: {problem}" for problem in problems),
        *_progress(samples),
        *(
            words.pair(pair) + words.one_seed(single_seed)
            for pair in sorted(pairs, key=lambda p: p.decision == "undecided")
        ),
        *words.lone(present, seeds),
        *_lost(samples, absent),
    ]
    return Verdict(
        metric=metric,
        higher_is_better=higher_is_better,
        level=level,
        seeds=tuple(seeds),
        pairs=tuple(pairs),
        single_seed=single_seed,
        problems=tuple(problems),
        sentences=tuple(sentences),
    )


def power_note(arms: int, seeds: int, *, level: float) -> str | None:
    """What must be said before a race that cannot decide anything; None if it can.

    >>> print(power_note(2, 3, level=0.95))
    3 seeds are too few to decide anything at the 95 % level: even if one arm wins on every seed, p
    is 0.25. At least 6 seeds are needed.
    >>> power_note(2, 6, level=0.95) is None
    True
    """
    pairs = arms * (arms - 1) // 2
    if pairs == 0:
        return None
    needed = seeds_to_decide_at_all(level, pairs)
    if seeds >= needed:
        return None
    several = f" times {pairs} pairs (Holm)" if pairs > 1 else ""
    return (
        f"{amount(seeds, 'seed')} {'is' if seeds == 1 else 'are'} too few to decide anything at "
        f"the {_percent(level)} level: even if one arm wins on every seed, p is "
        f"{floor_p(seeds):.3g}{several}. At least {needed} seeds are needed."
    )


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


def _progress(samples: Sequence[Sample]) -> list[str]:
    ended = sum(s.status in (*ENDED, "failed") for s in samples)
    if ended == len(samples):
        return []
    return [f"The race is not finished ({ended} of {len(samples)} runs): this is how it stands."]


def _lost(samples: Sequence[Sample], absent: Sequence[str]) -> list[str]:
    sentences = []
    for arm in dict.fromkeys(s.arm for s in samples):
        runs = [s for s in samples if s.arm == arm]
        diverged = [s for s in runs if s.status == "diverged"]
        failed = [s for s in runs if s.status == "failed"]
        if diverged:
            which = "on every seed" if len(diverged) == len(runs) else "with " + _seeds(diverged)
            sentences.append(
                f"{arm} diverged {which}; that counts as worse than any value, and its mean is "
                "over the other runs."
                if len(diverged) < len(runs)
                else f"{arm} diverged {which}; that counts as worse than any value."
            )
        if failed:
            sentences.append(f"{arm} failed with {_seeds(failed)}; see the events of the race.")
        elif arm in absent and any(s.status in ENDED for s in samples):
            sentences.append(f"{arm} has no finished run yet, so it is not compared.")
    return sentences


def _seeds(runs: Sequence[Sample]) -> str:
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(s.seed) for s in runs)}"


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


class _Words:
    """How numbers of one metric are put into sentences."""

    def __init__(self, metric: str, *, level: float, pairs: int, unit: Unit) -> None:
        split, _, name = metric.partition("_")
        self.metric = f"{ {'val': 'validation', 'train': 'training'}.get(split, split) } {name}"
        self.level = level
        self.n_pairs = pairs
        self.unit = unit

    def pair(self, pair: PairVerdict) -> str:
        """One sentence or two about a pair."""
        c = pair.comparison
        if c.identical and c.n > 1 and not c.diverged_a:
            return (
                f"{pair.a} and {pair.b} ended with exactly the same {self.metric} on every seed: "
                "they are probably the same thing under two names."
            )
        if pair.decision == "undecided":
            return self._undecided(pair)
        better, worse = (pair.a, pair.b) if pair.decision == "better" else (pair.b, pair.a)
        return f"{better} is better than {worse} in {self.metric}: {self._numbers(pair)}."

    def _undecided(self, pair: PairVerdict) -> str:
        c = pair.comparison
        seeds = amount(c.n, "seed")
        found = (
            f"{pair.a} and {pair.b} cannot be told apart in {self.metric} with {seeds}: "
            f"{self._numbers(pair)}."
        )
        if c.negligible:
            limit = self.unit.difference(c.min_effect).lstrip("+")
            return f"{found} Any difference is below {limit}, the smallest that matters here."
        needed = seeds_to_decide_at_all(self.level, self.n_pairs)
        more = None if c.seeds_needed is None else max(c.seeds_needed, needed) - c.n
        enough = f"about {amount(more, 'more seed')} would decide" if more and more > 0 else ""
        if c.n < needed:
            times = f" (times {self.n_pairs} pairs)" if self.n_pairs > 1 else ""
            then = enough or f"at least {needed} seeds are needed"
            return (
                f"{found} With {seeds} even a perfect record gives p = {floor_p(c.n):.3g}{times}; "
                f"{then}."
            )
        if enough:
            return f"{found} If the difference is what it seems, {enough}."
        return f"{found} No reasonable number of seeds would decide."

    def one_seed(self, pairs: Sequence[SingleSeed]) -> str:
        """What a write-up with one run of each arm would have claimed, where there are two arms."""
        if len(pairs) != 1 or not (pairs[0].a_ahead and pairs[0].b_ahead):
            return ""
        (one,) = pairs
        ties = f" and neither on {one.ties}" if one.ties else ""
        return (
            f" A comparison on one seed would have named {one.a} on "
            f"{amount(one.a_ahead, 'seed')}, {one.b} on {one.b_ahead}{ties}."
        )

    def lone(self, values: Mapping[str, Mapping[int, float]], seeds: Sequence[int]) -> list[str]:
        """What is said where there is nothing to compare with."""
        if len(values) != 1 or not seeds:
            return []
        ((arm, by_seed),) = values.items()
        finite = [v for v in by_seed.values() if math.isfinite(v)]
        if not finite:
            return []
        spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
        mean = self.unit.value(float(np.mean(finite)), spread)
        text = f"{arm} ends with a {self.metric} of {mean}"
        over = f" on average over {len(finite)} seeds" if len(finite) > 1 else " on its one seed"
        return [f"{text}{over}; there is no other arm to compare it with."]

    def _numbers(self, pair: PairVerdict) -> str:
        """The pair's numbers, in the order in which the sentence names the arms."""
        c = pair.comparison
        width = (c.high - c.low) / 2 if math.isfinite(c.high - c.low) else abs(c.difference)
        p = f"{'Holm-adjusted ' if self.n_pairs > 1 else ''}p = {pair.p_adjusted:.2g}"
        sides = [
            self._side(c.mean_a, c.diverged_a, c.n, width),
            self._side(c.mean_b, c.diverged_b, c.n, width),
        ]
        difference, low, high = c.difference, c.low, c.high
        if pair.decision == "worse":
            sides.reverse()
            difference, low, high = -difference, -high, -low
        means = " against ".join(sides)
        if c.diverged_a or c.diverged_b:
            return f"{means}, {p}"
        text = self.unit.difference(difference, low, high)
        if math.isfinite(low) and math.isfinite(high):
            text += f" ({_percent(c.level)} interval {self.unit.interval(low, high)})"
        return f"{means}, difference {text}, {p}"

    def _side(self, mean: float, diverged: int, n: int, width: float) -> str:
        if diverged == n:
            return "diverged on every seed"
        lost = f" ({diverged} of {n} seeds diverged)" if diverged else ""
        return f"{self.unit.value(mean, width)}{lost}"


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"
