"""The figure about learning rates: the metric against the rate, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import Unit, amount, significant
from steepest.reporting.drawing import (
    Panel,
    Picture,
    arm_meta,
    axes,
    line,
    name_rows,
    plain,
    shorten,
)
from steepest.reporting.facts import arm_numbers, metric_words
from steepest.reporting.palette import look_of
from steepest.reporting.tables import Cell, Table, aligned
from steepest.reporting.trials import candidates, trials_unit
from steepest.stats import NearBest, near_best_width, upper_envelope

if TYPE_CHECKING:
    from steepest.racing.result import Result
    from steepest.racing.rows import TuningRow

__all__ = [
    "Sensitivity",
    "near_text",
    "sensitivities",
    "sensitivity_picture",
    "sensitivity_table",
    "tolerance_of",
    "within_text",
]

ROW = 58
# What counts as near the best where no smallest difference that matters was given.
NEAR_SHARE = 0.01  # one percentage point
NEAR_RATIO = 0.05  # of the best value, for what is no share


@dataclass(frozen=True)
class Sensitivity:
    """How much an arm's result depends on its learning rate.

    Attributes:
        arm: Its label.
        rates: Of every trial.
        scores: Mean validation metric of every trial; NaN where it diverged.
        line_rates: Where the drawn curve has its points.
        line_scores: Mean over trials with this very rate, or best of a group of neighbours.
        exact: Nothing but the learning rate was searched.
        near: The near-best region; None where every rate diverged.
    """

    arm: str
    rates: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    line_rates: np.ndarray[Any, Any]
    line_scores: np.ndarray[Any, Any]
    exact: bool
    near: NearBest | None


def tolerance_of(result: Result, tuning: TuningRow) -> float:
    """How far from its best a setting may be and still count as near it, in the metric's units."""
    if result.spec["min_effect"]:
        return float(result.spec["min_effect"])
    if trials_unit(result, tuning).share:
        return NEAR_SHARE
    best = [abs(t.score) for t in result.trials if t.selected and math.isfinite(t.score)]
    return NEAR_RATIO * min(best, default=1.0)


