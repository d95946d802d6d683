"""The figures about the trials of the tuning stage: best of k, and the spaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steepest.numbers import Unit, amount, significant, unit_of
from steepest.reporting.drawing import INK, Panel, Picture, arm_meta, axes, line, plain
from steepest.reporting.facts import arm_numbers, level_of, metric_words
from steepest.reporting.palette import look_of
from steepest.reporting.tables import Cell, Table
from steepest.stats import best_of_k_band

if TYPE_CHECKING:
    from steepest.racing.result import Result
    from steepest.racing.rows import TrialRow, TuningRow

__all__ = [
    "best_of_k_picture",
    "candidates",
    "setting_text",
    "space_picture",
    "trials_table",
    "trials_unit",
]

LOST = "#e5484d"  # the crosses of what diverged, as in the figure of the loss


def candidates(result: Result, arm: str) -> list[TrialRow]:
    """The trials of an arm's tuning stage that came to an end."""
    return [t for t in result.trials if t.arm == arm and t.role == "candidate" and t.runs]


def trials_unit(result: Result, tuning: TuningRow) -> Unit:
    """How the metric that chose is written."""
    return unit_of(tuning.metric, (t.score for t in result.trials))


# --- best of k -----------------------------------------------------------------------------------


def best_of_k_picture(result: Result) -> Picture | None:
    """How good each arm is if one can only afford k trials; None where that cannot be told."""
    tuning = result.tuning
    if tuning is None or len(tuning.rungs) > 1:
        return None  # after halving the trials are not of one length
    scores = {
        arm.label: np.array([t.score for t in candidates(result, arm.label)]) for arm in result.arms
    }
    scores = {label: of for label, of in scores.items() if len(of) > 1}
    if not scores:
        return None
    finite = all(np.isfinite(of).all() for of in scores.values())
    kind: Literal["mean", "median"] = "mean" if finite else "median"
    bands = {
        label: best_of_k_band(
            of, higher_is_better=tuning.higher_is_better, of=kind, level=level_of(result)
        )
        for label, of in scores.items()
    }
    level = significant(100 * level_of(result))
    counted = (
        "The line is the mean of the best of k trials over all choices of k"
        if finite
        else "The line is the median of the best of k trials over all choices of k, since some "
        "trials diverged and have no value; it begins where half of the choices hold a good one"
    )
    notes = [
        f"{counted}; the band is a {level} % bootstrap over trials. It is about the validation "
        "data, by which settings were chosen."
    ]
    if tuning.method not in ("sobol", "random") or tuning.rounds > 1:
        notes.append(
            "The trials were not drawn independently of each other "
            f"({tuning.method}{', widened' if tuning.rounds > 1 else ''}), so this describes them "
            "and promises nothing for others."
        )
    return Picture(
        "best-of-k",
        "How good each arm is if one can only afford k trials",
        _best_says(bands, tuning),
        (_best_panel(result, tuning, bands, kind),),
        tuple(notes),
    )


