"""The figure of the training loss: every batch as a dot, and a moving average through the dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, significant
from steepest.reporting.drawing import (
    Curve,
    Curves,
    Panel,
    Picture,
    add_line,
    arm_meta,
    axes,
    finite,
    line,
    points_per_line,
    thin,
)
from steepest.reporting.facts import arm_numbers, final_runs
from steepest.reporting.palette import look_of
from steepest.stats import moving_average

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from steepest.racing.result import Result

__all__ = ["mean_curve", "training_loss", "window_of"]

DOTS = 4_000  # dots drawn over all panels; more make the page slow
DOTS_PER_RUN = 600


def window_of(steps: int) -> int:
    """The window of the moving average: a fiftieth of the race, from 5 to 500 batches.

    >>> window_of(100), window_of(5000), window_of(10**6)
    (5, 100, 500)
    """
    return min(500, max(5, steps // 50))


def training_loss(result: Result) -> Picture | None:
    """Per-batch training loss: dots per batch, a moving average per seed, and all arms together."""
    curves = {key: curve for key, curve in result.curves("train_loss").items() if len(curve[0])}
    if not curves:
        return None
    window = window_of(max(len(steps) for steps, _ in curves.values()))
    smooth = {
        key: (steps, moving_average(values, window)) for key, (steps, values) in curves.items()
    }
    per_run = max(40, min(DOTS_PER_RUN, DOTS // len(curves)))
    done = {(run.arm, run.seed) for run in final_runs(result) if run.status == "done"}
    kept = [key for key in curves if key in done] or list(curves)  # what diverges leaves the frame
    ranges = _ranges(curves, smooth, kept)
    panels = [_smooth_panel(result, smooth, ranges)] if len(result.arms) > 1 else []
    for arm in result.arms:
        own = [key for key in curves if key[0] == arm.label]
        if own:
            shared = any(key in kept for key in own)
            of = ranges if shared else _ranges(curves, smooth, own)
            title = arm.label if shared else f"{arm.label} (on a scale of its own)"
            panels.append(_loss_panel(result, arm.label, title, curves, smooth, per_run, of))
    longest = max(len(steps) for steps, _ in curves.values())
    thinned = (
        f"Of {longest:,} batches per run, {per_run:,} are drawn, evenly spread"
        if longest > per_run
        else "Every batch is drawn"
    )
    return Picture(
        "loss",
        "Training loss, batch by batch",
        _loss_says(result, curves, window),
        tuple(panels),
        (
            f"A dot is the loss of one batch; a line is the mean of {window} batches around each "
            f"step, for one seed. {thinned}; the averages are computed from all of them, and drawn "
            f"with up to {points_per_line(len(curves)):,} points a line. The ledger has them all.",
        ),
        scale="log" if ranges["log_first"] else "linear",
        zoom=True,
    )


def _ranges(curves: Curves, smooth: Curves, keys: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The same y ranges for all panels, fitted to these runs, so that the eye can compare."""
    raw = np.concatenate([finite(curves[key][1]) for key in keys])
    means = np.concatenate([finite(smooth[key][1]) for key in keys])
    if not len(raw):
        return {"linear": None, "log": None, "log_first": False}
    low, high = np.quantile(raw, [0.002, 0.998])
    high = max(high, means.max(initial=high))
    positive = raw[raw > 0]
    linear = [float(min(low, 0.0) if low < 0.3 * high else low), float(high * 1.04)]
    if not len(positive) or high <= 0:
        return {"linear": linear, "log": None, "log_first": False}
    floor = max(float(np.quantile(positive, 0.01)), float(high) * 1e-6)
    log = [math.log10(floor) - 0.05, math.log10(float(high)) + 0.08]
    return {"linear": linear, "log": log, "log_first": bool(means.min() > 0 and high > 20 * floor)}


def _apply_scale(figure: go.Figure, ranges: Mapping[str, Any]) -> None:
    first = "log" if ranges["log_first"] else "linear"
    figure.update_yaxes(type=first, range=ranges[first], tickformat="~g")
    figure.update_layout(meta={"linear": ranges["linear"], "log": ranges["log"]})
    if first == "log" and ranges["log"][1] - ranges["log"][0] > 1.2:
        figure.update_yaxes(dtick=1)


