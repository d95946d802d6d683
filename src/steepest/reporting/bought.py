"""What was chosen, and what tuning bought: the defaults of an arm beside its tuned setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steepest.numbers import amount, fixed, p_text, significant
from steepest.reporting.drawing import (
    INK,
    Panel,
    Picture,
    arm_meta,
    axes,
    name_rows,
    plain,
    shorten,
)
from steepest.reporting.facts import arm_numbers, level_of, metric_words, result_unit
from steepest.reporting.palette import look_of
from steepest.reporting.tables import Cell, Table, aligned
from steepest.reporting.trials import candidates, setting_text, trials_unit
from steepest.stats import Comparison, compare

if TYPE_CHECKING:
    from steepest.racing.result import Result
    from steepest.racing.rows import RunRow

__all__ = ["Gain", "bought_picture", "bought_table", "gains", "settings_table"]

ROW = 64


def settings_table(result: Result) -> Table | None:
    """The setting of every arm's final stage, how it was found, and whether it lies at an edge."""
    tuning = result.tuning
    if tuning is None:
        return None
    numbers, unit = arm_numbers(result), trials_unit(result, tuning)
    rows = []
    for arm in result.arms:
        chosen = result.chosen(arm.label)
        trials = candidates(result, arm.label)
        lost = sum(not math.isfinite(t.score) for t in trials)
        if chosen is None:
            setting, score, edge = "not chosen yet", "–", Cell("–", tone="quiet")
        elif not chosen.searched:
            setting = setting_text(chosen.values) or "defaults"
            score, edge = "–", Cell("given, not tuned", tone="quiet")
        else:
            setting, score = setting_text(chosen.searched), unit.value(chosen.score)
            edge = Cell("inside", tone="quiet")
            if chosen.edges:
                edge = Cell("⚠ " + "; ".join(chosen.edges), tone="bad")
        rows.append(
            (
                Cell(arm.label, arm=numbers[arm.label]),
                Cell(setting),
                Cell(score),
                Cell(f"{len(trials):,}" if trials else "–"),
                Cell(f"{lost:,}" if trials else "–", tone="bad" if lost else "quiet"),
                edge,
            )
        )
    return Table(
        f"The settings that went to the final stage, chosen by {metric_words(tuning.metric)}",
        (
            "Arm",
            "Setting",
            metric_words(tuning.metric).capitalize(),
            "Trials",
            "Lost",
            "In its space",
        ),
        tuple(rows),
        ("left", "left", "right", "right", "right", "left"),
        ("Lost: trials that diverged or failed with a tuning seed.",),
        ("Trials", metric_words(tuning.metric).capitalize()),
    )


@dataclass(frozen=True)
class Gain:
    """What tuning bought an arm: its chosen setting against its defaults, seed by seed.

    Attributes:
        arm: Its label.
        seeds: On which both came to an end.
        tuned: Final metric by seed of the chosen setting; infinitely bad where it diverged.
        defaults: The same of the defaults.
        comparison: Tuned minus defaults. Its level is such that all arms' intervals hold together.
    """

    arm: str
    seeds: tuple[int, ...]
    tuned: tuple[float, ...]
    defaults: tuple[float, ...]
    comparison: Comparison


def gains(result: Result) -> list[Gain]:
    """Of every arm whose defaults were run beside it."""
    worst = -math.inf if result.higher_is_better else math.inf

    def ended(runs: Sequence[RunRow], arm: str) -> dict[int, float]:
        return {
            run.seed: run.metrics.get(result.metric, worst)
            for run in runs
            if run.arm == arm and run.status in ("done", "diverged")
        }

    both = {
        arm.label: (ended(result.final_runs, arm.label), ended(result.defaults_runs, arm.label))
        for arm in result.arms
    }
    both = {label: (a, b) for label, (a, b) in both.items() if set(a) & set(b)}
    level = 1 - (1 - level_of(result)) / max(1, len(both))  # Bonferroni: all of them together
    found = []
    for label, (tuned, defaults) in both.items():
        seeds = tuple(seed for seed in result.seeds if seed in tuned and seed in defaults)
        a, b = tuple(tuned[s] for s in seeds), tuple(defaults[s] for s in seeds)
        found.append(
            Gain(
                label,
                seeds,
                a,
                b,
                compare(
                    a,
                    b,
                    higher_is_better=result.higher_is_better,
                    level=level,
                    min_effect=float(result.spec["min_effect"]),
                ),
            )
        )
    return found


def bought_picture(result: Result) -> Picture | None:
    """Defaults against the chosen settings, seed by seed; None without defaults."""
    rows = gains(result)
    if not rows:
        return None
    unit = result_unit(result)
    words = metric_words(result.metric)
    better = "higher" if result.higher_is_better else "lower"
    ends = axes(x=f"{words}{' (%)' if unit.share else ''} · {better} is better", left=8)
    names = []
    for place, row in enumerate(rows):
        look, meta = look_of(arm_numbers(result)[row.arm]), arm_meta(result, row.arm)
        names.append(_gain_name(result, row))
        for values, hollow, offset, what in (
            (row.defaults, True, 0.22, "defaults"),
            (row.tuned, False, 0.0, "tuned"),
        ):
            known = [(s, v) for s, v in zip(row.seeds, values, strict=True) if math.isfinite(v)]
            ends.add_scatter(
                x=[v * unit.factor for _, v in known],
                y=[place + offset] * len(known),
                mode="markers",
                marker={
                    "color": look.faint(0.85),
                    "size": 9,
                    "symbol": look.symbol + ("-open" if hollow else ""),
                },
                customdata=[s for s, _ in known],
                hovertemplate=f"{what}, seed %{{customdata}}: %{{x:.5~g}}"
                f"<extra>{plain(row.arm)}</extra>",
                meta=meta,
            )
    name_rows(ends, names)
    panels = [
        Panel(
            "Every seed: filled tuned, hollow defaults",
            ends,
            f"Two lines of marks per arm over {words}: filled for the tuned setting, hollow below "
            "for the defaults. " + "; ".join(names),
            height=ROW * len(rows) + 66,
        ),
        _gain_panel(result, rows),
    ]
    level = significant(100 * rows[0].comparison.level, 4)
    return Picture(
        "bought",
        "What tuning bought: defaults against tuned",
        _gain_says(result, rows),
        tuple(panels),
        (
            "The defaults ran on the same fresh seeds as the tuned settings and are no arms of the "
            f"verdict. Intervals are paired, at {level} % each, so that all hold together at "
            f"{significant(100 * level_of(result))} %.",
        ),
    )