def _best_panel(
    result: Result,
    tuning: TuningRow,
    bands: Mapping[str, tuple[Any, Any, Any]],
    kind: str,
) -> Panel:
    unit, words = trials_unit(result, tuning), metric_words(tuning.metric)
    share = " (%)" if unit.share else ""
    figure = axes(x="trials k", y=f"best {words} of k{share}")
    for label, (_, low, high) in bands.items():
        look = look_of(arm_numbers(result)[label])
        known = np.isfinite(low) & np.isfinite(high)
        k = np.arange(1, len(low) + 1)[known]
        figure.add_scatter(
            x=np.concatenate([k, k[::-1]]),
            y=np.concatenate([low[known], high[known][::-1]]) * unit.factor,
            fill="toself",
            fillcolor=look.faint(0.13),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            meta=arm_meta(result, label),
        )
    for label, (middle, _, _) in bands.items():
        look = look_of(arm_numbers(result)[label])
        k = np.arange(1, len(middle) + 1)
        known = np.isfinite(middle)
        figure.add_scatter(
            x=k[known],
            y=middle[known] * unit.factor,
            mode="lines+markers" if len(k) <= 24 else "lines",
            line=line(look, width=2.4),
            marker={"size": 6, "symbol": look.symbol, "color": look.color},
            hovertemplate=f"k = %{{x}}: %{{y:.4~g}}<extra>{plain(label)}</extra>",
            meta=arm_meta(result, label),
        )
    sign = 1.0 if tuning.higher_is_better else -1.0
    inside = [
        sign * value
        for middle, _, _ in bands.values()
        for value in middle[(len(middle) - 1) // 5 :]
        if math.isfinite(value)
    ]
    tops = [sign * middle[-1] for middle, _, _ in bands.values() if math.isfinite(middle[-1])]
    if inside and tops:
        low, high = min(inside), max(tops)
        pad = 0.1 * (high - low) or 0.01 * abs(high) or 1.0
        ends = sorted((sign * (low - pad), sign * (high + pad)))
        figure.update_yaxes(range=[end * unit.factor for end in ends])
    most = max(len(middle) for middle, _, _ in bands.values())
    figure.update_xaxes(range=[0.6, most + 0.4], dtick=max(1, round(most / 8)), tick0=1)
    return Panel(
        f"{kind.capitalize()} of the best {words} of k trials",
        figure,
        f"Rising curves, one per arm: the {kind} of the best {words} among k trials, with a band.",
        height=360,
        wide=True,
    )


def _best_says(bands: Mapping[str, tuple[Any, Any, Any]], tuning: TuningRow) -> str:
    sign = 1.0 if tuning.higher_is_better else -1.0
    shortest = min(len(middle) for middle, _, _ in bands.values())
    leaders = []
    for k in range(shortest):
        at = {label: sign * middle[k] for label, (middle, _, _) in bands.items()}
        best = max(at, key=lambda label: at[label])
        leaders.append(best if math.isfinite(at[best]) else None)
    last = leaders[-1]
    if last is None:
        return "Every trial diverged."
    if len(bands) == 1:
        return f"{last} was tried {amount(shortest, 'time')}."
    since = shortest
    while since > 1 and leaders[since - 2] == last:
        since -= 1
    if since == 1:
        return f"{last} is ahead whatever number of trials one can afford, from 1 to {shortest}."
    before = leaders[since - 2]
    other = f"; with {since - 1} it is {before}" if before else ""
    return f"{last} is ahead from {amount(since, 'trial')} on{other}."


# --- the spaces ----------------------------------------------------------------------------------


def space_picture(result: Result) -> Picture | None:
    """Where in its space each arm was tried, what diverged there, and what was chosen."""
    tuning = result.tuning
    if tuning is None:
        return None
    panels = [
        _space_panel(result, arm.label, tuning)
        for arm in result.arms
        if any(_numeric(t) for t in candidates(result, arm.label))
    ]
    if not panels:
        return None
    lost = {
        arm.label: [t for t in candidates(result, arm.label) if not math.isfinite(t.score)]
        for arm in result.arms
    }
    return Picture(
        "space",
        "Where in their spaces the arms were tried, and where they diverged",
        _space_says(result, lost),
        tuple(panels),
        (
            "A mark is one trial; the fuller its colour, the better it came out among the trials "
            "of its arm. × diverged or failed. The ring is the setting that was chosen. Settings "
            "that are not on an axis were varied too, where the arm has more than two.",
        ),
    )


def _numeric(trial: TrialRow) -> list[str]:
    """The numbers that were searched, the learning rate first."""
    names = [
        name
        for name, value in trial.searched.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return sorted(names, key=lambda name: name != "lr")


def _space_panel(result: Result, label: str, tuning: TuningRow) -> Panel:
    trials = candidates(result, label)
    names = _numeric(max(trials, key=lambda t: len(_numeric(t))))
    x_name, y_name = names[0], names[1] if len(names) > 1 else None
    look, meta = look_of(arm_numbers(result)[label]), arm_meta(result, label)
    words = metric_words(tuning.metric)
    figure = axes(x=x_name, y=y_name or words)
    sign = 1.0 if tuning.higher_is_better else -1.0
    scores = np.array([sign * t.score for t in trials])
    order = np.argsort(np.argsort(np.nan_to_num(scores, nan=-np.inf)))
    alpha = 0.18 + 0.8 * order / max(1, len(trials) - 1)
    unit = trials_unit(result, tuning)
    x = np.array([float(t.values[x_name]) for t in trials])
    worst = float(np.nanmin(scores)) if np.isfinite(scores).any() else 0.0
    if y_name is None:
        y = np.where(np.isfinite(scores), sign * scores, sign * worst) * unit.factor
    else:
        y = np.array([float(t.values[y_name]) for t in trials])
    gone = ~np.isfinite(scores)
    chosen = [place for place, t in enumerate(trials) if t.selected]
    figure.add_scatter(
        x=x[chosen],
        y=y[chosen],
        mode="markers",
        marker={"color": INK, "size": 18, "symbol": "circle-open", "line": {"width": 2}},
        hoverinfo="skip",
        meta=meta,
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "color": [
                LOST if g else look.faint(round(float(a), 2))
                for g, a in zip(gone, alpha, strict=True)
            ],
            "size": 9,
            "symbol": ["x" if g else look.symbol for g in gone],
        },
        customdata=[f"{_short(t)}: {_outcome(t, unit)}" for t in trials],
        hovertemplate=f"%{{customdata}}<extra>{plain(label)}</extra>",
        meta=meta,
    )
    for axis, values in (("x", x), ("y", y if y_name else None)):
        if values is not None and (values > 0).all() and values.max() > 20 * values.min():
            low, high = math.log10(values.min()), math.log10(values.max())
            pad = 0.08 * (high - low)
            figure.update_layout(
                {
                    f"{axis}axis": {
                        "type": "log",
                        "tickformat": "~g",
                        "dtick": "D2" if high - low <= 2.0 else max(1, math.ceil((high - low) / 5)),
                        "range": [low - pad, high + pad],
                    }
                }
            )
    lost = int(gone.sum())
    return Panel(
        label,
        figure,
        f"Marks over {x_name} and {y_name or words}: {amount(len(trials), 'trial')} of {label}, "
        f"{lost} of them diverged or failed.",
        height=260,
    )


def setting_text(values: Mapping[str, Any]) -> str:
    """A setting as it is written in an arm.

    >>> setting_text({"lr": 0.00238, "betas": (0.9, 0.99), "nesterov": True})
    'lr=0.00238, betas=(0.9, 0.99), nesterov=True'
    """
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _short(trial: TrialRow) -> str:
    return plain(setting_text(trial.searched))


def _outcome(trial: TrialRow, unit: Unit) -> str:
    if math.isfinite(trial.score):
        return unit.value(trial.score)
    if trial.diverged:
        return f"diverged in {trial.diverged} of {amount(trial.runs, 'run')}"
    return f"failed in {trial.failed} of {amount(trial.runs, 'run')}"


def _space_says(result: Result, lost: Mapping[str, list[TrialRow]]) -> str:
    """How many diverged, and from which learning rate on, where that tells them apart."""
    counts = {label: len(of) for label, of in lost.items() if of}
    if not counts:
        return "No trial diverged."
    parts = []
    for label, count in counts.items():
        trials = candidates(result, label)
        text = f"{label} {count} of {len(trials)}"
        if all("lr" in t.searched for t in trials):
            bad = min(float(t.values["lr"]) for t in lost[label])
            good = [float(t.values["lr"]) for t in trials if math.isfinite(t.score)]
            if good and max(good) < bad:
                text += f" (every lr from {significant(bad)} on)"
            elif good:
                text += f" (lowest at lr {significant(bad)})"
        parts.append(text)
    return f"Trials that diverged or failed: {', '.join(parts)}."


def trials_table(result: Result) -> Table | None:
    """Every trial with its setting and what became of it, best first within each arm."""
    tuning = result.tuning
    if tuning is None:
        return None
    numbers, unit = arm_numbers(result), trials_unit(result, tuning)
    sign = -1.0 if tuning.higher_is_better else 1.0

    def place(trial: TrialRow) -> tuple[float, float]:
        lost = not math.isfinite(trial.score)
        return -trial.rung, math.inf if lost else sign * trial.score

    rows = [
        (
            Cell(arm.label, arm=numbers[arm.label]),
            Cell(f"{trial.number}"),
            Cell(setting_text(trial.searched)),
            Cell(f"{trial.steps:,}"),
            Cell(_outcome(trial, unit), tone="" if math.isfinite(trial.score) else "bad"),
            Cell("✓ chosen" if trial.selected else "", tone="good" if trial.selected else ""),
        )
        for arm in result.arms
        for trial in sorted(candidates(result, arm.label), key=place)
    ]
    return Table(
        "Every trial of the tuning stage, best first",
        ("Arm", "Trial", "Setting", "Steps", metric_words(tuning.metric).capitalize(), ""),
        tuple(rows),
        ("left", "right", "left", "right", "right", "left"),
    )