def _smooth_panel(result: Result, smooth: Curves, ranges: Mapping[str, Any]) -> Panel:
    figure = axes(x="step", y="moving average of the loss")
    points = points_per_line(len(smooth))
    for arm in result.arms:
        runs = {seed: curve for (label, seed), curve in smooth.items() if label == arm.label}
        look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
        for seed, curve in sorted(runs.items()):
            faint = line(look, width=1, alpha=0.4)
            add_line(figure, curve, faint, meta, f"{arm.label}, seed {seed}", points=points)
    for arm in result.arms:  # the means lie over all the single seeds
        runs = {seed: curve for (label, seed), curve in smooth.items() if label == arm.label}
        if len(runs) > 1:
            look, meta = look_of(arm_numbers(result)[arm.label]), arm_meta(result, arm.label)
            mean = mean_curve(list(runs.values()))
            name = f"{arm.label}, mean over seeds"
            add_line(figure, mean, line(look, width=2.6), meta, name, points=points)
    _apply_scale(figure, ranges)
    return Panel(
        "All arms: moving averages",
        figure,
        "Falling lines: the moving average of the training loss over steps, thin for every seed, "
        "thick for the mean over the seeds of an arm.",
        height=360,
        wide=True,
    )


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean over runs of one arm, as far as all of them go."""
    shortest = min(len(steps) for steps, _ in curves)
    steps = curves[0][0][:shortest]
    return steps, np.mean([values[:shortest] for _, values in curves], axis=0)


def _loss_panel(
    result: Result,
    label: str,
    title: str,
    curves: Curves,
    smooth: Curves,
    per_run: int,
    ranges: Mapping[str, Any],
) -> Panel:
    figure = axes(x="step", y="loss of a batch")
    look, meta = look_of(arm_numbers(result)[label]), arm_meta(result, label)
    runs = {seed: curve for (name, seed), curve in sorted(curves.items()) if name == label}
    for seed, (steps, values) in runs.items():
        keep = thin(len(steps), per_run)
        figure.add_scatter(
            x=steps[keep].astype(np.int32),
            y=values[keep].astype(np.float32),
            mode="markers",
            marker={"color": look.faint(0.22), "size": 3.2},
            hovertemplate=f"step %{{x}}: %{{y:.4~g}}<extra>seed {seed}</extra>",
            meta=meta,
        )
    points = points_per_line(len(smooth))
    for seed in runs:
        curve = smooth[label, seed]
        add_line(figure, curve, line(look, width=1.5), meta, f"seed {seed}", points=points)
    ends = [run for run in final_runs(result, label) if run.status == "diverged"]
    for run in ends:
        _mark_end(figure, runs.get(run.seed), run.steps, run.seed)
    _apply_scale(figure, ranges)
    tail = f"; {amount(len(ends), 'run')} diverged, marked ×" if ends else ""
    return Panel(
        title,
        figure,
        f"A cloud of dots, the loss of single batches over steps, for {amount(len(runs), 'seed')} "
        f"of {label}, with a moving average through it per seed{tail}.",
        height=280,
    )


def _mark_end(figure: go.Figure, curve: Curve | None, step: int, seed: int) -> None:
    if curve is None or not np.isfinite(curve[1]).any():
        return
    last = int(np.flatnonzero(np.isfinite(curve[1]))[-1])
    figure.add_scatter(
        x=[int(curve[0][last])],
        y=[float(curve[1][last])],
        mode="markers",
        marker={"symbol": "x", "size": 10, "color": "#e5484d"},
        hovertemplate=f"seed {seed} diverged at step {step:,}<extra></extra>",
    )


def _loss_says(result: Result, curves: Curves, window: int) -> str:
    """The mean of the last batches, over the runs that came that far with a finite loss."""
    ends: dict[str, float] = {}
    for arm in result.arms:
        lasts = [
            float(values[-window:].mean())
            for (label, _), (_, values) in curves.items()
            if label == arm.label and np.isfinite(values[-window:]).all()
        ]
        if lasts:
            ends[arm.label] = float(np.mean(lasts))
    if not ends:
        return "No run has a finite training loss at its end."
    order = sorted(ends, key=lambda label: ends[label])
    low, high = order[0], order[-1]
    if len(order) == 1:
        return f"Over its last {window} batches {low} has a mean loss of {significant(ends[low])}."
    return (
        f"Over the last {window} batches {low} has the lowest mean loss, "
        f"{significant(ends[low])}; {high} has the highest, {significant(ends[high])}."
    )
