"""The figure about weights: how far apart the arms ended in every layer, beside the yardstick."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import fixed, significant
from steepest.reporting.drawing import INK, Panel, Picture, arm_meta, axes, plain, shorten
from steepest.reporting.facts import arm_numbers
from steepest.reporting.palette import look_of
from steepest.reporting.tables import Cell, Table

if TYPE_CHECKING:
    from steepest.racing.layers import LayerDifference
    from steepest.racing.result import Result

__all__ = ["layer_picture", "layer_table"]

MOST = 40  # layers drawn; the table has them all
MEASURES = {
    "relative_distance": ("Relative distance ‖a − b‖ / ‖a‖", "0: the same weights"),
    "cosine": ("Cosine of the two ways from the start", "1: the same direction, 0: unrelated"),
    "mean_difference": ("Mean difference a − b", "0: no shift of the whole layer"),
}


def _against_first(result: Result, rows: list[LayerDifference]) -> list[LayerDifference]:
    """The pairs with the first-ranked arm: among twelve arms there would be 66 pairs."""
    first = result.ranking[0].label
    return [row for row in rows if not row.is_yardstick and first in (row.arm_a, row.arm_b)]


def _other(result: Result, row: LayerDifference) -> str:
    return row.arm_b if row.arm_a == result.ranking[0].label else row.arm_a


def layer_picture(result: Result, rows: list[LayerDifference]) -> Picture | None:
    """Distance, cosine and mean difference per layer; None where no weights were compared."""
    between = _against_first(result, rows)
    yardsticks = [row for row in rows if row.is_yardstick]
    if not between:
        return None
    layers = list(dict.fromkeys(row.layer for row in between))
    shown = layers
    if len(layers) > MOST:
        far = {
            layer: max(r.relative_distance for r in between if r.layer == layer) for layer in layers
        }
        kept = set(sorted(layers, key=lambda layer: -far[layer])[:MOST])
        shown = [layer for layer in layers if layer in kept]
    notes = [
        f"Filled: {result.ranking[0].label} (a) against the arm of that colour (b), equal seeds, "
        "averaged over seeds. Hollow, the yardstick: two seeds of the arm of that colour.",
    ]
    if len(shown) < len(layers):
        notes.append(f"The {MOST} layers of {len(layers)} that differ most are drawn.")
    if not yardsticks:
        notes.append("One seed gives no yardstick.")
    return Picture(
        "layers",
        "How far apart the weights ended",
        _says(result, between, yardsticks),
        tuple(_panel(result, m, shown, between, yardsticks) for m in MEASURES),
        tuple(notes),
    )


def _panel(
    result: Result,
    measure: str,
    shown: list[str],
    between: list[LayerDifference],
    yardsticks: list[LayerDifference],
) -> Panel:
    title, hint = MEASURES[measure]
    figure = axes(x=hint, left=8)
    places = {layer: place for place, layer in enumerate(shown)}
    groups: dict[tuple[str, bool], list[LayerDifference]] = {}
    for row in between:
        groups.setdefault((_other(result, row), False), []).append(row)
    for row in yardsticks:
        groups.setdefault((row.arm_a, True), []).append(row)
    for (label, hollow), members in sorted(groups.items(), key=lambda item: not item[0][1]):
        look = look_of(arm_numbers(result)[label])
        drawn = [row for row in members if row.layer in places]
        said = f"two seeds of {label}" if hollow else f"{result.ranking[0].label} − {label}"
        figure.add_scatter(
            x=[_signed(result, row, measure) for row in drawn],
            y=[places[row.layer] for row in drawn],
            mode="markers",
            marker={
                "color": look.color,
                "size": 9,
                "symbol": look.symbol + ("-open" if hollow else ""),
                "line": {"width": 1.6, "color": look.color} if hollow else {"width": 0},
            },
            customdata=[row.layer for row in drawn],
            hovertemplate=f"%{{customdata}}: %{{x:.3~g}}<extra>{plain(said)}</extra>",
            meta=arm_meta(result, label),
        )
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[plain(shorten(layer, 24)) for layer in shown],
        range=[len(shown) - 0.4, -0.6],
        fixedrange=True,
    )
    if measure != "relative_distance":
        mark = 1.0 if measure == "cosine" else 0.0
        figure.add_vline(x=mark, line={"color": INK, "width": 1, "dash": "3px,3px"})
    else:
        figure.update_xaxes(rangemode="tozero")
    return Panel(
        title,
        figure,
        f"Marks per layer: {title}, between arms (filled) and between two seeds of one arm "
        "(hollow).",
        height=30 * len(shown) + 70,
    )


def _signed(result: Result, row: LayerDifference, measure: str) -> float:
    value: float = getattr(row, measure)
    turned = measure == "mean_difference" and not row.is_yardstick
    return -value if turned and row.arm_a != result.ranking[0].label else value


def _says(result: Result, between: list[LayerDifference], yardsticks: list[LayerDifference]) -> str:
    distance = float(np.median([row.relative_distance for row in between]))
    cosine = float(np.median([row.cosine for row in between]))
    others = list(dict.fromkeys(_other(result, row) for row in between))
    head = (
        f"{result.ranking[0].label} and {others[0] if len(others) == 1 else 'the others'} end "
        f"{significant(distance, 2)} apart in the median layer, having gone in directions with a "
        f"cosine of {fixed(cosine, 2)}"
    )
    own = [row.relative_distance for row in yardsticks if math.isfinite(row.relative_distance)]
    if not own or not np.median(own):
        return head + "."
    ratio = distance / float(np.median(own))
    return (
        f"{head}. That is {significant(ratio, 2)} times the distance between two seeds of one arm."
    )


def layer_table(result: Result, rows: list[LayerDifference]) -> Table | None:
    """Every layer of every pair and yardstick, for the page's details."""
    if not rows:
        return None
    numbers = arm_numbers(result)

    def cells(row: LayerDifference) -> tuple[Cell, ...]:
        other = (
            Cell("another seed", tone="quiet")
            if row.is_yardstick
            else Cell(row.arm_b, arm=numbers[row.arm_b])
        )
        values: tuple[Any, ...] = (row.mean_difference, row.relative_distance, row.cosine)
        return (
            Cell(row.layer),
            Cell(row.arm_a, arm=numbers[row.arm_a]),
            other,
            *(Cell(significant(value)) for value in values),
            Cell(str(row.n)),
        )

    heads = ("Layer", "a", "b", "Mean a − b", "‖a − b‖ / ‖a‖", "Cosine", "n")
    return Table(
        "Every layer: between arms with equal seeds, and between neighbouring seeds of one arm",
        heads,
        tuple(cells(row) for row in rows),
        ("left", "left", "left", "right", "right", "right", "right"),
    )
