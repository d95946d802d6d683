"""The figures about learning: where the arms ended, how they got there, and at which rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import Unit, amount, significant, unit_of
from steepest.reporting.drawing import (
    INK,
    Curves,
    Panel,
    Picture,
    add_line,
    arm_meta,
    axes,
    finite,
    line,
    name_rows,
    plain,
    points_per_line,
    shorten,
)
from steepest.reporting.facts import (
    arm_numbers,
    final_runs,
    final_values,
    finest_width,
    level_of,
    metric_words,
    result_unit,
    single_seed_words,
)
from steepest.reporting.palette import look_of
from steepest.reporting.tables import TURNED
from steepest.stats import mean_interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from steepest.racing.result import RankRow, Result
    from steepest.stats import PairVerdict

__all__ = ["evaluation_pictures", "final_panel", "final_picture", "learning_rates"]

ROW = 64  # height of one arm in a figure of rows, in CSS pixels
BAND = 0.16


def _spread(count: int) -> np.ndarray[Any, Any]:
    """Where the dots of a row stand beside each other, from the first seed to the last."""
    return np.linspace(-0.11, 0.11, count) if count > 1 else np.zeros(1)


def final_picture(result: Result) -> Picture | None:
    """The final value of every run as a dot, with mean and interval; differences seed by seed."""
    values = final_values(result)
    if not any(values.values()):
        return None
    unit = result_unit(result)
    panels = [final_panel(result, values, unit)]
    pairs = _differences(result, values)
    if pairs:
        panels.append(_difference_panel(result, pairs, unit))
    level = significant(100 * level_of(result))
    return Picture(
        "final",
        f"Where they ended: {metric_words(result.metric)}",
        _final_says(result, values, unit),
        tuple(panels),
        (
            "A dot is one seed; the diamond and bar are the mean over seeds and its "
            f"{level} % interval. Dots stand from the first seed (top) to the last.",
        ),
    )


def final_panel(result: Result, values: Mapping[str, dict[int, float]], unit: Unit) -> Panel:
    """One row per arm, best first: every seed as a dot, the mean and its interval."""
    words = metric_words(result.metric)
    better = "higher" if result.higher_is_better else "lower"
    figure = axes(x=f"{words}{unit.suffix and ' (%)'} · {better} is better", left=8)
    rows = [row.label for row in result.ranking]
    for place, label in enumerate(rows):
        row = _scaled(values[label], unit.factor)
        interval = mean_interval(np.array(list(row.values())), level_of(result))
        _dots(figure, result, label, place, row, interval, f"mean of {words}")
    name_rows(figure, [_row_name(result, row, unit) for row in result.ranking])
    return Panel(
        "Every seed",
        figure,
        f"Dots on one line per arm, from best to worst: {words} of every seed. "
        + "; ".join(
            f"{row.label} {unit.mean(row.mean, row.low, row.high)}" for row in result.ranking
        ),
        height=ROW * len(rows) + 66,
    )


def _row_name(result: Result, row: RankRow, unit: Unit) -> str:
    parts = [shorten(row.label)]
    if row.n:
        parts.append(unit.mean(row.mean, row.low, row.high, finest=finest_width(result)))
    if row.diverged:
        parts.append(f"{row.diverged} of {len(final_runs(result, row.label))} diverged")
    return " · ".join(parts)


def _dots(
    figure: go.Figure,
    result: Result,
    label: str,
    place: int,
    by_seed: Mapping[int, float],
    interval: tuple[float, float, float],
    hover: str,
) -> None:
    """A row: a dot per seed, and below them the mean with its interval, all in drawn units."""
    if not by_seed:
        return
    look, meta = look_of(arm_numbers(result)[label]), arm_meta(result, label)
    seeds = sorted(by_seed)
    figure.add_scatter(
        x=[by_seed[seed] for seed in seeds],
        y=place + _spread(len(seeds)),
        mode="markers",
        marker={"color": look.faint(0.82), "size": 9, "symbol": look.symbol},
        customdata=seeds,
        hovertemplate=f"seed %{{customdata}}: %{{x:.5~g}}<extra>{plain(label)}</extra>",
        meta=meta,
    )
    mean, low, high = interval
    known = math.isfinite(low) and math.isfinite(high)
    bar = {
        "type": "data",
        "symmetric": False,
        "array": [high - mean],
        "arrayminus": [mean - low],
        "color": look.color,
        "thickness": 2,
        "width": 5,
    }
    figure.add_scatter(
        x=[mean],
        y=[place + 0.26],
        mode="markers",
        marker={"color": look.color, "size": 10, "symbol": "diamond"},
        error_x=bar if known else None,
        hovertemplate=f"{hover}: %{{x:.5~g}}<extra>{plain(label)}</extra>",
        meta=meta,
    )


def _scaled(by_seed: Mapping[int, float], factor: float) -> dict[int, float]:
    return {seed: value * factor for seed, value in by_seed.items()}


def _final_says(result: Result, values: Mapping[str, dict[int, float]], unit: Unit) -> str:
    rows = [row for row in result.ranking if values[row.label]]
    best = rows[0]
    head = f"{best.label} has the best mean, {unit.mean(best.mean, best.low, best.high)}"
    if len(rows) == 1:
        return head + "."
    ranges = {row.label: list(values[row.label].values()) for row in rows}
    second = rows[1]
    a, b = ranges[best.label], ranges[second.label]
    overlap = min(max(a), max(b)) >= max(min(a), min(b))
    return (
        f"{head}; {second.label} follows with {unit.mean(second.mean, second.low, second.high)}. "
        f"Their seeds {'overlap' if overlap else 'do not overlap'}. {single_seed_words(result)}"
    ).rstrip()


def _differences(
    result: Result, values: Mapping[str, dict[int, float]]
) -> list[tuple[PairVerdict, str, dict[int, float]]]:
    """The first-ranked arm minus every other one that the verdict compared it with, per seed."""
    first = result.ranking[0].label
    found = []
    for row in result.ranking[1:]:
        pair = next((p for p in result.verdict.pairs if {p.a, p.b} == {first, row.label}), None)
        a, b = values[first], values[row.label]
        shared = {seed: a[seed] - b[seed] for seed in a if seed in b}
        if pair is not None and shared:
            found.append((pair, row.label, shared))
    return found


def _difference_panel(
    result: Result, pairs: list[tuple[PairVerdict, str, dict[int, float]]], unit: Unit
) -> Panel:
    first = result.ranking[0].label
    what = "points of " if unit.share else ""
    figure = axes(x=f"difference in {what}{metric_words(result.metric)}", left=8)
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "3px,3px"})
    for place, (pair, other, by_seed) in enumerate(pairs):
        side = unit.factor * (1 if pair.a == first else -1)
        low, high = sorted((side * pair.comparison.low, side * pair.comparison.high))
        interval = (side * pair.comparison.difference, low, high)
        row = _scaled(by_seed, unit.factor)
        _dots(figure, result, other, place, row, interval, "mean difference")
    lead = "minus" if len(pairs) > 1 else f"{shorten(first, 24)} minus"
    name_rows(
        figure,
        [f"{lead} {shorten(other, 24)}: {_decision(pair, first)}" for pair, other, _ in pairs],
    )
    return Panel(
        f"The difference, seed by seed: {first} minus the others"
        if len(pairs) > 1
        else "The difference, seed by seed",
        figure,
        f"Dots on one line per arm: {first} minus that arm with the same seed; a dashed line "
        "marks no difference. The bar is the interval that the verdict rests on.",
        height=ROW * len(result.ranking) + 66,
    )


def _decision(pair: PairVerdict, first: str) -> str:
    return pair.decision if pair.a == first else TURNED[pair.decision]


# --- evaluations ---------------------------------------------------------------------------------


def evaluation_pictures(result: Result) -> list[Picture]:
    """Loss and metrics of the validation data, and of test data that was read on the way."""
    found = []
    for split, title in (
        ("val", "Validation"),
        ("train", "Evaluation on training data"),
        ("test", "Test"),
    ):
        panels = []
        names = sorted(
            {
                k.partition("_")[2]
                for run in result.runs
                for k in run.metrics
                if k.startswith(split + "_")
            },
            key=lambda name: (name != "loss", name),
        )
        sayings = []
        for name in names:
            curves = {k: c for k, c in result.evaluations(split, name).items() if len(c[0])}
            if not any(len(steps) > 1 for steps, _ in curves.values()):
                continue
            panels.append(_evaluation_panel(result, f"{split}_{name}", curves))
            sayings.append(_evaluation_says(result, f"{split}_{name}", curves))
        if panels:
            level = significant(100 * level_of(result))
            found.append(
                Picture(
                    split,
                    f"{title} over steps",
                    sayings[-1],
                    tuple(panels),
                    (
                        "Thick: the mean over seeds. Thin: every seed. "
                        f"Band: {level} % interval of the mean, where there are two seeds or more.",
                    ),
                    zoom=True,
                )
            )
    return found


def _at_each_step(
    curves: Curves, label: str, level: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps, and per step mean, low and high over the seeds that were evaluated there."""
    by_step: dict[int, list[float]] = {}
    for (name, _), (steps, values) in curves.items():
        if name == label:
            for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                if math.isfinite(value):
                    by_step.setdefault(step, []).append(value)
    steps = np.array(sorted(by_step))
    rows = [mean_interval(np.array(by_step[step]), level) for step in steps.tolist()]
    return steps, np.array(rows, dtype=float).reshape(-1, 3)


