"""Steps 4 to 7: from a coarse grid to a setting that one can believe in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steepest.diagnosing import look
from steepest.numbers import amount
from steepest.racing.result import Result
from steepest.recipes.kitchen import (
    Kitchen,
    affordable,
    beats_nothing,
    curve_line,
    epochs_words,
    labels_of,
    metric_of,
    metric_words,
    ranking,
    score_of,
    setting_words,
    unit_for,
)
from steepest.recipes.records import Chart, Line, Record
from steepest.recipes.trials import Pattern, scores
from steepest.stats import mean_interval

__all__ = ["coarse_grid", "listen", "longer", "refine"]

FIRST_FRESH_SEED = 1000  # of the last measurement: seeds that no step before has seen


# --- 4 and 5 --------------------------------------------------------------------------------------


def coarse_grid(k: Kitchen) -> Record:
    """Rates around the best one, with weight decays, for one to five epochs."""
    best, edge = k.number(3, "lr"), k.number(3, "edge")
    rates = [lr for f in (0.1, 10**-0.5, 1.0, 10**0.5) if (lr := best * f) < (edge or math.inf)]
    settings = [(float(f"{lr:.3g}"), decay) for lr in rates for decay in k.pattern.decay_values]
    per_epoch = k.number(3, "steps_per_epoch")
    steps = affordable(k, 0.25, len(settings), per_epoch, most=2.0)
    arms = {k.pattern.at(lr, decay): (lr, decay) for lr, decay in settings}
    found = k.race("4-grid", list(arms), steps=steps, evaluations=2)
    steps = found.steps
    order = ranking(found.result, arms)
    metric, unit = metric_words(found.result), unit_for(found.result)
    lines = tuple(
        Line(
            "no decay setting" if decay is None else f"weight_decay={decay:g}",
            rates, [score_of(order, (float(f"{lr:.3g}"), decay)) for lr in rates],
        )
        for decay in k.pattern.decay_values
    )  # fmt: skip
    top = order[0]
    passed = math.isfinite(top[1]) and beats_nothing(k, found.result, top[2])
    return Record(
        step=4,
        passed=passed,
        sentence=f"{amount(len(settings), 'setting')} for {epochs_words(steps, per_epoch)}: "
        f"{setting_words(top[0])} is best, with a {metric} of {unit.value(top[1])}.",
        advice=() if passed else (
            "No setting is better than a prediction that ignores the inputs: do validation targets "
            "belong to their inputs, and do both splits come from one source?",
        ),
        chart=Chart("learning rate", metric, lines, log_x=True),
        numbers={
            "ranked": [[*setting, score] for setting, score, _ in order[:3]],
            "steps": steps, "step_seconds": found.step_seconds,
        },
    )  # fmt: skip


def longer(k: Kitchen) -> Record:
    """The best few; the rate is not lowered, so that the curves show what is missing."""
    few = [(lr, decay) for lr, decay, _ in k.number(4, "ranked")]
    per_epoch = k.number(3, "steps_per_epoch")
    steps = max(k.number(4, "steps"), affordable(k, 0.3, len(few), per_epoch, most=8.0))
    arms = {k.pattern.at(lr, decay): (lr, decay) for lr, decay in few}
    found = k.race("5-longer", list(arms), steps=steps)
    steps = found.steps
    order = ranking(found.result, arms)
    top, before = order[0], k.number(4, "ranked")[0][2]
    metric, unit = metric_words(found.result), unit_for(found.result)
    passed = math.isfinite(top[1])
    seen = found.result.evaluations("val", metric_of(found.result))
    lines = tuple(
        curve_line(setting_words(arms[text]), *seen[label, 0])
        for label, text in zip(labels_of(found), arms, strict=True)
    ) if k.task.val is not None else ()  # fmt: skip
    return Record(
        step=5,
        passed=passed,
        sentence=f"{epochs_words(steps, per_epoch)} without lowering the rate: "
        f"{setting_words(top[0])} reaches a {metric} of {unit.value(top[1])}, after "
        f"{unit.value(before)} in the coarse grid.",
        advice=() if passed else (
            "Every run failed or blew up on the longer way: lower the rate, add a warmup or clip "
            "the gradient's norm.",
        ),
        chart=Chart("steps", metric, lines),
        numbers={
            "best": [*top[0], top[1]], "steps": steps, "label": top[2],
            "step_seconds": found.step_seconds,
        },
    )  # fmt: skip


# --- 6 ------------------------------------------------------------------------------------------


def listen(k: Kitchen) -> Record:
    """`diagnose` on the longer runs; what it finds decides what is refined."""
    result = Result(k.folder / "5-longer")
    value = k.expected.constant
    found = look(result, baseline=value if value > 0 else None)
    group = next(g for g in found.groups if g.name == k.number(5, "label"))
    kinds = list(group.counts)
    fatal = [f for f, _ in group.shared if f.kind in ("exploding", "never_learning")]
    lines = [f"{finding.title}: {finding.evidence}" for finding, _ in group.shared]
    sentence = " ".join(lines) or "Nothing to report on the best run: it is healthy."
    advice = tuple(f.advice for f, _ in group.shared)
    return Record(
        step=6, passed=not fatal, sentence=sentence, advice=advice,
        numbers={"kinds": kinds, "race": "5-longer"},
    )  # fmt: skip


# --- 7 ------------------------------------------------------------------------------------------


def refine(k: Kitchen) -> Record:
    """Round by round around the best, two seeds each; then fresh seeds, and the test set once."""
    lr, decay, _ = k.number(5, "best")
    kinds = k.number(6, "kinds")
    per_epoch, cost = k.number(3, "steps_per_epoch"), k.number(5, "step_seconds")
    tries = 4
    runs = tries * 2 + k.seeds
    steps = int(np.clip(0.9 * k.left / (runs * cost), max(1, 0.1 * per_epoch), 12 * per_epoch))
    longest = 2 * k.number(5, "steps") if "still_improving" in kinds else None
    steps = min(steps, max(longest or 0, k.number(5, "steps"), per_epoch))
    schedule = "cosine(warmup=0.05)"
    best: tuple[float, float | None, str] = (lr, decay, schedule)
    known: dict[tuple[float, float | None, str], list[float]] = {}
    history: list[tuple[str, float, float]] = []
    sign = 1.0
    for number in range(1, 4):
        around = [s for s in _around(best, k.pattern, kinds, first=number == 1) if s not in known]
        if not around or (number > 1 and k.left < cost * steps * (2 * len(around) + k.seeds)):
            break
        arms = {k.pattern.at(s[0], s[1], s[2]): s for s in around}
        found = k.race(f"7-refine-{number}", list(arms), steps=steps, seeds=(1, 2), evaluations=2)
        steps = found.steps
        sign = 1.0 if found.result.higher_is_better else -1.0
        held = scores(found.result)
        for label, text in zip(labels_of(found), arms, strict=True):
            known[arms[text]] = held[label]
        order = sorted(known, key=lambda s: -_mean(known[s], sign))
        noise = _seed_noise(known)
        gained = sign * (np.mean(known[order[0]]) - np.mean(known.get(best, [math.nan])))
        history.append((setting_words(order[0]), float(np.mean(known[order[0]])), noise))
        improved = order[0] != best and (number == 1 or gained > noise)
        best = order[0] if improved else best
        if not improved:
            break
    fresh = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + k.seeds)
    arm = k.pattern.at(*best)
    final = k.race("7-final", [arm], steps=steps, seeds=fresh, evaluations=2, task=k.task)
    values = np.array([v for v in next(iter(scores(final.result).values())) if math.isfinite(v)])
    unit, metric = unit_for(final.result), metric_words(final.result)
    passed = len(values) == k.seeds
    mean, low, high = mean_interval(values, 0.95) if len(values) else (math.nan,) * 3
    sentence = (
        f"{arm} for {epochs_words(steps, per_epoch)} reaches a {metric} of "
        f"{unit.mean(mean, low, high)} on {amount(k.seeds, 'fresh seed')}, found in "
        f"{amount(len(history), 'round')} of refining."
    )
    rounds = [float(n) for n in range(1, len(history) + 1)]
    return Record(
        step=7,
        passed=passed,
        sentence=sentence,
        advice=() if passed else (
            f"{k.seeds - len(values)} of {k.seeds} fresh seeds did not come through: the setting "
            "is at the edge of stability; lower the rate.",
        ),
        chart=Chart(
            "round", metric, (Line("best so far", rounds, [h[1] for h in history]),), dots=True
        ),
        numbers={
            "arm": arm, "steps": steps, "mean": mean, "low": low, "high": high,
            "values": values.tolist(), "metric": final.result.metric,
        },
    )  # fmt: skip


def _around(
    best: tuple[float, float | None, str], pattern: Pattern, kinds: Sequence[str], *, first: bool
) -> list[tuple[float, float | None, str]]:
    """The best itself and its neighbours; overfitting asks for more weight decay."""
    lr, decay, schedule = best
    rate = [float(f"{lr * f:.3g}") for f in ((1.0, 2.0, 0.5) if first else (1.0, 1.4, 0.7))]
    found = [(value, decay, schedule) for value in rate]
    if pattern.decays:
        more = 10 * (decay or 1e-5) if "overfitting" in kinds or not decay else decay / 10
        found.append((lr, more, schedule))
    return found


def _mean(values: Sequence[float], sign: float) -> float:
    mean = float(np.mean(values))
    return sign * mean if math.isfinite(mean) else -math.inf


def _seed_noise(known: Mapping[Any, Sequence[float]]) -> float:
    """Standard error of a difference of two means, from how seeds of one setting differ."""
    spreads = [np.var(v, ddof=1) for v in known.values() if np.isfinite(v).all()]
    count = len(next(iter(known.values())))
    return float(math.sqrt(2 * np.mean(spreads) / count)) if spreads else 0.0
