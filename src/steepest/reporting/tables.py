"""The tables of a report, computed once for the page, the terminal and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from steepest.numbers import Unit, fixed, p_text, significant, unit_of
from steepest.reporting.facts import (
    QUANTITIES,
    Quantity,
    arm_numbers,
    final_runs,
    final_values,
    finest_width,
    level_of,
    metric_words,
    result_unit,
    timed,
)
from steepest.stats import mean_interval

if TYPE_CHECKING:
    from steepest.racing.ledger import Timing
    from steepest.racing.result import Result
    from steepest.stats import PairVerdict

__all__ = [
    "DECISIONS",
    "TURNED",
    "Cell",
    "Table",
    "aligned",
    "final_table",
    "matrix_table",
    "pair_table",
    "ranking_table",
    "timing_table",
]

Align = Literal["left", "right"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What stands in it.
        arm: The number of the arm that it names, which gets its colour.
        tone: ``good``, ``bad`` or ``quiet`` for a decision; said in the text too.
        link: A page beside this one that the text leads to.
        more: What stands below it, smaller.
        ground: It lies on a ground of its tone, as in a matrix.
    """

    text: str
    arm: int | None = None
    tone: Literal["", "good", "bad", "quiet"] = ""
    link: str = ""
    more: str = ""
    ground: bool = False


