"""The figures about a search: which hyperparameters matter, and what each method saw of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, fixed, p_text, significant
from steepest.racing.searched import Coverage, Searched, searched
from steepest.reporting.drawing import INK, Panel, Picture, arm_meta, axes, name_rows, plain
from steepest.reporting.facts import arm_numbers, level_of
from steepest.reporting.palette import look_of
from steepest.reporting.tables import Cell, Table, aligned
from steepest.tune import Choice, Range, Space

if TYPE_CHECKING:
    from steepest.racing.result import Result

__all__ = [
    "coverage_says",
    "importance_picture",
    "importance_says",
    "importance_table",
    "methods_picture",
    "search_json",
]

ROW = 46  # height of one hyperparameter, in CSS pixels


def importance_picture(result: Result) -> Picture | None:
    """The share of the differences between trials that each hyperparameter explains."""
    if result.tuning is None:
        return None
    found = [searched(result, arm) for arm in result.tuned]
    level = significant(100 * level_of(result))
    panels = [_importance_panel(result, one, level) for one in found if one.importances.rows]
    if not panels:
        return None
    return Picture(
        "importance",
        "Which hyperparameters matter",
        " ".join(importance_says(one) for one in found),
        tuple(panels),
        (
            "A mark is the share of the variance of the trials' ranks that the hyperparameter "
            f"explains by itself, with its {level} % interval; full marks can be told from noise, "
            "all hyperparameters of the arm taken together. What is missing from 100 % is "
            "interactions, shapes that no parabola follows, and noise between runs. It is about "
            "this space: over a narrower range the same hyperparameter matters less.",
        ),
    )


def importance_says(one: Searched) -> str:
    """What can be claimed about an arm's hyperparameters, in one or two sentences."""
    found = one.importances
    if found.reason:
        return f"{one.arm}: {found.reason}."
    rest = [row.name for row in found.rows if not row.clear]
    if not found.clear:
        return (
            f"{one.arm}: nothing that was searched ({', '.join(rest)}) can be told from noise with "
            f"{amount(found.trials, 'trial')}."
        )
    shares = [
        f"{row.name} explains {_percent(row.share)} ({_span(row.low, row.high)})"
        if place == 0
        else f"{row.name} {_percent(row.share)} ({_span(row.low, row.high)})"
        for place, row in enumerate(found.clear)
    ]
    tail = f"; {_and(rest)} cannot be told from noise" if rest else ""
    trials = amount(found.trials, "trial")
    return f"{one.arm}: {_and(shares)} of the differences between its {trials}{tail}."


def importance_table(result: Result) -> Table | None:
    """The same in numbers, for all tuned arms."""
    if result.tuning is None:
        return None
    numbers = arm_numbers(result)
    rows = [
        (
            Cell(one.arm, arm=numbers[one.arm]),
            Cell(row.name),
            Cell(_percent(row.share)),
            Cell(_span(row.low, row.high)),
            Cell(p_text(row.p)),
            Cell("matters") if row.clear else Cell("not told from noise", tone="quiet"),
        )
        for one in (searched(result, arm) for arm in result.tuned)
        for row in one.importances.rows
    ]
    if not rows:
        return None
    columns = ("Arm", "Hyperparameter", "Explains", "Interval", "p", "")
    return Table(
        "Which hyperparameters matter: share of the differences between an arm's trials",
        columns,
        tuple(rows),
        (*aligned("left", "left", to=columns)[:-1], "left"),
        ("p is corrected for looking at all hyperparameters of the arm (Holm).",),
    )


def methods_picture(result: Result) -> Picture | None:
    """What each method saw of the hyperparameter that matters; for a search of one arm."""
    if result.tuning is None or len(result.tuned) != 1:
        return None
    one = searched(result)
    if not one.coverage or one.space.dim < 2:
        return None
    return Picture(
        "methods",
        f"What each method saw of {one.focus}",
        coverage_says(one),
        tuple(_method_panel(result, one, coverage) for coverage in one.coverage),
        (
            "Each panel has as many trials as the search; the ticks below are their projection on "
            f"{one.focus}. Full marks were trained, the fuller the better they came out; hollow "
            "ones are what the method would have tried, and nothing was trained for them.",
            "Of a grid every value is tried again for each value of the others, which is worth it "
            "only if the others matter (Bergstra & Bengio, JMLR 13, 2012).",
        ),
    )


def coverage_says(one: Searched) -> str:
    """How many values of the hyperparameter in focus each method saw, in one sentence."""
    if not one.coverage:
        return "The search is not over."
    parts = []
    for coverage in one.coverage:
        values = f"{amount(coverage.values, 'value')} of {one.focus}"
        if not math.isnan(coverage.gap):
            values += f", at widest {_percent(coverage.gap)} of its range apart"
        verb = "tried" if coverage.ran else "would have tried"
        parts.append(f"{coverage.method} {verb} {values}")
    return f"With {amount(len(one.trials), 'trial')}: {'; '.join(parts)}."


