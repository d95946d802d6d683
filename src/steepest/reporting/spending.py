"""What was spent: the budget of every arm, and what its search had found after how much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, size_text, time_text
from steepest.reporting.drawing import Panel, Picture, arm_meta, axes, line, plain
from steepest.reporting.facts import Flag, arm_numbers, flags, metric_words, timed
from steepest.reporting.palette import look_of
from steepest.reporting.sensitivity import tolerance_of, within_text
from steepest.reporting.tables import Cell, Table, aligned
from steepest.reporting.trials import trials_unit

if TYPE_CHECKING:
    from steepest.racing.result import Result
    from steepest.racing.rows import RunRow, TuningRow

__all__ = [
    "Spent",
    "anytime_picture",
    "budget_flags",
    "budget_says",
    "cost_table",
    "incumbents",
    "race_flags",
    "spent",
]


@dataclass(frozen=True)
class Spent:
    """What an arm was given and what it used.

    Attributes:
        trials: Settings that were tried; 0 for an arm that was given its setting.
        planned_steps: Of the tuning stage.
        tuning_steps: Steps of it that were done; runs that diverge end early.
        final_steps: Of the final stage, without the defaults.
        tuning_seconds: Spent in training steps of the tuning stage.
        final_seconds: The same of the final stage.
    """

    trials: int
    planned_steps: int
    tuning_steps: int
    final_steps: int
    tuning_seconds: float
    final_seconds: float


def spent(result: Result) -> dict[str, Spent]:
    """Counted from the runs in the ledger, by arm."""
    tuning = result.tuning
    found = {}
    for arm in result.arms:
        search = [run for run in result.tuning_runs if run.arm == arm.label]
        final = [run for run in result.final_runs if run.arm == arm.label]
        found[arm.label] = Spent(
            trials=0 if tuning is None else tuning.trials_per_arm.get(arm.label, 0),
            planned_steps=sum(run.planned_steps for run in search),
            tuning_steps=sum(run.steps for run in search),
            final_steps=sum(run.steps for run in final),
            tuning_seconds=sum(run.seconds for run in search),
            final_seconds=sum(run.seconds for run in final),
        )
    return found


def budget_flags(result: Result) -> list[Flag]:
    """That the arms were tuned under the same budget, or that they were not; from the ledger."""
    tuning = result.tuning
    if tuning is None:
        return []
    costs = {label: cost for label, cost in spent(result).items() if cost.trials}
    found = []
    trials = {cost.trials for cost in costs.values()}
    steps = {cost.planned_steps for cost in costs.values()}
    if len(trials) > 1 or (len(steps) > 1 and tuning.over):
        each = "; ".join(
            f"{label}: {amount(cost.trials, 'trial')}, {amount(cost.planned_steps, 'step')}"
            for label, cost in costs.items()
        )
        found.append(Flag("stop", f"The arms were not tuned under the same budget: {each}."))
    found += [
        Flag(
            "warn",
            f"{trial.arm}: {'; '.join(trial.edges)}. A better setting may lie outside of its "
            "space; give it a wider one, or race with --widen.",
        )
        for trial in result.trials
        if trial.selected and trial.edges
    ]
    given = [arm.label for arm in result.arms if arm.label not in costs]
    if given and costs:
        found.append(
            Flag(
                "warn",
                f"{', '.join(given)} {'was' if len(given) == 1 else 'were'} given, not tuned: the "
                "comparison with tuned arms is about this setting, not about the optimizer.",
            )
        )
    return found


def race_flags(result: Result) -> list[Flag]:
    """All that weakens the verdict, worst first: the runs', the seeds' and the tuning's part."""
    order = {"stop": 0, "warn": 1, "note": 2}
    return sorted([*flags(result), *budget_flags(result)], key=lambda flag: order[flag.kind])


