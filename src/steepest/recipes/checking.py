"""Steps 1 to 3: is anything wrong before time is spent?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from steepest.diagnosing.signals import level
from steepest.numbers import amount, significant
from steepest.recipes import probes
from steepest.recipes.kitchen import (
    Kitchen,
    curve_line,
    labels_of,
    number_or_none,
    yardstick,
)
from steepest.recipes.records import Chart, Line, Record
from steepest.stats import mean_interval

__all__ = ["find_rate", "initial_loss", "tiny_sample"]

SEEDS = range(8)  # of the initial loss
RATE_STEPS = 100  # within which the loss has to fall (step 3)
TINY_STEPS = 250


# --- 1 ------------------------------------------------------------------------------------------


def initial_loss(k: Kitchen) -> Record:
    """Weight decay has no part in it: the loss is that of the data alone."""
    losses, expected = probes.initial_losses(k.task, SEEDS), k.expected
    mean, low, high = mean_interval(np.array(losses), 0.95)
    text = f"The loss at the start is {significant(mean)} (over {len(losses)} seeds)"
    numbers = {"loss": mean, "expected": expected.value, "words": expected.words}
    chart = Chart(
        "seed", "loss at the start", (Line("seeds", list(SEEDS), losses),),
        (expected.value, expected.words) if math.isfinite(expected.value) else None, dots=True,
    )  # fmt: skip
    advice: list[str] = list(k.facts.inputs)
    if not math.isfinite(mean):
        return Record(
            step=1, passed=False, sentence=f"{text}: not a number.", numbers=numbers, chart=chart,
            advice=(*advice, "Look for a division by zero, a logarithm of zero, or inputs that "
                    "are not finite."),
        )  # fmt: skip
    if math.isnan(expected.value):
        return Record(
            step=1, passed=True, numbers=numbers, chart=chart,
            sentence=f"{text}; what it should be is not known ({expected.words}).",
            advice=("Give the task an expected_initial_loss to have this checked.",),
        )  # fmt: skip
    ratio = mean / expected.value
    wide = 3.0 if expected.classes is None else 1.5
    text += f"; it should be near {significant(expected.value)} ({expected.words})."
    passed = 0.9 <= ratio <= wide or low <= expected.value <= high
    if not passed and ratio < 0.9:
        advice += [
            f"The loss is {significant(ratio)} times what it should be: is it scaled, averaged "
            "over something that is not the batch, or masked? Does the model see the answer, or "
            "does it start from trained weights? Then give the task its expected_initial_loss."
        ]
    elif not passed:
        advice += [
            f"The loss is {significant(ratio)} times what it should be: is it a sum instead of a "
            "mean, or scaled? Are the last layer's initial weights too large? Are inputs (or the "
            "targets of a regression) far from mean 0 and deviation 1?"
        ]
    return Record(
        step=1, passed=passed, sentence=text, numbers=numbers, chart=chart,
        advice=() if passed else tuple(advice),
    )  # fmt: skip


# --- 2 ------------------------------------------------------------------------------------------


def tiny_sample(k: Kitchen) -> Record:
    """Regularisation off: no weight decay, no dropout; a few examples in one batch."""
    task = probes.tiny_task(k.task, k.expected)
    grid = k.pattern.rates[::2]
    arms = [k.pattern.at(lr, 0.0, "") for lr in grid]
    found = k.race("2-tiny-sample", arms, steps=TINY_STEPS, task=task, evaluations=10)
    curves = found.result.curves("train_loss")
    metric = "accuracy" if k.expected.classes else "loss"
    seen = found.result.evaluations("val", metric)
    chart = Chart(
        "steps", "loss on the tiny sample",
        tuple(
            curve_line(f"lr={lr:g}", *curves[label, 0])
            for lr, label in zip(grid, labels_of(found), strict=True)
        ),
        log_y=bool(k.expected.classes),  # where no loss is negative
    )  # fmt: skip
    ends = {}
    for arm in labels_of(found):
        values = seen[arm, 0][1]
        finite = values[np.isfinite(values)]
        if len(finite):
            ends[arm] = float(finite.max() if k.expected.classes else finite.min())
    count = task.batch_size
    if k.expected.classes:
        best = max(ends.values(), default=0.0)
        passed, words = best >= 1.0, f"{100 * best:.0f} % right"
    else:
        best = min(ends.values(), default=math.inf)
        yard = yardstick(k)
        passed, words = (
            best <= 0.02 * yard,
            f"a loss of {significant(best)}, {100 * best / yard:.1f} % of the start",
        )
    sentence = (
        f"{amount(count, 'example')} in {TINY_STEPS} steps without regularisation: {words} at the "
        "best of the rates."
    )
    advice = [] if passed else _why_not_by_heart(k, curves)
    head = (
        "The last layer is frozen (requires_grad is False): the model cannot use what it learns. "
    )
    if k.facts.head_frozen:
        passed = False
        advice = [head + f"Frozen: {', '.join(k.facts.frozen[-3:])}.", *advice]
    return Record(
        step=2, passed=passed, sentence=sentence, advice=tuple(advice), chart=chart,
        numbers={"best": best},
    )  # fmt: skip


def _why_not_by_heart(k: Kitchen, curves: Mapping[tuple[str, int], Any]) -> list[str]:
    """What to check, the most telling first."""
    told = list(k.facts.inputs)
    f = k.facts
    moved = [float(np.ptp(y[np.isfinite(y)])) for _, y in curves.values() if np.isfinite(y).any()]
    still = bool(moved) and max(moved) < 1e-5 * max(1e-12, yardstick(k))
    if f.silent:
        told.append(
            f"No gradient reaches {', '.join(f.silent[:4])}: dead units (initialisation, biases "
            "far below zero), a detached tensor, or a layer that is not used."
        )
    elif f.dead > 0.5:
        told.append(
            f"{100 * f.dead:.0f} % of the hidden units get no gradient from 1,000 examples: dead "
            "by their initialisation."
        )
    if still and not f.silent:
        told.append(
            "Gradients are there, but no step changes the loss: does the optimizer hold the "
            "model's parameters, does its step() do anything, is its rate not zero?"
        )
    if f.frozen:
        told.append(f"Frozen parameters: {', '.join(f.frozen[:4])}.")
    told.append(
        "If none of that is it: is the model too small for twenty examples, do two equal inputs "
        "have different targets, is there regularisation inside the model or the loss?"
    )
    return told


# --- 3 ------------------------------------------------------------------------------------------


def find_rate(k: Kitchen) -> Record:
    """All data, a small weight decay, many rates at once."""
    grid = k.pattern.rates
    decay = 1e-4 if k.pattern.decays else None
    lines, falls = [], {}
    for round_ in range(3):
        arms = {k.pattern.at(lr, decay): lr for lr in grid}
        found = k.race(f"3-rates-{round_}", list(arms), steps=RATE_STEPS, evaluations=1)
        texts = {arm.label: arms[text] for arm, text in zip(found.result.arms, arms, strict=True)}
        for (label, _), (x, y) in found.result.curves("train_loss").items():
            falls[texts[label]] = _end_level(x, y)
            lines.append(curve_line(f"lr={texts[label]:g}", x, y))
        best = min(falls, key=lambda lr: falls[lr][0])
        top, bottom = max(falls), min(falls)
        if not math.isfinite(falls[best][0]) or best not in (top, bottom):
            break
        factor = 10 if best == top else 0.1
        grid = [float(f"{best * factor**e:.3g}") for e in (0.25, 0.5, 0.75, 1.0)]
    yard = yardstick(k)
    end, error = falls[best]
    passed = end + 3 * error < 0.95 * yard
    edge = min((lr for lr, (e, _) in falls.items() if lr > best and not e < yard), default=None)
    sentence = (
        f"Within {RATE_STEPS} steps the loss comes to {significant(end)} at lr={best:g}, the best "
        f"of {len(falls)} rates; without looking at the inputs {significant(yard)} is possible"
        + (f"; from lr={edge:g} on it does not get there." if edge else ".")
    )
    ordered = sorted(falls)
    chart = Chart(
        "learning rate", f"loss after {RATE_STEPS} steps",
        (Line("loss", ordered, [number_or_none(falls[lr][0]) for lr in ordered]),),
        (yard, "the best prediction without the inputs"), log_x=True,
    )  # fmt: skip
    advice: list[str] = []
    if not passed:
        advice += list(k.facts.inputs)
        if k.facts.dropout > 0.5:
            advice.append(
                f"A dropout of {k.facts.dropout:g} leaves hardly any signal; begin without "
                "regularisation and add it when the model overfits."
            )
        advice += [
            "The model learns a tiny sample by heart, but not what the data have in common: do "
            "the targets belong to their inputs (shuffled, off by one, joined wrongly)? Look at "
            "twenty pairs.",
            "Is there too much regularisation (weight decay, augmentation, noise)? Do batches "
            "hold enough of every class? A hard task may need more than "
            f"{RATE_STEPS} steps: then go on with --from 4 (--from 3 repeats this step).",
        ]
    return Record(
        step=3, passed=passed, sentence=sentence, advice=tuple(advice), chart=chart,
        numbers={
            "lr": best, "edge": edge, "loss": end, "step_seconds": found.step_seconds,
            "steps_per_epoch": found.result.spec["steps_per_epoch"],
            "curves": len(lines),
        },
    )  # fmt: skip


def _end_level(x: Any, y: Any) -> tuple[float, float]:
    """The mean over the last quarter and its error; infinite where it blew up."""
    if len(y) < RATE_STEPS or not np.isfinite(y).all():
        return math.inf, 0.0
    found = level(x, y, x[-1] - 0.25 * len(x), x[-1])
    return found.mean, found.error