def sensitivities(result: Result) -> list[Sensitivity]:
    """Of every arm whose learning rate was searched, in the order of the plan."""
    tuning = result.tuning
    if tuning is None:
        return []
    found = []
    for arm in result.arms:
        trials = [t for t in candidates(result, arm.label) if "lr" in t.searched]
        if not trials:
            continue
        rates = np.array([float(t.values["lr"]) for t in trials])
        scores = np.array([t.score for t in trials])
        exact = all(set(t.searched) == {"lr"} for t in trials)
        higher = tuning.higher_is_better
        if exact:
            at = np.unique(rates)
            values = np.array([scores[rates == rate].mean() for rate in at])
        else:
            groups = int(np.clip(len(trials) // 3, 3, 8))
            at, values = upper_envelope(rates, scores, higher_is_better=higher, groups=groups)
        near = None
        if np.isfinite(values).any():
            tolerance = tolerance_of(result, tuning)
            near = near_best_width(at, values, tolerance=tolerance, higher_is_better=higher)
        found.append(Sensitivity(arm.label, rates, scores, at, values, exact, near))
    return found


def sensitivity_picture(result: Result) -> Picture | None:
    """The metric against the learning rate, trial by trial, and how wide the good region is."""
    tuning, rows = result.tuning, sensitivities(result)
    if tuning is None or not rows:
        return None
    unit = trials_unit(result, tuning)
    within = within_text(tolerance_of(result, tuning), unit)
    notes = [
        "A mark is one trial: its mean over the tuning seeds at the end of training. "
        + _below_words(rows, tuning)
        + f"Near its best means within {within} of the arm's own best; a bar with an open end "
        "(‹ ›) reaches the last rate that was tried and may go on."
    ]
    kinds = {row.exact for row in rows}
    if True in kinds:
        exact = "Where only the learning rate was searched" if False in kinds else "As only the "
        exact += "" if False in kinds else "learning rate was searched"
        notes.append(f"{exact}, the line joins the trials and the width is measured on it.")
    if False in kinds:
        others = "Where other settings were searched too" if True in kinds else "Other settings "
        others += "" if True in kinds else "were searched too, so"
        notes.append(
            f"{others}{',' if True in kinds else ''} the line is an upper envelope: the best trial "
            "of each group of neighbouring rates. It shows what a rate can reach if the other "
            "settings suit it."
        )
    if len(tuning.rungs) > 1:
        notes.append(_halving_words(tuning))
    return Picture(
        "sensitivity",
        "How much depends on the learning rate",
        _sensitivity_says(rows, within),
        (_rates_panel(result, tuning, rows, unit), _near_panel(result, rows)),
        tuple(notes),
    )


def _halving_words(tuning: TuningRow) -> str:
    steps = ", ".join(f"{count:,}" for count in tuning.rungs)
    return (
        f"Successive halving: trials ran for {steps} steps as long as they were among the best, "
        "and each stands at the value of its longest run."
    )


def _floor(rows: Sequence[Sensitivity], tuning: TuningRow) -> float:
    """The worst value that is drawn in its place: bad trials must not squash the good ones."""
    sign = 1.0 if tuning.higher_is_better else -1.0
    every = sign * np.concatenate([row.scores[np.isfinite(row.scores)] for row in rows])
    if not len(every):
        return -math.inf
    bests = [
        float((sign * row.scores[np.isfinite(row.scores)]).max())
        for row in rows
        if np.isfinite(row.scores).any()
    ]
    reach = max(max(bests) - min(bests), float(np.ptp(every)) * 0.05)
    return sign * min(min(bests) - 1.5 * reach, float(np.quantile(every, 0.4)))


def _below(rows: Sequence[Sensitivity], tuning: TuningRow) -> int:
    sign, floor = (1.0 if tuning.higher_is_better else -1.0), _floor(rows, tuning)
    return sum(int((sign * row.scores < sign * floor).sum()) for row in rows)


def _below_words(rows: Sequence[Sensitivity], tuning: TuningRow) -> str:
    below = _below(rows, tuning)
    lost = sum(int((~np.isfinite(row.scores)).sum()) for row in rows)
    text = ""
    if below:
        text += (
            f"{amount(below, 'trial')} worse than the drawn range "
            f"{'stands' if below == 1 else 'stand'} hollow at its edge. "
        )
    if lost:
        text += f"{amount(lost, 'trial')} without a value (×) diverged or failed. "
    return text


def _rates_panel(
    result: Result, tuning: TuningRow, rows: Sequence[Sensitivity], unit: Unit
) -> Panel:
    words = metric_words(tuning.metric)
    better = "higher" if tuning.higher_is_better else "lower"
    suffix = " (%)" if unit.share else ""
    figure = axes(x="learning rate", y=f"{words}{suffix} · {better} is better")
    sign = 1.0 if tuning.higher_is_better else -1.0
    floor = _floor(rows, tuning)
    values = np.concatenate([row.scores[np.isfinite(row.scores)] for row in rows])
    top = float((sign * values).max()) if len(values) else 1.0
    bottom = sign * floor if math.isfinite(floor) else 0.0
    room = (top - bottom) or 1.0
    edge = sign * (bottom - 0.06 * room)
    lost = sign * (bottom - 0.15 * room)
    for row in rows:
        look, meta = look_of(arm_numbers(result)[row.arm]), arm_meta(result, row.arm)
        shown = np.where(sign * row.line_scores < sign * floor, edge, row.line_scores)
        figure.add_scatter(
            x=row.line_rates,
            y=shown * unit.factor,
            mode="lines",
            line=line(look, width=2),
            hoverinfo="skip",
            meta=meta,
        )
    for row in rows:
        look, meta = look_of(arm_numbers(result)[row.arm]), arm_meta(result, row.arm)
        gone = ~np.isfinite(row.scores)
        below = ~gone & (sign * row.scores < sign * floor)
        y = np.where(gone, lost, np.where(below, edge, row.scores)) * unit.factor
        symbols = [
            "x" if g else look.symbol + "-open" if b else look.symbol
            for g, b in zip(gone, below, strict=True)
        ]
        figure.add_scatter(
            x=row.rates,
            y=y,
            mode="markers",
            marker={"color": look.faint(0.85), "size": 8, "symbol": symbols},
            customdata=[
                f"lr {significant(rate)}: {'no value' if g else unit.value(score)}"
                for rate, score, g in zip(row.rates, row.scores, gone, strict=True)
            ],
            hovertemplate=f"%{{customdata}}<extra>{plain(row.arm)}</extra>",
            meta=meta,
        )
    ends = sorted((sign * (bottom - 0.2 * room), sign * (top + 0.08 * room)))
    figure.update_yaxes(range=[end * unit.factor for end in ends])
    figure.update_xaxes(type="log", tickformat="~g", **log_ticks(rows))
    return Panel(
        f"{words.capitalize()} of every trial",
        figure,
        f"Marks: {words} against the learning rate, a trial each; a line per arm joins the means "
        "or the best of neighbouring trials.",
        height=380,
    )


def log_ticks(rows: Sequence[Sensitivity]) -> dict[str, Any]:
    """Ticks at powers of ten, or also at 2 and 5 where there are few decades."""
    rates = np.concatenate([row.rates for row in rows])
    low, high = math.log10(rates.min()), math.log10(rates.max())
    pad = max(0.06 * (high - low), 0.05)
    step = max(1, math.ceil((high - low) / 6)) if high - low > 1.5 else "D2"
    return {"range": [low - pad, high + pad], "dtick": step, "nticks": None}


def _near_panel(result: Result, rows: Sequence[Sensitivity]) -> Panel:
    figure = axes(x="learning rate", left=8)
    names = []
    for place, row in enumerate(rows):
        look, meta = look_of(arm_numbers(result)[row.arm]), arm_meta(result, row.arm)
        if row.near is None:
            names.append(f"{shorten(row.arm, 28)} · diverged at every rate")
            continue
        near = row.near
        names.append(f"{shorten(row.arm, 28)} · {near_text(near)}")
        figure.add_scatter(
            x=[near.low, near.high],
            y=[place + 0.1] * 2,
            mode="lines",
            line={"color": look.color, "width": 7},
            hovertemplate=f"%{{x:.3~g}}<extra>{plain(row.arm)}</extra>",
            meta=meta,
        )
        figure.add_scatter(
            x=[near.best],
            y=[place + 0.1],
            mode="markers",
            marker={"color": look.color, "size": 13, "symbol": look.symbol,
                    "line": {"width": 1.5, "color": "rgba(255,255,255,0.85)"}},
            hovertemplate=f"best: %{{x:.3~g}}<extra>{plain(row.arm)}</extra>",
            meta=meta,
        )  # fmt: skip
        for open_end, at, sign in (
            (near.open_low, near.low, "‹"),
            (near.open_high, near.high, "›"),
        ):
            if open_end:
                figure.add_annotation(
                    x=math.log10(at),
                    y=place + 0.08,
                    text=sign,
                    showarrow=False,
                    xshift=-9 if sign == "‹" else 9,
                    font={"size": 18},
                )
    name_rows(figure, names)
    figure.update_xaxes(type="log", tickformat="~g", **log_ticks(rows))
    return Panel(
        "Where the rates are near the best",
        figure,
        "A bar per arm over the rates at which it is near its best, a mark at the best. "
        + "; ".join(names),
        height=max(380, ROW * len(rows) + 66),
    )


def within_text(tolerance: float, unit: Unit) -> str:
    """A tolerance in words.

    >>> [within_text(x, Unit(True)) for x in (0.01, 0.0005)], within_text(0.2, Unit(False))
    (['1 point', '0.05 points'], '0.2')
    """
    number = significant(tolerance * unit.factor)
    return f"{number} point{'' if number == '1' else 's'}" if unit.share else number


def near_text(near: NearBest) -> str:
    """The width of the near-best region in words.

    >>> near_text(NearBest(best=0.1, low=0.01, high=0.3, decades=1.477, open_low=True,
    ...                    open_high=False))
    '≥ 1.5 decades'
    """
    some = "≥ " if near.open_low or near.open_high else ""
    return f"{some}{significant(near.decades, 2)} decades"


def _sensitivity_says(rows: Sequence[Sensitivity], within: str) -> str:
    known = [(row.arm, row.near) for row in rows if row.near is not None]
    if not known:
        return "Every learning rate that was tried diverged."
    wide = max(known, key=lambda item: item[1].decades)
    slim = min(known, key=lambda item: item[1].decades)
    widths = [near_text(near).replace("≥", "at least") for near in (wide[1], slim[1])]
    head = f"{wide[0]} stays within {within} of its best over {widths[0]} of learning rate"
    return head + (f", {slim[0]} over {widths[1]}." if len(known) > 1 else ".")


def sensitivity_table(result: Result) -> Table | None:
    """The near-best region of every arm in numbers."""
    tuning, rows = result.tuning, sensitivities(result)
    if tuning is None or not rows:
        return None
    numbers, unit = arm_numbers(result), trials_unit(result, tuning)
    within = within_text(tolerance_of(result, tuning), unit)
    heads = ("Arm", "Best rate", "Near best from", "to", "Width", "Measured on", "Trials")

    def cells(row: Sensitivity) -> tuple[Cell, ...]:
        how = "every rate" if row.exact else "upper envelope"
        tail = (Cell(how), Cell(str(len(row.rates))))
        if row.near is None:
            return (Cell(row.arm, arm=numbers[row.arm]), *([Cell("–")] * 4), *tail)
        near = row.near
        return (
            Cell(row.arm, arm=numbers[row.arm]),
            Cell(significant(near.best)),
            Cell(f"{'≤ ' if near.open_low else ''}{significant(near.low)}"),
            Cell(f"{'≥ ' if near.open_high else ''}{significant(near.high)}"),
            Cell(near_text(near)),
            *tail,
        )

    return Table(
        f"Learning rates that are within {within} of the arm's best",
        heads,
        tuple(cells(row) for row in rows),
        aligned("left", to=heads),
    )