def search_json(one: Searched) -> dict[str, Any]:
    """What is known about the search, as plain values."""
    return {
        "arm": one.arm,
        "space": one.space.spec(),
        "focus": one.focus,
        "importances": {
            "trials": one.importances.trials,
            "reason": one.importances.reason,
            "rest": one.importances.rest,
            "rows": [vars(row) for row in one.importances.rows],
        },
        "coverage": [
            {"method": c.method, "ran": c.ran, "values": c.values, "widest_gap": c.gap}
            for c in one.coverage
        ],
        "scores": [
            {"trial": trial.number, "values": dict(trial.values), "score": score}
            for trial, score in zip(one.trials, one.scores, strict=True)
        ],
    }


def _importance_panel(result: Result, one: Searched, level: str) -> Panel:
    rows = one.importances.rows
    look, meta = look_of(arm_numbers(result)[one.arm]), arm_meta(result, one.arm)
    figure = axes(x="share of the differences between trials (%)", left=8)
    shares = [100 * max(row.share, 0.0) for row in rows]
    figure.add_scatter(
        x=shares,
        y=list(range(len(rows))),
        mode="markers",
        marker={
            "size": 11,
            "symbol": [look.symbol if row.clear else f"{look.symbol}-open" for row in rows],
            "color": look.color,
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * row.high - x for row, x in zip(rows, shares, strict=True)],
            "arrayminus": [x - 100 * row.low for row, x in zip(rows, shares, strict=True)],
            "color": look.color,
            "thickness": 2,
            "width": 5,
        },
        customdata=[plain(f"{row.name}: p {p_text(row.p)}") for row in rows],
        hovertemplate=f"%{{customdata}}, %{{x:.0f}} %<extra>{plain(one.arm)}</extra>",
        meta=meta,
    )
    name_rows(figure, [row.name for row in rows])
    figure.update_xaxes(range=[-2, 102])
    return Panel(
        one.arm,
        figure,
        f"A mark with a {level} % interval for each hyperparameter of {one.arm}: "
        + "; ".join(f"{row.name} {_percent(row.share)}" for row in rows),
        height=ROW * len(rows) + 70,
    )


def _method_panel(result: Result, one: Searched, coverage: Coverage) -> Panel:
    names = list(one.space.dimensions)
    other = _second(one)
    x = coverage.points[:, names.index(one.focus)]
    y = coverage.points[:, names.index(other)]
    look, meta = look_of(arm_numbers(result)[one.arm]), arm_meta(result, one.arm)
    figure = axes(x=one.focus, y=other)
    if coverage.ran:
        scores = np.array(one.scores)
        better = scores if result.higher_is_better else -scores
        order = np.argsort(np.argsort(np.nan_to_num(better, nan=-np.inf)))
        shades = 0.2 + 0.8 * order / max(1, len(order) - 1)
        color = [look.faint(round(float(shade), 2)) for shade in shades]
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "size": 9,
            "symbol": look.symbol if coverage.ran else "circle-open",
            "color": color if coverage.ran else INK,
        },
        hoverinfo="skip",
        meta=meta,
    )
    figure.add_scatter(
        x=np.unique(x.round(9)),
        y=np.full(coverage.values, -0.13),
        mode="markers",
        marker={
            "size": 13,
            "symbol": "line-ns",
            "line": {"width": 1.5, "color": look.color if coverage.ran else INK},
        },
        hoverinfo="skip",
        meta=meta,
    )
    figure.update_xaxes(range=[-0.05, 1.05], **_ticks(one.space.dimensions[one.focus]))
    figure.update_yaxes(range=[-0.2, 1.05], **_ticks(one.space.dimensions[other]))
    seen = amount(coverage.values, "value")
    return Panel(
        f"{coverage.method}: {seen} of {one.focus}" + ("" if coverage.ran else " (not run)"),
        figure,
        f"Marks over {one.focus} and {other}: the {len(x)} settings of {coverage.method}; below "
        f"them a tick for each of {seen} of {one.focus}.",
        height=280,
    )


def _second(one: Searched) -> str:
    """The hyperparameter that is drawn upwards: the most important one beside the focus."""
    rows = [row.name for row in one.importances.rows if row.name != one.focus]
    return (rows or [name for name in one.space.dimensions if name != one.focus])[0]


def _ticks(dimension: Range | Choice) -> dict[str, Any]:
    """The values at places of the unit cube."""
    if isinstance(dimension, Choice):
        count = len(dimension.values)
        return {
            "tickvals": [(i + 0.5) / count for i in range(count)],
            "ticktext": [plain(str(value)) for value in dimension.values],
        }
    space = Space({"x": dimension})
    at = (0.0, 0.5, 1.0)
    return {"tickvals": list(at), "ticktext": [significant(space.at([u])["x"]) for u in at]}


def _percent(share: float) -> str:
    return f"{fixed(100 * max(share, 0.0), 0)}\N{NO-BREAK SPACE}%"


def _span(low: float, high: float) -> str:
    return f"{fixed(100 * low, 0)} to {_percent(high)}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
