"""What is decided, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import Unit, amount
from steepest.stats import PairVerdict, floor_p, look_level, seeds_to_decide_at_all
from steepest.values import write_value

if TYPE_CHECKING:
    from steepest.racing.rows import TrialRow, TuningRow
    from steepest.racing.verdict import Sample, SingleSeed

__all__ = [
    "PRECISIONS",
    "Words",
    "about_losses",
    "about_precision",
    "about_progress",
    "about_tuning",
    "metric_words",
    "percent",
    "setting_words",
]

PRECISIONS = {
    "float32": "IEEE float32, in products of matrices and in convolutions",
    "tf32": "matrices and convolutions were multiplied with 10 bits of each factor's mantissa, "
    "all else was float32",
    "bf16": "forward pass and loss under autocast to bfloat16, with weights, gradients and the "
    "optimizer's state in float32",
}
"""What each precision is."""


class Words:
    """How numbers of one metric are put into sentences.

    Args:
        metric: What decides, such as ``test_accuracy``.
        level: Confidence of all decisions together.
        pairs: How many there are.
        look: Of how many verdicts on more and more seeds this is the last one.
        unit: Of the metric.
    """

    def __init__(self, metric: str, *, level: float, pairs: int, look: int, unit: Unit) -> None:
        self.metric = metric_words(metric)
        self.level = level
        self.n_pairs = pairs
        self.look = look
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
        needed = self._needed(self.look)
        following = self._needed(self.look + 1)  # whoever adds seeds looks once more
        more = None if c.seeds_needed is None else max(c.seeds_needed, following) - c.n
        enough = f"about {amount(more, 'more seed')} would decide" if more and more > 0 else ""
        if c.n < needed:
            p = floor_p(c.n) * self.n_pairs * (1 - self.level) / (1 - self._level(self.look))
            return (
                f"{found} With {seeds} even a perfect record gives an adjusted p of "
                f"{min(1.0, p):.2g}; {enough or f'at least {following} seeds are needed'}."
            )
        if enough:
            return f"{found} If the difference is what it seems, {enough}."
        return f"{found} No reasonable number of seeds would decide."

    def _level(self, look: int) -> float:
        return look_level(self.level, look)

    def _needed(self, look: int) -> int:
        return seeds_to_decide_at_all(self._level(look), self.n_pairs)

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
        p = f"adjusted p = {pair.p_adjusted:.2g}"
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
            text += f" ({percent(c.level)} interval {self.unit.interval(low, high)})"
        return f"{means}, difference {text}, {p}"

    def _side(self, mean: float, diverged: int, n: int, width: float) -> str:
        if diverged == n:
            return "diverged on every seed"
        lost = f" ({diverged} of {n} seeds diverged)" if diverged else ""
        return f"{self.unit.value(mean, width)}{lost}"


def about_progress(samples: Sequence[Sample], tuning: TuningRow | None) -> list[str]:
    """That the race is not finished, if it is not."""
    if tuning is not None and not tuning.over:
        return ["The race is in its tuning stage: there is nothing to compare yet."]
    ended = sum(s.status in ("done", "diverged", "failed") for s in samples)
    if ended == len(samples):
        return []
    return [f"The race is not finished ({ended} of {len(samples)} runs): this is how it stands."]


def about_losses(samples: Sequence[Sample], absent: Sequence[str]) -> list[str]:
    """Arms with runs of the final stage that diverged or failed."""
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
        elif arm in absent and any(s.status in ("done", "diverged") for s in samples):
            sentences.append(f"{arm} has no finished run yet, so it is not compared.")
    return sentences


def about_tuning(tuning: TuningRow | None, trials: Sequence[TrialRow]) -> list[str]:
    """How the settings of the final stage came about, and what makes them doubtful."""
    if tuning is None or not tuning.over:
        return []
    total = next(iter(tuning.trials_per_arm.values()))
    steps = next(iter(tuning.steps_per_arm.values()))
    said = [
        f"Each tuned arm had {amount(total, 'trial')} ({tuning.method}) and {steps:,} steps for "
        f"them, with {amount(len(tuning.seeds), 'tuning seed')}; the best one by "
        f"{metric_words(tuning.metric)} went on to fresh seeds."
    ]
    said += [
        f"{trial.arm} was tuned to {setting_words(trial.searched)}."
        for trial in trials
        if trial.selected and trial.role == "candidate"
    ]
    said += _edges(tuning, trials)
    said += _lost_trials(tuning, trials)
    given = [trial.arm for trial in trials if trial.role == "fixed"]
    if given:
        one = len(given) == 1
        said.append(
            f"{', '.join(given)} {'was' if one else 'were'} given, not tuned: the comparison is "
            f"about {'this setting' if one else 'these settings'}, not about the best that "
            f"{'this optimizer' if one else 'these optimizers'} can do."
        )
    return said


def about_precision(name: str | None) -> list[str]:
    """What the runs computed in, unless it is float32.

    >>> about_precision("float32"), len(about_precision("bf16"))
    ([], 1)
    """
    if name is None or name == "float32":
        return []
    return [f"All runs computed in {name}: {PRECISIONS[name]}."]


def _edges(tuning: TuningRow | None, trials: Sequence[TrialRow]) -> list[str]:
    """Arms that were tuned to an end of their space, where a better setting may lie beyond."""
    said = []
    for trial in trials:
        if tuning is not None and trial.edges:
            rounds = tuning.rounds - 1
            times = f", although the spaces were widened {rounds} times" if rounds else ""
            said.append(
                f"Warning: {trial.arm} may be better than it looks here: its "
                f"{' and its '.join(trial.edges)}{times}. Widen its range (or pass --widen) "
                "before you rely on what is said about it."
            )
    return said


def _lost_trials(tuning: TuningRow, trials: Sequence[TrialRow]) -> list[str]:
    said = []
    for arm, total in tuning.trials_per_arm.items():
        lost = [t for t in trials if t.arm == arm and t.role == "candidate"]
        for count, word in (
            (sum(t.diverged > 0 for t in lost), "diverged"),
            (sum(t.failed > 0 for t in lost), "failed"),
        ):
            if count:
                which = "Every" if count == total else f"{count} of {total}"
                said.append(f"{which} {'trial' if count == total else 'trials'} of {arm} {word}.")
    return said


def setting_words(values: Mapping[str, Any]) -> str:
    """Values as they are written in an arm.

    >>> setting_words({"lr": 0.003, "beta1": 0.9})
    'lr=0.003, beta1=0.9'
    """
    return ", ".join(f"{name}={write_value(value)}" for name, value in values.items())


def metric_words(key: str) -> str:
    """The key of a value in words.

    >>> metric_words("test_accuracy"), metric_words("val_loss")
    ('test accuracy', 'validation loss')
    """
    split, _, name = key.partition("_")
    return f"{ {'val': 'validation', 'train': 'training'}.get(split, split) } {name}"


def percent(level: float) -> str:
    """A level in words.

    >>> percent(0.95)
    '95 %'
    """
    return f"{100 * level:.4g} %"


def _seeds(runs: Sequence[Sample]) -> str:
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(s.seed) for s in runs)}"