def _evaluation_panel(result: Result, key: str, curves: Curves) -> Panel:
    words = metric_words(key)
    unit = unit_of(key, (v for _, values in curves.values() for v in values.tolist()))
    figure = axes(x="step", y=words + (" (%)" if unit.share else ""))
    for arm in result.arms:
        look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
        steps, rows = _at_each_step(curves, arm.label, level_of(result))
        known = np.isfinite(rows).all(axis=1)
        if known.any():
            figure.add_scatter(
                x=np.concatenate([steps[known], steps[known][::-1]]).astype(np.int32),
                y=np.concatenate([rows[known, 1], rows[known, 2][::-1]]) * unit.factor,
                fill="toself",
                fillcolor=look.faint(BAND),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                meta=meta,
            )
    _evaluation_lines(figure, result, curves, unit)
    drawn = finite(np.concatenate([values for _, values in curves.values()])) * unit.factor
    if len(drawn):
        pad = 0.08 * (drawn.max() - drawn.min()) or 0.05 * abs(drawn.max()) or 1.0
        span = [float(drawn.min() - pad), float(drawn.max() + pad)]
        figure.update_yaxes(range=span)  # the interval of two seeds would squash the curves
        figure.update_layout(meta={"linear": span})
    return Panel(
        words.capitalize(),
        figure,
        f"Lines over steps: {words} of every arm, the mean over seeds with a band of its interval.",
        height=320,
    )


