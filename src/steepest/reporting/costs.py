"""The figures about cost: steps and seconds to the target, and what a step takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, significant
from steepest.reporting.drawing import Panel, Picture, arm_meta, axes, name_rows, plain, shorten
from steepest.reporting.facts import (
    QUANTITIES,
    arm_numbers,
    target_words,
    timed,
    to_target,
)
from steepest.reporting.palette import look_of

if TYPE_CHECKING:
    from steepest.racing.records import Timing
    from steepest.racing.result import Result

__all__ = ["target_picture", "timing_picture"]

ROW = 58
WORDS = {"steps": "steps", "seconds": "seconds of training"}


def target_picture(result: Result) -> Picture | None:
    """Steps and seconds to the target, misses in a column of their own; None without a target."""
    reached = {arm.label: to_target(result, arm.label) for arm in result.arms}
    if target_words(result) is None or not any(reached.values()):
        return None
    return Picture(
        "target",
        f"How soon they reached {target_words(result)}",
        _target_says(reached),
        tuple(_target_panel(reached, result, what) for what in WORDS),
        (
            "A dot is the first evaluation of one seed that was at the target; the diamond is the "
            "median over seeds. A cross in the shaded column never got there: it counts as "
            "infinite in the median.",
        ),
    )


def _target_panel(
    reached: Mapping[str, list[dict[str, float]]], result: Result, what: str
) -> Panel:
    figure = axes(x=WORDS[what], left=8)
    finite = [run[what] for runs in reached.values() for run in runs if math.isfinite(run[what])]
    missed = any(math.isinf(run[what]) for runs in reached.values() for run in runs)
    right = 1.06 * max(finite, default=1.0)
    beyond = right * 1.09
    if missed:
        figure.add_vrect(
            x0=right,
            x1=right * 1.18,
            fillcolor="rgba(128,134,144,0.16)",
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=beyond, y=1, yref="paper", yanchor="bottom", text="not reached", showarrow=False
        )
    names = [shorten(label) for label in reached]
    said = []
    for place, (label, runs) in enumerate(reached.items()):
        if not runs:
            continue
        values = np.array([run[what] for run in runs])
        median = float(np.median(values))
        _target_dots(figure, result, label, place, runs, what, beyond)
        said.append(f"{label} median {significant(median)}")
    name_rows(figure, names)
    figure.update_xaxes(range=[0, right * (1.18 if missed else 1.0)])
    figure.update_layout(margin={"t": 24 if missed else 10})
    return Panel(
        WORDS[what].capitalize(),
        figure,
        f"Dots on one line per arm: {WORDS[what]} until the target, seed by seed; "
        + "; ".join(said),
        height=ROW * len(names) + 78,
    )


def _target_dots(
    figure: Any,
    result: Result,
    label: str,
    place: int,
    runs: list[dict[str, float]],
    what: str,
    beyond: float,
) -> None:
    look, meta = look_of(arm_numbers(result)[label]), arm_meta(result, label)
    values = np.array([run[what] for run in runs])
    seeds = [int(run["seed"]) for run in runs]
    spread = np.linspace(-0.1, 0.1, len(runs)) if len(runs) > 1 else np.zeros(1)
    misses = ~np.isfinite(values)
    figure.add_scatter(
        x=np.where(misses, beyond, values),
        y=place + spread,
        mode="markers",
        marker={
            "color": look.faint(0.82),
            "size": 9,
            "symbol": ["x" if miss else look.symbol for miss in misses],
        },
        customdata=[
            f"seed {seed}: {'not reached' if miss else significant(value, 4)}"
            for seed, miss, value in zip(seeds, misses.tolist(), values.tolist(), strict=True)
        ],
        hovertemplate=f"%{{customdata}}<extra>{plain(label)}</extra>",
        meta=meta,
    )
    median = float(np.median(values))
    figure.add_scatter(
        x=[median if math.isfinite(median) else beyond],
        y=[place + 0.26],
        mode="markers",
        marker={"color": look.color, "size": 11, "symbol": "diamond"},
        hovertemplate=f"median: {significant(median, 4)}<extra>{plain(label)}</extra>",
        meta=meta,
    )


def _target_says(reached: Mapping[str, list[dict[str, float]]]) -> str:
    medians = {
        label: float(np.median([run["steps"] for run in runs]))
        for label, runs in reached.items()
        if runs
    }
    hits = {
        label: sum(math.isfinite(run["steps"]) for run in runs) for label, runs in reached.items()
    }
    first = min(medians, key=lambda label: (medians[label], -hits[label]))
    if not any(hits.values()):
        return "No run of any arm reached the target."
    if math.isinf(medians[first]):
        best = max(hits, key=lambda label: hits[label])
        return (
            "No arm reached it with half of its seeds; "
            f"{best} reached it most often, with {hits[best]} of {len(reached[best])}."
        )
    head = f"{first} takes {amount(round(medians[first]), 'step')} in the median"
    others = {label: value for label, value in medians.items() if label != first}
    if not others:
        return f"{head}; {hits[first]} of {len(reached[first])} seeds reached it."
    last = max(others, key=lambda label: others[label])
    if math.isinf(others[last]):
        never = sum(math.isinf(value) for value in others.values())
        return f"{head}; {amount(never, 'arm')} missed it with half of the seeds or more."
    if others[last] == medians[first]:
        return f"{head}, and so does {'the other' if len(others) == 1 else 'every other arm'}."
    return f"{head}, {last} {amount(round(others[last]), 'step')}."


def timing_picture(result: Result) -> Picture | None:
    """Medians of the interleaved timing pass with their quartiles, one panel per quantity."""
    rows = timed(result)
    if not rows:
        return None
    panels = []
    for quantity in QUANTITIES:
        found = {label: of[quantity.key] for label, of in rows.items() if quantity.key in of}
        if not found:
            continue
        figure = axes(x=f"{quantity.words} ({quantity.unit})", left=8)
        for place, (label, timing) in enumerate(found.items()):
            look, value = look_of(arm_numbers(result)[label]), timing.value * quantity.factor
            low, high = (
                (x * quantity.factor if x is not None else None) for x in (timing.low, timing.high)
            )
            bar = None
            if low is not None and high is not None:
                bar = {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value],
                    "arrayminus": [value - low],
                    "color": "rgba(128,134,144,0.95)",
                    "thickness": 1.6,
                    "width": 5,
                }
            figure.add_bar(
                x=[value],
                y=[place + 0.1],
                orientation="h",
                width=0.34,
                marker={"color": look.faint(0.82), "line": {"width": 0}},
                error_x=bar,
                hovertemplate=f"{quantity.write(timing.value)}, n = {timing.n}"
                f"<extra>{plain(label)}</extra>",
                meta=arm_meta(result, label),
            )
        names = [f"{shorten(label)} · {quantity.write(of.value)}" for label, of in found.items()]
        name_rows(figure, names)
        figure.update_xaxes(rangemode="tozero")
        figure.update_layout(barmode="overlay")
        panels.append(
            Panel(
                quantity.words.capitalize(),
                figure,
                f"One bar per arm: {quantity.words}. " + "; ".join(names),
                height=ROW * len(names) + 66,
            )
        )
    if not panels:
        return None
    counts = sorted({timing.n for of in rows.values() for timing in of.values() if timing.n > 1})
    counts = counts or [1]
    n = f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"
    return Picture(
        "timing",
        "What it costs",
        _timing_says(rows),
        tuple(panels),
        (
            f"Medians of a timing pass of its own, in which the arms take turns ({n} per arm), so "
            "that a busy machine hits all of them alike; whiskers are the quartiles. Memory of the "
            "state is counted, not sampled. Arms are compared round by round.",
        ),
    )


def _timing_says(rows: Mapping[str, Mapping[str, Timing]]) -> str:
    """How long a step takes in units of the first arm's, as far as that can be told."""
    first, *others = rows
    ratios = {label: rows[label]["step_ratio"] for label in others if "step_ratio" in rows[label]}
    if not ratios:
        known = [q for q in QUANTITIES if q.key in rows[first]]
        return f"{first}: {known[0].write(rows[first][known[0].key].value)} {known[0].words}."
    if len(ratios) <= 2:
        return " ".join(_ratio_says(first, label, ratio) for label, ratio in ratios.items())
    slower = [label for label, r in ratios.items() if r.low is not None and r.low > 1]
    faster = [label for label, r in ratios.items() if r.high is not None and r.high < 1]
    alike = len(ratios) - len(slower) - len(faster)
    head = (
        f"Beside {first}, a training step takes longer with {amount(len(slower), 'arm')}, is "
        f"shorter with {len(faster)}, and cannot be told apart with {alike}."
    )
    if not slower:
        return head
    worst = max(slower, key=lambda label: ratios[label].value)
    return f"{head} {_ratio_says(first, worst, ratios[worst])}"


def _ratio_says(first: str, label: str, ratio: Timing) -> str:
    text = f"A training step with {label} takes {significant(ratio.value)} times as long as with"
    if ratio.low is None or ratio.high is None:
        return f"{text} {first}, but {ratio.n} rounds are too few to tell them apart."
    text += f" {first} (95 % interval {significant(ratio.low)} to {significant(ratio.high)})"
    told = ratio.low > 1 or ratio.high < 1
    return f"{text}." if told else f"{text}: no difference that this machine can show."