def cost_table(result: Result) -> Table | None:
    """Steps, seconds and memory of every arm, tuning included; None where nothing was tuned."""
    if result.tuning is None:
        return None
    numbers, costs, times = arm_numbers(result), spent(result), timed(result)
    memory = [
        (key, head)
        for key, head in (("state_bytes", "Optimizer state"), ("peak_bytes", "Peak memory"))
        if any(key in of for of in times.values())
    ]
    rows = []
    for label, cost in costs.items():
        stored = times.get(label, {})
        rows.append(
            (
                Cell(label, arm=numbers[label]),
                Cell(f"{cost.trials:,}" if cost.trials else "given"),
                Cell(f"{cost.planned_steps:,}"),
                Cell(f"{cost.tuning_steps:,}"),
                Cell(f"{cost.final_steps:,}"),
                Cell(f"{cost.tuning_steps + cost.final_steps:,}"),
                Cell(time_text(cost.tuning_seconds) if cost.trials else "–"),
                Cell(time_text(cost.final_seconds)),
                *(Cell(size_text(stored[k].value) if k in stored else "–") for k, _ in memory),
            )
        )
    heads = (
        *("Arm", "Trials", "Tuning steps given", "Tuning steps done", "Final steps", "All steps"),
        *("Time of tuning", "Time of final runs"),
        *(head for _, head in memory),
    )
    return Table(
        "What every arm was given and used, tuning included; counted from the ledger",
        heads,
        tuple(rows),
        aligned("left", to=heads),
        (
            "Runs that diverge end early, so an arm may use fewer steps than it was given. Times "
            "are those of training steps as the race ran them, several runs at once where the "
            "engine did so; the timing pass compares the arms on equal terms.",
        ),
        ("Optimizer state", "Time of tuning"),
    )


def budget_says(result: Result, tuning: TuningRow) -> str:
    """The equal budget in one sentence, with the numbers of the ledger."""
    costs = [cost for cost in spent(result).values() if cost.trials]
    if not costs:
        return "No arm was tuned."
    first = costs[0]
    same = all((c.trials, c.planned_steps) == (first.trials, first.planned_steps) for c in costs)
    if not same:
        return "The arms were not tuned under the same budget; the table has the numbers."
    who = "The tuned arm" if len(costs) == 1 else f"Each of the {len(costs)} tuned arms"
    used = sorted({cost.tuning_steps for cost in costs})
    done = (
        "and all were done"
        if used == [first.planned_steps]
        else f"of which {used[0]:,}"
        + (f" to {used[-1]:,}" if len(used) > 1 else "")
        + " were done, as diverged runs end early"
    )
    return (
        f"{who} was given the same {amount(first.trials, 'trial')} × "
        f"{amount(len(tuning.seeds), 'seed')} and {amount(first.planned_steps, 'step')} to find "
        f"its setting, {done}."
        if len(costs) > 1
        else f"{who} was given {amount(first.trials, 'trial')} and "
        f"{amount(first.planned_steps, 'step')} to find its setting, {done}."
    )


# --- anytime -------------------------------------------------------------------------------------