@dataclass(frozen=True)
class Table:
    """A table, ready to be set.

    Attributes:
        caption: What one sees in it.
        columns: Heads.
        rows: One tuple of cells per row, as long as ``columns``.
        align: Per column.
        notes: What the columns mean, where that is not plain.
        spare: Columns that a narrow terminal leaves out, the first one first.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: tuple[Align, ...]
    notes: tuple[str, ...] = field(default=())
    spare: tuple[str, ...] = field(default=())


def aligned(*left: Align, to: Sequence[str]) -> tuple[Align, ...]:
    """The first columns as given, all others to the right, as numbers are."""
    right: list[Align] = ["right"] * (len(to) - len(left))
    return (*left, *right)


def ranking_table(result: Result) -> Table:
    """The arms from best to worst, with the interval over seeds."""
    numbers, unit = arm_numbers(result), result_unit(result)
    values = final_values(result)
    metric = metric_words(result.metric).capitalize()
    heads = ("#", "Arm", metric, "Worst seed", "Best seed", "Seeds", "Diverged")
    rows = []
    finest = finest_width(result)
    for place, row in enumerate(result.ranking, start=1):
        seeds = list(values[row.label].values())
        worst, best = (min(seeds), max(seeds)) if seeds else (math.nan, math.nan)
        if not result.higher_is_better:
            worst, best = best, worst
        rows.append(
            (
                Cell(str(place) if seeds else "–"),
                Cell(row.label, arm=numbers[row.label]),
                Cell(unit.mean(row.mean, row.low, row.high, finest=finest)),
                Cell(unit.value(worst, finest)),
                Cell(unit.value(best, finest)),
                Cell(str(row.n)),
                Cell(str(row.diverged), tone="bad" if row.diverged else "quiet"),
            )
        )
    level = significant(100 * level_of(result))
    better = "higher" if result.higher_is_better else "lower"
    return Table(
        f"Arms from best to worst by {metric_words(result.metric)} ({better} is better): "
        f"mean and {level} % interval over seeds",
        heads,
        tuple(rows),
        aligned("right", "left", to=heads),
    )


def pair_table(result: Result) -> Table:
    """Every pair of arms: the difference, how sure it is, and the decision."""
    numbers, unit = arm_numbers(result), result_unit(result)
    heads = (
        *("A", "B", "A − B", "Interval", "P(A better)", "p", "p (Holm)", "Decision"),
        "Seeds needed",
    )
    fair = result.verdict.valid
    rows = tuple(_pair_row(pair, numbers, unit, fair=fair) for pair in result.verdict.pairs)
    return Table(
        "Every pair of arms, compared seed by seed",
        heads,
        rows,
        ("left", "left", "right", "right", "right", "right", "right", "left", "right"),
        _pair_notes(result),
        ("p (Holm)",),
    )


def _pair_notes(result: Result) -> tuple[str, ...]:
    """What the columns mean, with the methods that were really used."""
    compared = [pair.comparison for pair in result.verdict.pairs]
    if not compared:
        return ()
    methods = sorted({c.method for c in compared})
    exact = "exact" if all(c.exact for c in compared) else "sampled where there are too many signs"
    levels = sorted({round(100 * c.level, 2) for c in compared})
    at = " to ".join(significant(level, 4) for level in dict.fromkeys((levels[0], levels[-1])))
    notes = [
        f"p: {' and '.join(methods)} test, two-sided, {exact}; Holm: corrected for the number of "
        f"pairs. The intervals ({at} %) are those that the correction leaves, so one excludes zero "
        "exactly when its pair is decided. P(A better): share of seeds on which A ended better.",
    ]
    if any(c.min_effect > 0 for c in compared):
        effect = result_unit(result).difference(compared[0].min_effect).lstrip("+")
        notes.append(f"Better and worse mean: by more than {effect}.")
    if any(c.seeds_needed is not None for c in compared):
        notes.append(
            "Seeds needed: all seeds, those at hand included, with which a difference of this "
            "size and spread would be decided with probability 0.8."
        )
    return tuple(notes)


def _pair_row(
    pair: PairVerdict, numbers: dict[str, int], unit: Unit, *, fair: bool
) -> tuple[Cell, ...]:
    c = pair.comparison
    sign, tone = DECISIONS[pair.decision]
    needed = "–" if pair.decision != "undecided" or c.identical else _needed(c.seeds_needed)
    who = {"better": "A better", "worse": "B better"}.get(pair.decision, pair.decision)
    decision = f"{sign} {who}"
    if not fair:
        decision, tone = "✗ not fair", "bad"
    elif c.identical:
        decision += " (identical)"
    elif c.negligible:
        decision += " (too small to matter)"
    return (
        Cell(pair.a, arm=numbers[pair.a]),
        Cell(pair.b, arm=numbers[pair.b]),
        Cell(unit.difference(c.difference, c.low, c.high)),
        Cell(unit.interval(c.low, c.high) if math.isfinite(c.difference) else "–"),
        Cell(fixed(c.prob_a_better, 2)),
        Cell(p_text(c.p_value)),
        Cell(p_text(pair.p_adjusted)),
        Cell(decision, tone=tone),
        Cell(needed),
    )


# The sign says what the colour says, for eyes and printers that see no colour.
DECISIONS: dict[str, tuple[str, Literal["good", "bad", "quiet"]]] = {
    "better": ("▲", "good"),
    "worse": ("▼", "bad"),
    "undecided": ("·", "quiet"),
}
TURNED: dict[str, Literal["better", "worse", "undecided"]] = {
    "better": "worse",
    "worse": "better",
    "undecided": "undecided",
}


def _needed(count: int | None) -> str:
    return "not known or > 1,000" if count is None else f"≈ {count:,}"


def final_table(result: Result) -> Table | None:
    """Every final value of every split as mean and interval; None without finished runs."""
    keys = sorted({key for run in final_runs(result) for key in run.metrics})
    keys = sorted(keys, key=lambda key: ("test", "val", "train").index(key.partition("_")[0]))
    if not keys:
        return None
    numbers, level = arm_numbers(result), level_of(result)
    rows = []
    for row in result.ranking:
        cells = [Cell(row.label, arm=numbers[row.label])]
        for key in keys:
            values = list(final_values(result, key)[row.label].values())
            unit = unit_of(key, values)
            cells.append(
                Cell(unit.mean(*mean_interval(np.array(values), level)) if values else "–")
            )
        rows.append(tuple(cells))
    heads = ("Arm", *(metric_words(key).capitalize() for key in keys))
    return Table(
        f"Final values: mean and {significant(100 * level)} % interval over seeds",
        heads,
        tuple(rows),
        aligned("left", to=heads),
    )


def matrix_table(result: Result) -> Table | None:
    """Who is better than whom at a glance, for three arms or more: row against column."""
    if len(result.arms) < 3 or not result.verdict.pairs:
        return None
    numbers, unit = arm_numbers(result), result_unit(result)
    cells: dict[tuple[str, str], Cell] = {}
    for pair in result.verdict.pairs:
        for a, b, decision, side in (
            (pair.a, pair.b, pair.decision, 1),
            (pair.b, pair.a, TURNED[pair.decision], -1),
        ):
            sign, tone = DECISIONS[decision]
            ends = sorted((side * pair.comparison.low, side * pair.comparison.high))
            value = side * pair.comparison.difference
            text = unit.difference(value, *ends).removesuffix(" points")
            share = pair.comparison.prob_a_better
            cells[a, b] = Cell(
                f"{sign} {text}" if math.isfinite(value) else sign,
                tone=tone,
                more=f"{unit.interval(*ends)} · P\N{NO-BREAK SPACE}"
                + fixed(share if side == 1 else 1 - share, 2),
                ground=True,
            )
    order = [row.label for row in result.ranking]
    rows = tuple(
        (
            Cell(f"{place} {a}", arm=numbers[a]),
            *(cells.get((a, b), Cell("–", tone="quiet")) for b in order),
        )
        for place, a in enumerate(order, start=1)
    )
    points = " in points" if unit.share else ""
    return Table(
        f"Row minus column{points}: ▲ the row is better, ▼ worse, · undecided",
        ("Arm", *(str(place) for place in range(1, len(order) + 1))),
        rows,
        aligned("left", to=("", *order)),
        (
            "Below each difference: its interval, and P, the share of seeds on which the row ended "
            "better.",
        ),
    )


def timing_table(result: Result) -> Table | None:
    """Medians of the timing pass; None if it was not run."""
    rows = timed(result)
    known = [q for q in QUANTITIES if any(q.key in of for of in rows.values())]
    if not known:
        return None
    numbers = arm_numbers(result)

    def cell(timing: Timing | None, quantity: Quantity) -> Cell:
        return Cell("–" if timing is None else quantity.write(timing.value))

    counts = {timing.n for of in rows.values() for timing in of.values() if timing.n > 1}
    n = f" (n = {min(counts):,})" if counts else ""
    heads = ("Arm", *(quantity.head for quantity in known))
    return Table(
        f"Cost: medians of an interleaved timing pass{n}",
        heads,
        tuple(
            (Cell(label, arm=numbers[label]), *(cell(of.get(q.key), q) for q in known))
            for label, of in rows.items()
        ),
        aligned("left", to=heads),
    )