def _gain_name(result: Result, row: Gain) -> str:
    unit, c = result_unit(result), row.comparison
    parts = [shorten(row.arm, 30)]
    if math.isfinite(c.mean_a) and math.isfinite(c.mean_b):
        parts.append(f"{unit.value(c.mean_b)} → {unit.value(c.mean_a)}")
    lost = sum(not math.isfinite(v) for v in row.defaults)
    if lost:
        parts.append(f"defaults diverged in {lost} of {len(row.seeds)}")
    return " · ".join(parts)


def _gain_panel(result: Result, rows: Sequence[Gain]) -> Panel:
    unit = result_unit(result)
    figure = axes(x=f"tuned minus defaults{' (points)' if unit.share else ''}", left=8)
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "3px,3px"})
    names = []
    for place, row in enumerate(rows):
        look, meta = look_of(arm_numbers(result)[row.arm]), arm_meta(result, row.arm)
        c = row.comparison
        names.append(f"{shorten(row.arm, 30)}: {unit.difference(c.difference, c.low, c.high)}")
        gaps = [
            (s, (a - b) * unit.factor)
            for s, a, b in zip(row.seeds, row.tuned, row.defaults, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        ]
        figure.add_scatter(
            x=[gap for _, gap in gaps],
            y=[place] * len(gaps),
            mode="markers",
            marker={"color": look.faint(0.7), "size": 8, "symbol": look.symbol},
            customdata=[s for s, _ in gaps],
            hovertemplate=f"seed %{{customdata}}: %{{x:.4~g}}<extra>{plain(row.arm)}</extra>",
            meta=meta,
        )
        if not math.isfinite(c.difference):
            continue
        known = math.isfinite(c.low) and math.isfinite(c.high)
        bar = {
            "type": "data",
            "symmetric": False,
            "array": [(c.high - c.difference) * unit.factor],
            "arrayminus": [(c.difference - c.low) * unit.factor],
            "color": look.color,
            "thickness": 2,
            "width": 5,
        }
        figure.add_scatter(
            x=[c.difference * unit.factor],
            y=[place + 0.26],
            mode="markers",
            marker={"color": look.color, "size": 10, "symbol": "diamond"},
            error_x=bar if known else None,
            hovertemplate=f"mean difference: %{{x:.4~g}}<extra>{plain(row.arm)}</extra>",
            meta=meta,
        )
    name_rows(figure, names)
    return Panel(
        "Tuned minus defaults, seed by seed",
        figure,
        "Marks on one line per arm: the tuned setting minus the defaults with the same seed, and "
        "below them the mean with its interval. " + "; ".join(names),
        height=ROW * len(rows) + 66,
    )


def _gain_says(result: Result, rows: Sequence[Gain]) -> str:
    sign = 1 if result.higher_is_better else -1
    helped = [row.arm for row in rows if sign * row.comparison.direction > 0]
    harmed = [row.arm for row in rows if sign * row.comparison.direction < 0]
    open_rows = len(rows) - len(helped) - len(harmed)
    parts = []
    if helped:
        parts.append(f"Tuning made {_and(helped)} better than {_its(helped)} defaults")
    if harmed:
        parts.append(f"{'tuning' if parts else 'Tuning'} made {_and(harmed)} worse")
    if open_rows:
        who = amount(open_rows, "arm")
        parts.append(f"for {who} that cannot be told" if parts else f"Of {who} that cannot be told")
    return "; ".join(parts) + "."


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _its(names: Sequence[str]) -> str:
    return "its" if len(names) == 1 else "their"


def bought_table(result: Result) -> Table | None:
    """The numbers of `bought_picture`."""
    rows = gains(result)
    if not rows:
        return None
    numbers, unit = arm_numbers(result), result_unit(result)
    heads = ("Arm", "Defaults", "Tuned", "Tuned − defaults", "Interval", "P(tuned better)", "p")
    return Table(
        "Defaults and tuned settings on the same seeds",
        heads,
        tuple(
            (
                Cell(row.arm, arm=numbers[row.arm]),
                Cell(unit.value(row.comparison.mean_b)),
                Cell(unit.value(row.comparison.mean_a)),
                Cell(
                    unit.difference(
                        row.comparison.difference, row.comparison.low, row.comparison.high
                    )
                ),
                Cell(unit.interval(row.comparison.low, row.comparison.high)),
                Cell(fixed(row.comparison.prob_a_better, 2)),
                Cell(p_text(row.comparison.p_value)),
            )
            for row in rows
        ),
        aligned("left", to=heads),
    )