def incumbents(
    runs: Sequence[RunRow], metric: str, *, seeds: int, higher_is_better: bool, cost: str = "steps"
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The best trial so far against what was spent, trial after trial in their order.

    A trial counts when all of its seeds are paid, with the mean over them; whether the race ran
    the first seed of all trials before the second makes no difference here. In successive halving
    the trials of the longest runs so far count, since values after fewer steps cannot be compared
    with them.

    Args:
        runs: Of one arm's tuning stage.
        metric: The one that chooses.
        seeds: Of every trial.
        higher_is_better: Of the metric.
        cost: ``steps`` or ``seconds`` of a run.

    Returns:
        What was spent when a trial came out, and the best so far; NaN before the first good one.
    """
    total, rung, best = 0.0, -1, math.nan
    values: dict[tuple[int, int], list[float]] = {}
    at, seen = [], []
    for run in sorted(runs, key=lambda run: (run.rung, run.trial)):
        total += getattr(run, cost)
        if run.status not in ("done", "diverged", "failed"):
            continue
        of = values.setdefault((run.trial, run.rung), [])
        of.append(run.metrics.get(metric, math.nan))
        if len(of) < seeds:
            continue
        score = float(np.mean(of))
        if math.isfinite(score) and run.rung > rung:
            rung, best = run.rung, score
        elif math.isfinite(score) and run.rung == rung:
            best = max(best, score) if higher_is_better else min(best, score)
        at.append(total)
        seen.append(best)
    return np.array(at), np.array(seen)


def anytime_picture(result: Result) -> Picture | None:
    """The best validation metric so far against steps and seconds spent on tuning, per arm."""
    tuning = result.tuning
    if tuning is None:
        return None
    panels = []
    for cost, words in (("steps", "steps spent"), ("seconds", "seconds of training spent")):
        curves = _curves(result, tuning, cost)
        if curves:
            panels.append(_anytime_panel(result, tuning, curves, words))
    if not panels:
        return None
    return Picture(
        "anytime",
        "What the search had found after how much work",
        _anytime_says(result, tuning),
        tuple(panels),
        (
            "A step up (or down, for a loss) is a trial that beat all before it, in the order in "
            "which they were drawn; its value is the mean over the tuning seeds, on the validation "
            "data. "
            + (
                "Another order would give other steps: the figure of the best of k trials averages "
                "over all of them."
                if len(tuning.rungs) == 1
                else "In successive halving only the longest runs so far count, so the curve may "
                "turn back where longer ones begin."
            ),
        ),
    )


def _curves(result: Result, tuning: TuningRow, cost: str) -> dict[str, tuple[Any, Any]]:
    curves = {
        arm.label: incumbents(
            [run for run in result.tuning_runs if run.arm == arm.label],
            tuning.metric,
            seeds=len(tuning.seeds),
            higher_is_better=tuning.higher_is_better,
            cost=cost,
        )
        for arm in result.arms
    }
    return {label: (x, y) for label, (x, y) in curves.items() if np.isfinite(y).any()}


def _anytime_says(result: Result, tuning: TuningRow) -> str:
    """After how many of its steps each arm was near the best that its search ever found."""
    unit, tolerance = trials_unit(result, tuning), tolerance_of(result, tuning)
    near: dict[str, int] = {}
    for label, (steps, best) in _curves(result, tuning, "steps").items():
        close = np.abs(best - best[-1]) <= tolerance * (1 + 1e-9)
        near[label] = int(steps[close][0])
    order = sorted(near, key=lambda label: near[label])
    head = (
        f"{order[0]} was within {within_text(tolerance, unit)} of the best that its search found "
        f"after {amount(near[order[0]], 'step')}"
    )
    return f"{head}, {order[-1]} after {near[order[-1]]:,}." if len(order) > 1 else f"{head}."


def _anytime_panel(
    result: Result,
    tuning: TuningRow,
    curves: Mapping[str, tuple[Any, Any]],
    words: str,
) -> Panel:
    unit, metric = trials_unit(result, tuning), metric_words(tuning.metric)
    figure = axes(x=words, y=f"best {metric} so far{' (%)' if unit.share else ''}")
    sign = 1.0 if tuning.higher_is_better else -1.0
    ends, lows = [], []
    for label, (x, y) in curves.items():
        known = np.isfinite(y)
        look = look_of(arm_numbers(result)[label])
        change = known & np.concatenate([[True], y[1:] != y[:-1]])
        figure.add_scatter(
            x=x[known],
            y=y[known] * unit.factor,
            mode="lines",
            line={**line(look, width=2.4), "shape": "hv"},
            hovertemplate=f"%{{x:,.4~g}}: %{{y:.4~g}}<extra>{plain(label)}</extra>",
            meta=arm_meta(result, label),
        )
        figure.add_scatter(
            x=x[change],
            y=y[change] * unit.factor,
            mode="markers",
            marker={"color": look.color, "size": 7, "symbol": look.symbol},
            hoverinfo="skip",
            meta=arm_meta(result, label),
        )
        ends.append(sign * y[known][-1])
        lows.append(sign * y[known][(int(known.sum()) - 1) // 6])
    low, high = min(lows), max(ends)
    pad = 0.1 * (high - low) or 0.01 * abs(high) or 1.0
    figure.update_yaxes(
        range=[v * unit.factor for v in sorted((sign * (low - pad), sign * (high + pad)))]
    )
    figure.update_xaxes(rangemode="tozero", tickformat=",~g")
    return Panel(
        words.capitalize(),
        figure,
        f"Staircases, one per arm: the best {metric} so far against {words} on tuning.",
        height=340,
    )
