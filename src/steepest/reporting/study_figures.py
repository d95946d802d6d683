"""The figures of a study: where every variant ended, and what is particular to its kind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import significant
from steepest.reporting.chart import Chart, Line, panel
from steepest.reporting.drawing import Panel, Picture, axes, name_rows, plain
from steepest.reporting.facts import metric_words
from steepest.reporting.palette import COLORS, look_of
from steepest.stats import mean_interval

if TYPE_CHECKING:
    from steepest.studies.study import Study

__all__ = [
    "amounts_picture",
    "calibration_picture",
    "curves_picture",
    "results_picture",
    "sizes_picture",
]

Numbers = np.ndarray[Any, np.dtype[Any]]


def _color(study: Study, key: str) -> str:
    keys = [variant.key for variant in study.variants]
    return look_of(keys.index(key)).color


def results_picture(study: Study) -> Picture | None:
    """Every variant on every seed, and the comparisons."""
    if not any(np.isfinite(study.values(v.key)).any() for v in study.variants):
        return None
    level = significant(100 * study.spec["level"])
    return Picture(
        "results",
        f"Where they ended: {metric_words(study.metric)}",
        _best(study),
        (_ends(study), _differences(study)),
        (
            f"A dot is one seed; the diamond and bar are the mean over seeds and its {level} % "
            "interval. Differences are taken seed by seed, so what the seeds have in common "
            "drops out.",
        ),
    )


def _best(study: Study) -> str:
    """Which variant has the best mean, and how good it is."""
    unit = study.unit()
    means = {v.key: study.interval(v.key) for v in study.variants}
    known = {key: of for key, of in means.items() if math.isfinite(of[0])}
    best = (max if study.higher_is_better else min)(known, key=lambda key: known[key][0])
    text = unit.mean(*known[best])
    return f"The best mean has {study.variant(best).label}: {text} over the seeds."


def _rows_of_dots(
    figure: Any, rows: list[tuple[str, Numbers, tuple[float, float, float]]], factor: float
) -> None:
    for place, (color, values, (mean, low, high)) in enumerate(rows):
        good = values[np.isfinite(values)] * factor
        spread = np.linspace(-0.14, 0.14, len(good)) if len(good) > 1 else np.zeros(len(good))
        figure.add_scatter(
            x=good,
            y=place + spread,
            mode="markers",
            marker={"color": color, "size": 6, "opacity": 0.5},
            hovertemplate="%{x:.5~g}<extra></extra>",
        )
        if not math.isfinite(mean):
            continue
        if math.isfinite(low) and math.isfinite(high):
            figure.add_scatter(
                x=[low * factor, high * factor],
                y=[place, place],
                mode="lines",
                line={"color": color, "width": 3},
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=[mean * factor],
            y=[place],
            mode="markers",
            marker={"color": color, "size": 11, "symbol": "diamond"},
            hovertemplate="%{x:.5~g}<extra>mean</extra>",
        )


def _ends(study: Study) -> Panel:
    unit = study.unit()
    words = metric_words(study.metric) + (", %" if unit.share else "")
    figure = axes(x=words, left=12)
    shown = study.variants
    _rows_of_dots(
        figure,
        [(_color(study, v.key), study.values(v.key), study.interval(v.key)) for v in shown],
        unit.factor,
    )
    name_rows(figure, [v.label for v in shown])
    return Panel(
        "Every variant on every seed",
        figure,
        f"{metric_words(study.metric)} of {', '.join(v.label for v in shown)}",
        height=70 + 62 * len(shown),
    )


def _differences(study: Study) -> Panel:
    unit = study.unit()
    figure = axes(x="difference" + (", points" if unit.share else ""), left=12)
    rows, names = [], []
    for contrast in study.contrasts:
        c = contrast.comparison
        values = study.values(contrast.a.key) - study.values(contrast.b.key)
        rows.append((_color(study, contrast.a.key), values, (c.difference, c.low, c.high)))
        names.append(f"{contrast.a.label} − {contrast.b.label}")
    _rows_of_dots(figure, rows, unit.factor)
    figure.add_vline(x=0, line={"color": "#858b94", "width": 1, "dash": "4px,3px"})
    name_rows(figure, names)
    side = "right" if study.higher_is_better else "left"
    return Panel(
        f"Differences seed by seed ({side} of zero is better)",
        figure,
        f"differences of {', '.join(names)}",
        height=70 + 62 * max(len(rows), 1),
    )


def curves_picture(study: Study) -> Picture | None:
    """The averages and the raw weights on the way, on the validation data."""
    curves = [row["curves"] for row in study.rows if row.get("curves")]
    if not curves:
        return None
    unit, watched = study.unit(), str(study.spec["watched"])
    lines = []
    for variant in study.variants:
        steps = sorted({int(s) for of in curves for s, _ in of.get(variant.key, [])})
        if not steps:
            continue
        table = [dict(of.get(variant.key, [])) for of in curves]
        means = [
            mean_interval([of[s] * unit.factor for of in table if s in of], study.spec["level"])
            for s in steps
        ]
        mean, low, high = (np.array(column) for column in zip(*means, strict=True))
        lines.append(
            Line(
                x=np.array(steps, np.float64),
                y=mean,
                low=low,
                high=high,
                name=variant.label,
                color=_color(study, variant.key),
            )
        )
    chart = Chart(
        title=f"{metric_words(watched).capitalize()} on the way",
        lines=lines,
        x_title="step",
        y_title="%" if unit.share else "",
        legend=True,
        alt=f"{metric_words(watched)} over the steps, mean over seeds",
    )
    return Picture(
        "curves",
        "On the way",
        "How far a curve lies from that of the raw weights is what averaging would be worth if "
        "training ended there.",
        (panel(chart, height=330, wide=True),),
        ("Lines are means over seeds, bands their intervals; the end is in the figure above.",),
    )


def sizes_picture(study: Study) -> Picture | None:
    """What one more member is worth."""
    tables = [np.array(row["sizes"], float) for row in study.rows if row.get("sizes")]
    if not tables:
        return None
    unit, level = study.unit(), study.spec["level"]
    all_of = np.array(tables) * unit.factor
    sizes = np.arange(1, all_of.shape[1] + 1)
    means = [mean_interval(all_of[:, i], level) for i in range(len(sizes))]
    mean, low, high = (np.array(column) for column in zip(*means, strict=True))
    which = "the last k snapshots" if study.kind == "snapshots" else "k members"
    best = int(sizes[mean.argmax() if study.higher_is_better else mean.argmin()])
    lines = [
        Line(x=sizes, y=mean, low=low, high=high, name=f"ensemble of {which}", color=COLORS[0])
    ]
    if study.kind == "snapshots":
        single = np.array([row["single"][study.metric][::-1] for row in study.rows
                           if row.get("sizes")], float) * unit.factor  # fmt: skip
        middle = single.mean(0)
        lines.append(
            Line(x=sizes, y=middle, name="the k-th last alone", color=COLORS[1], dash="dashed")
        )
    chart = Chart(
        title=f"{metric_words(study.metric).capitalize()} of an ensemble of {which}",
        lines=lines,
        x_title="k",
        y_title="%" if unit.share else "",
        legend=True,
        alt=f"{metric_words(study.metric)} by the number of members",
    )
    return Picture(
        "sizes",
        "How many",
        f"Over the seeds the mean is best at k = {best} of {len(sizes)}. That is hindsight: the "
        "ensemble above has the number that was asked for.",
        (panel(chart, height=300, wide=True),),
    )


def calibration_picture(study: Study) -> Picture | None:
    """Confidence against accuracy, of the ensemble and of its members."""
    rows = [row["reliability"] for row in study.rows if "reliability" in row]
    if not rows:
        return None
    lines = [
        Line(
            x=np.array([0.0, 100.0]), y=np.array([0.0, 100.0]), name="as sure as right",
            color="#858b94", dash="dashed", width=1.2,
        )
    ]  # fmt: skip
    names = {"ensemble": "the ensemble", "members": "a member alone"}
    for number, (key, name) in enumerate(names.items()):
        count, sure, right = (
            np.sum([row[key][part] for row in rows], axis=0)
            for part in ("count", "confidence", "right")
        )
        full = count > 0
        lines.append(
            Line(
                x=100 * sure[full] / count[full],
                y=100 * right[full] / count[full],
                name=name,
                color=COLORS[number],
            )
        )
    split = study.metric.partition("_")[0]
    error = f"{split}_calibration_error"
    ensemble, _, _ = study.interval("ensemble", error)
    singles = [np.mean(row["single"][error]) for row in study.rows if "single" in row]
    chart = Chart(
        title="Right how often, when so sure",
        lines=lines,
        x_title="confidence, %",
        y_title="right, %",
        legend=True,
        alt="reliability diagram of the ensemble and of its members",
    )
    return Picture(
        "calibration",
        "Does it know when it is wrong?",
        f"The expected calibration error is {significant(100 * ensemble)} points for the ensemble "
        f"and {significant(100 * float(np.mean(singles)))} for a member alone. Above the diagonal "
        "a predictor is less sure than it could be, below it more.",
        (panel(chart, height=340),),
        ("Bins of equal width, pooled over seeds.",),
    )


def amounts_picture(study: Study) -> Picture | None:
    """Every way of beginning, by the amount of data; None for a study that has one amount."""
    amounts = study.spec.get("amounts") or []
    if len(amounts) < 2:
        return None
    unit = study.unit()
    lines = []
    for number, way in enumerate(study.spec["ways"]):
        found = [study.interval(f"{way}/{n}") for n in amounts]
        mean, low, high = (np.array(c) * unit.factor for c in zip(*found, strict=True))
        lines.append(
            Line(
                x=np.array(amounts, float), y=mean, low=low, high=high, name=plain(way),
                color=COLORS[number],
            )
        )  # fmt: skip
    chart = Chart(
        title=f"{metric_words(study.metric).capitalize()} by labelled examples",
        lines=lines,
        x_title="labelled examples",
        x_scale="log",
        x_range=(amounts[0] / 1.1, amounts[-1] * 1.1),  # room for the outermost ticks
        y_title="%" if unit.share else "",
        legend=True,
        alt=f"{metric_words(study.metric)} by the number of labelled examples",
    )
    return Picture(
        "amounts",
        "How much data it takes",
        "Lines are means over seeds, bands their intervals; every seed has examples of its own.",
        (panel(chart, height=330, wide=True),),
    )