def _evaluation_lines(figure: go.Figure, result: Result, curves: Curves, unit: Unit) -> None:
    for arm in result.arms:
        look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
        for (label, seed), (steps, values) in sorted(curves.items()):
            if label == arm.label:
                curve = steps, values * unit.factor
                faint = line(look, width=1, alpha=0.38)
                name, points = f"{label}, seed {seed}", points_per_line(len(curves))
                add_line(figure, curve, faint, meta, name, points=points)
    for arm in result.arms:
        look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
        steps, rows = _at_each_step(curves, arm.label, level_of(result))
        figure.add_scatter(
            x=steps.astype(np.int32),
            y=rows[:, 0] * unit.factor,
            mode="lines+markers" if len(steps) <= 40 else "lines",
            line=line(look, width=2.6),
            marker={"size": 6, "symbol": look.symbol, "color": look.color},
            hovertemplate=f"step %{{x}}: %{{y:.5~g}}<extra>{plain(arm.label)}, mean</extra>",
            meta=meta,
        )


def _evaluation_says(result: Result, key: str, curves: Curves) -> str:
    """Who leads at which evaluation: did the order change on the way?"""
    higher = result.higher_is_better if key.endswith(result.metric.partition("_")[2]) else False
    means: dict[int, dict[str, float]] = {}
    for arm in result.arms:
        steps, rows = _at_each_step(curves, arm.label, level_of(result))
        for step, value in zip(steps.tolist(), rows[:, 0].tolist(), strict=True):
            means.setdefault(step, {})[arm.label] = value
    pick = max if higher else min
    leaders = [pick(means[step], key=lambda label: means[step][label]) for step in sorted(means)]
    words, last = metric_words(key), leaders[-1]
    best = {step: pick(values.values()) for step, values in means.items()}
    if len(result.arms) == 1:
        top = pick(best, key=lambda step: best[step])
        return f"The mean {words} is best at step {top:,}."
    led = sum(leader == last for leader in leaders)
    if led == len(leaders):
        return f"{last} has the best mean {words} at all {len(leaders)} evaluations."
    return (
        f"{last} has the best mean {words} at the end, and at {led} of {len(leaders)} evaluations."
    )


def learning_rates(result: Result) -> Picture | None:
    """The learning rate of every arm over steps."""
    curves = {key: curve for key, curve in result.curves("lr").items() if len(curve[0])}
    if not curves:
        return None
    figure = axes(x="step", y="learning rate")
    constant = []
    peaks = []
    for arm in result.arms:
        runs = [curves[key] for key in sorted(curves) if key[0] == arm.label]
        if not runs:
            continue
        longest = max(runs, key=lambda curve: len(curve[0]))
        look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
        add_line(figure, longest, line(look, width=2.4), meta, arm.label)
        peaks.append(float(longest[1].max()))
        if np.ptp(longest[1]) == 0:
            constant.append(arm.label)
    positive = [peak for peak in peaks if peak > 0]
    far = len(positive) > 1 and max(positive) > 20 * min(positive)
    # A schedule that ends at zero would stretch a logarithmic axis for ever.
    log = [math.log10(min(positive)) - 3.0, math.log10(max(positive)) + 0.2] if positive else None
    linear = [0.0, 1.05 * max(peaks)] if positive else None
    lowest = [values[values > 0].min() for _, values in curves.values() if (values > 0).any()]
    if log is not None:
        log[0] = max(log[0], math.log10(min(lowest)) - 0.2)
    figure.update_layout(meta={"linear": linear, "log": log})
    figure.update_yaxes(type="log" if far else "linear", range=log if far else linear)
    figure.update_yaxes(
        tickformat="~g", dtick=max(1, math.ceil((log[1] - log[0]) / 6)) if far and log else None
    )
    changing = len(result.arms) - len(constant)
    if not changing:
        says = "Every arm keeps its learning rate throughout."
    else:
        says = (
            f"{changing} of {amount(len(result.arms), 'arm')} changed the learning rate on the way."
        )
    panel = Panel(
        "Learning rate",
        figure,
        "Lines over steps: the learning rate that each arm used.",
        height=280,
        wide=True,
    )
    return Picture(
        "lr",
        "Learning rate over time",
        says,
        (panel,),
        ("It is the same for all seeds of an arm; the longest run is drawn.",),
        scale="log" if far else "linear",
    )
