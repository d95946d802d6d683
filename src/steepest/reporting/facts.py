"""What a report says in words and tables, computed once for the page, the terminal and JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from steepest.numbers import (
    Unit,
    amount,
    significant,
    size_text,
    time_text,
    unit_of,
)
from steepest.racing.verdict import power_note
from steepest.racing.words import about_precision
from steepest.stats import OneSeed, one_seed

if TYPE_CHECKING:
    from steepest.racing.ledger import Timing
    from steepest.racing.result import Result, RunRow

__all__ = [
    "QUANTITIES",
    "Flag",
    "Quantity",
    "arm_numbers",
    "final_runs",
    "final_values",
    "finest_width",
    "flags",
    "headline",
    "level_of",
    "metric_words",
    "result_unit",
    "sentences",
    "single_seed",
    "single_seed_words",
    "target_words",
    "timed",
    "to_target",
]


@dataclass(frozen=True)
class Flag:
    """Something that a reader must know before believing the verdict.

    Attributes:
        kind: ``stop`` when the verdict does not stand as it is, ``warn`` when it is weaker than it
            looks, ``note`` for what explains a missing part.
        text: One or two sentences.
    """

    kind: Literal["stop", "warn", "note"]
    text: str


def arm_numbers(result: Result) -> dict[str, int]:
    """The number of every arm by label, in the order of the plan: the key to its colour."""
    return {arm.label: number for number, arm in enumerate(result.arms)}


def metric_words(key: str) -> str:
    """The key of a final value in words.

    >>> metric_words("test_accuracy"), metric_words("val_loss"), metric_words("train_loss")
    ('test accuracy', 'validation loss', 'training loss')
    """
    split, _, name = key.partition("_")
    words = {"val": "validation", "train": "training"}.get(split, split)
    return f"{words} {name}".replace("_", " ").strip()


def level_of(result: Result) -> float:
    """The confidence level of the race."""
    return float(result.spec["level"])


def final_values(result: Result, key: str | None = None) -> dict[str, dict[int, float]]:
    """The final value of a metric by arm and seed, of the runs that are done."""
    key = key or result.metric
    values: dict[str, dict[int, float]] = {arm.label: {} for arm in result.arms}
    for run in final_runs(result):
        value = run.metrics.get(key) if run.status == "done" else None
        if value is not None:
            values[run.arm][run.seed] = float(value)
    return values


def result_unit(result: Result) -> Unit:
    """How the deciding metric is written."""
    values = (v for by_seed in final_values(result).values() for v in by_seed.values())
    return unit_of(result.metric, values)


def finest_width(result: Result) -> float:
    """The smallest half-width of the ranked means; NaN where none has an interval."""
    widths = [(row.high - row.low) / 2 for row in result.ranking]
    return min((w for w in widths if math.isfinite(w) and w > 0), default=math.nan)


def final_runs(result: Result, arm: str | None = None) -> list[RunRow]:
    """The runs that are compared, of one arm or of all."""
    return [run for run in result.final_runs if arm in (None, run.arm)]


def headline(result: Result) -> str:
    """The verdict in one plain sentence, without a number that needs explaining."""
    verdict, words = result.verdict, metric_words(result.metric)
    if not any(run.status == "done" for run in final_runs(result)):
        lost = any(run.status in ("diverged", "failed") for run in final_runs(result))
        return "No run came to a good end." if lost else "No run is finished yet."
    if verdict.problems:
        return "This comparison is not fair, so there is no verdict."
    if not verdict.pairs:
        rows = [row for row in result.ranking if row.n]
        value = result_unit(result).mean(rows[0].mean, rows[0].low, rows[0].high)
        label = rows[0].label
        tried = sum(t.arm == label and t.role == "candidate" for t in result.trials)
        if tried:
            return (
                f"The best of {amount(tried, 'setting')} of {label} reaches a {words} of {value} "
                "on fresh seeds."
            )
        return f"{label} reaches a {words} of {value}; nothing to compare it with."
    seeds = amount(min(pair.comparison.n for pair in verdict.pairs), "seed")
    if len(verdict.pairs) == 1:
        pair = verdict.pairs[0]
        if pair.decision == "undecided":
            return f"{pair.a} and {pair.b} cannot be told apart with {seeds}."
        better, worse = (pair.a, pair.b) if pair.decision == "better" else (pair.b, pair.a)
        return f"{better} is better than {worse} in {words}."
    wins: dict[str, int] = {row.label: 0 for row in result.ranking}
    losses = dict(wins)
    for pair in verdict.pairs:
        if pair.decision != "undecided":
            better, worse = (pair.a, pair.b) if pair.decision == "better" else (pair.b, pair.a)
            wins[better] += 1
            losses[worse] += 1
    if not any(wins.values()):
        return f"None of the {len(wins)} arms can be told from another with {seeds}."
    top = [label for label in wins if losses[label] == 0]
    best = max(wins, key=lambda label: wins[label])
    if len(top) == 1 and wins[top[0]] == len(wins) - 1:
        return f"{top[0]} is better than every other arm in {words}."
    beaten = f"better than {wins[best]} of the {len(wins) - 1} others"
    return (
        f"{best} is {beaten} in {words}; {len(top)} of {len(wins)} arms "
        f"{'is' if len(top) == 1 else 'are'} beaten by none."
    )


def sentences(result: Result) -> list[str]:
    """What the verdict says about the pairs, the decided ones first, in its own words.

    All but the pairs is said by `flags`. Nothing is said about pairs where the comparison is not
    fair or no run was finished.
    """
    verdict = result.verdict
    if verdict.problems or not any(run.status == "done" for run in final_runs(result)):
        return []
    return [text.replace(" %", "\N{NO-BREAK SPACE}%") for text in verdict.pair_sentences]


def single_seed(result: Result) -> OneSeed | None:
    """What one run per arm would have named; None without two arms and a common seed."""
    seeds = result.verdict.seeds
    if len(result.verdict.pairs) < 1 or not seeds:
        return None
    compared = {label for pair in result.verdict.pairs for label in (pair.a, pair.b)}
    by_seed = {(run.arm, run.seed): run.metrics.get(result.metric) for run in final_runs(result)}
    values = {
        arm.label: [math.nan if (v := by_seed[arm.label, s]) is None else v for s in seeds]
        for arm in result.arms
        if arm.label in compared
    }
    best = next(row.label for row in result.ranking if row.label in compared)
    return one_seed(values, best, higher_is_better=result.higher_is_better)


def single_seed_words(result: Result) -> str:
    """How often a comparison on one seed would have named another winner, in a sentence."""
    claims = single_seed(result)
    if claims is None:
        return ""
    others = {label: n for label, n in claims.named.items() if label != claims.best and n > 0}
    if not others:
        text = f"A comparison on any one of the {amount(claims.seeds, 'seed')} would have named "
        text += f"{claims.best}, too"
    else:
        who = ", ".join(
            f"{label} on {significant(n)}"
            for label, n in sorted(others.items(), key=lambda i: -i[1])
        )
        text = (
            "A comparison on one seed would have named another winner than "
            f"{claims.best} on {significant(claims.seeds * claims.wrong)} of "
            f"{amount(claims.seeds, 'seed')} ({who})"
        )
    if claims.wrong_unpaired < 0.005:
        return f"{text}."
    share = significant(100 * claims.wrong_unpaired, 2)
    return (
        f"{text}; with a seed of its own for every arm it would have named another one in "
        f"{share}\N{NO-BREAK SPACE}% of all choices."
    )


def flags(result: Result) -> list[Flag]:
    """What weakens the verdict, worst first."""
    found = [
        *_unfinished(result),
        *(Flag("stop", text[0].upper() + text[1:]) for text in result.verdict.problems),
        *_failed(result),
        *_diverged(result),
        *_stopped(result),
        *_too_few(result),
        *_missing(result),
        *(Flag("note", text) for text in about_precision(result.precision)),
    ]
    order = {"stop": 0, "warn": 1, "note": 2}
    return sorted(found, key=lambda flag: order[flag.kind])


def _unfinished(result: Result) -> Iterable[Flag]:
    runs = final_runs(result)
    open_runs = [run for run in runs if run.status in ("pending", "running")]
    if open_runs:
        yield Flag(
            "stop",
            f"The race was interrupted or is still running: {len(open_runs)} of {len(runs)} runs "
            "are not finished. Everything below counts finished runs only. "
            f"steepest resume {result.folder} goes on where it stopped.",
        )


def _failed(result: Result) -> Iterable[Flag]:
    for run in final_runs(result):
        if run.status == "failed":
            yield Flag(
                "warn",
                f"{run.arm}, seed {run.seed} failed after {amount(run.steps, 'step')}: "
                f"{run.message or 'no reason was recorded'}",
            )


def _diverged(result: Result) -> Iterable[Flag]:
    for arm in result.arms:
        runs = final_runs(result, arm.label)
        lost = [run for run in runs if run.status == "diverged"]
        if lost:
            at = [run.diverged_at or run.steps for run in lost]
            first, last = min(at), max(at)
            when = (
                f"at step {first:,}" if first == last else f"between steps {first:,} and {last:,}"
            )
            share = "every seed" if len(lost) == len(runs) else f"{len(lost)} of {len(runs)} seeds"
            yield Flag("warn", f"{arm.label} diverged in {share}, {when}.")


def _stopped(result: Result) -> Iterable[Flag]:
    """Where early stopping ended runs: arms did not take equally many steps."""
    for arm in result.arms:
        done = [run for run in final_runs(result, arm.label) if run.best_step is not None]
        early = [run.steps for run in done if run.steps < run.planned_steps]
        if early:
            when = (
                f"at step {min(early):,}"
                if min(early) == max(early)
                else f"between steps {min(early):,} and {max(early):,}"
            )
            yield Flag(
                "note",
                f"{arm.label} was stopped early in {len(early)} of {len(done)} seeds, {when}; "
                "what is compared are the weights of every run's best evaluation.",
            )


def _too_few(result: Result) -> Iterable[Flag]:
    pairs = result.verdict.pairs
    if len(result.arms) < 2 and result.tuning is None:
        yield Flag("note", "There is one arm, so there is nothing to compare it with.")
    if pairs:
        compared = {label for pair in pairs for label in (pair.a, pair.b)}
        seeds = min(pair.comparison.n for pair in pairs)
        text = power_note(len(compared), seeds, level=level_of(result))
        if text is not None:
            yield Flag("warn", text)


def _missing(result: Result) -> Iterable[Flag]:
    finished = [run for run in final_runs(result) if run.status == "done"]
    if not finished:
        yield Flag("stop", "No run is finished, so there is no final value to compare.")
        return
    splits = {key.partition("_")[0] for run in finished for key in run.metrics}
    if "test" not in splits:
        yield Flag("note", f"The task has no test data; {metric_words(result.metric)} decides.")
    if "val" not in splits:
        yield Flag("note", "There is no validation data, so there are no curves of it.")


# --- cost ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """Something that the timing pass measured.

    Attributes:
        key: Its name in the ledger.
        words: Its name in words.
        head: Its name over a column.
        unit: Of the drawn axis.
        factor: From the ledger's unit to that of the axis.
        write: The ledger's value as text.
    """

    key: str
    words: str
    head: str
    unit: str
    factor: float
    write: Callable[[float], str]


QUANTITIES = (
    Quantity("epoch_seconds", "time per epoch", "Epoch", "s", 1.0, time_text),
    Quantity(
        "step_ms",
        "time per training step",
        "Training step",
        "ms",
        1.0,
        lambda ms: time_text(ms / 1e3),
    ),
    Quantity(
        "optimizer_ms",
        "time of the optimizer step",
        "Optimizer step",
        "ms",
        1.0,
        lambda ms: time_text(ms / 1e3),
    ),
    Quantity(
        "state_bytes",
        "memory of the optimizer state",
        "Optimizer state",
        "MiB",
        2.0**-20,
        size_text,
    ),
    Quantity("peak_bytes", "peak memory of training", "Peak memory", "MiB", 2.0**-20, size_text),
)


def timed(result: Result) -> dict[str, Mapping[str, Timing]]:
    """What the timing pass measured, by arm in the order of the plan; without unmeasured arms."""
    return {
        arm.label: result.timings[arm.label] for arm in result.arms if result.timings.get(arm.label)
    }


def target_words(result: Result) -> str | None:
    """The target in words; None without one.

    >>> from types import SimpleNamespace
    >>> target = {"split": "val", "metric": "accuracy", "value": 0.98, "higher_is_better": True}
    >>> target_words(SimpleNamespace(spec={"target": target}))
    'validation accuracy ≥ 98 %'
    """
    target = result.spec["target"]
    if target is None:
        return None
    value = float(target["value"])
    sign = "≥" if target["higher_is_better"] else "≤"
    share = unit_of(target["metric"], [value]).share
    text = f"{significant(100 * value, 6)} %" if share else significant(value, 6)
    return f"{metric_words(target['split'] + '_' + target['metric'])} {sign} {text}"


def to_target(result: Result, label: str) -> list[dict[str, float]]:
    """Seed, steps and seconds to the target, per run of an arm that came to an end.

    Misses are infinite.
    """
    return [
        {
            "seed": run.seed,
            "steps": math.inf if run.target_step is None else run.target_step,
            "seconds": math.inf if run.target_seconds is None else run.target_seconds,
        }
        for run in final_runs(result, label)
        if run.status in ("done", "diverged", "failed")
    ]
