"""The figures over several tasks: scores, how they are distributed, and time to target."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, fixed
from steepest.reporting.drawing import (
    INK,
    Panel,
    Picture,
    axes,
    line,
    name_rows,
    plain,
    shorten,
)
from steepest.reporting.facts import final_values, metric_words, result_unit
from steepest.reporting.figures import final_panel
from steepest.reporting.palette import look_of
from steepest.stats import performance_profile, score_profile

if TYPE_CHECKING:
    from steepest.racing.several import Several

__all__ = ["several_pictures"]

ROW = 64
THRESHOLDS = 161  # places at which a score profile is computed
WORDS = {"steps": "steps to the target", "seconds": "seconds to the target"}


def several_pictures(several: Several) -> list[Picture]:
    """Scores, their profile, the profile of time to target, and the final metric task by task."""
    found = (_scores(several), _profile(several), _target_profile(several), _finals(several))
    return [picture for picture in found if picture is not None]


def _meta(several: Several, label: str) -> dict[str, Any]:
    return {"arm": several.arms.index(label)}


def _scores(several: Several) -> Picture | None:
    """Interquartile mean of every arm with its interval, and its mean score on every task."""
    rows = several.aggregate
    if not rows:
        return None
    figure = axes(x="score · 0: the worst arm of a task, 1: the best", left=8)
    for place, row in enumerate(rows):
        look = look_of(several.arms.index(row.label))
        drawn = {task: score for task, score in row.means.items() if math.isfinite(score)}
        figure.add_scatter(
            x=list(drawn.values()),
            y=[place] * len(drawn),
            mode="markers",
            marker={"color": look.faint(0.82), "size": 10, "symbol": look.symbol},
            customdata=[plain(task) for task in drawn],
            hovertemplate=f"%{{customdata}}: %{{x:.3f}}<extra>{plain(row.label)}</extra>",
            meta=_meta(several, row.label),
        )
        if not math.isfinite(row.iqm):
            continue
        known = math.isfinite(row.low) and math.isfinite(row.high)
        bar = {
            "type": "data",
            "symmetric": False,
            "array": [row.high - row.iqm],
            "arrayminus": [row.iqm - row.low],
            "color": look.color,
            "thickness": 2,
            "width": 5,
        }
        figure.add_scatter(
            x=[row.iqm],
            y=[place + 0.26],
            mode="markers",
            marker={"color": look.color, "size": 10, "symbol": "diamond"},
            error_x=bar if known else None,
            hovertemplate=f"interquartile mean: %{{x:.3f}}<extra>{plain(row.label)}</extra>",
            meta=_meta(several, row.label),
        )
    names = [
        f"{shorten(row.label)} · {fixed(row.iqm, 2)}"
        + (f" · {amount(row.diverged, 'run')} diverged" if row.diverged else "")
        for row in rows
    ]
    name_rows(figure, names)
    best = rows[0]
    near = [row.label for row in rows[1:] if row.high >= best.low]
    says = f"{best.label} has the highest interquartile mean, {fixed(best.iqm, 2)}"
    if not near:
        says += "; no other arm's interval reaches its own."
    elif len(near) == 1:
        says += f"; the interval of {near[0]} overlaps with its own."
    else:
        says += f"; the intervals of {len(near)} others overlap with its own."
    return Picture(
        "scores",
        "All tasks together",
        says,
        (
            Panel(
                "Interquartile mean, and the mean on every task",
                figure,
                "One row per arm, best first: a mark per task at the mean score there, and below "
                "them the interquartile mean over all runs with its interval. " + "; ".join(names),
                height=ROW * len(rows) + 66,
                wide=True,
            ),
        ),
        (
            "A mark is one task; the diamond and bar are the interquartile mean over all runs of "
            "all tasks and its bootstrap interval.",
        ),
    )


def _profile(several: Several) -> Picture | None:
    """The share of runs above every score (Agarwal et al., 2021), with pointwise bands."""
    scores = several.scores
    known = [of[np.isfinite(of)] for of in scores.values() if np.isfinite(of).any()]
    if not known:
        return None
    values = np.concatenate(known)
    low = max(float(values.min()), -0.5) - 0.02
    high = float(values.max()) + 0.02
    taus = np.linspace(low, high, THRESHOLDS)
    figure = axes(x="score τ", y="share of runs above τ (%)")
    profiles = {label: score_profile(of, taus, level=several.level) for label, of in scores.items()}
    for label, (_, lower, upper) in profiles.items():
        look = look_of(several.arms.index(label))
        figure.add_scatter(
            x=np.concatenate([taus, taus[::-1]]).astype(np.float32),
            y=100 * np.concatenate([lower, upper[::-1]]).astype(np.float32),
            fill="toself",
            fillcolor=look.faint(0.14),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            meta=_meta(several, label),
        )
    for label, (share, _, _) in profiles.items():
        figure.add_scatter(
            x=taus.astype(np.float32),
            y=100 * share.astype(np.float32),
            mode="lines",
            line=line(look_of(several.arms.index(label)), width=2.4),
            hovertemplate=f"%{{y:.3~g}} % above %{{x:.2f}}<extra>{plain(label)}</extra>",
            meta=_meta(several, label),
        )
    figure.update_yaxes(range=[-2, 102])
    over = _dominates(profiles)
    says = (
        f"The curve of {over} is nowhere below another: by any summary of the scores it is best."
        if over
        else "The curves cross: which arm is best depends on how much a bad run matters."
    )
    return Picture(
        "profile",
        "How the scores are spread: performance profile",
        says,
        (
            Panel(
                "Share of runs above a score",
                figure,
                "Falling curves, one per arm: the share of runs whose score lies above τ, averaged "
                "over tasks. Higher is better.",
                height=340,
                wide=True,
            ),
        ),
        (
            "Higher is better; a curve that lies above another everywhere belongs to the better "
            "arm whatever summary one prefers (Agarwal et al., NeurIPS 2021). Bands are pointwise "
            "bootstrap intervals over runs within tasks. Runs that diverged are above no score.",
        ),
    )


def _dominates(profiles: dict[str, tuple[Any, Any, Any]]) -> str | None:
    for label, (share, _, _) in profiles.items():
        others = [of for other, (of, _, _) in profiles.items() if other != label]
        if others and all((share >= of - 1e-12).all() for of in others):
            return label
    return None


def _target_profile(several: Several) -> Picture | None:
    """The share of tasks solved within τ times the best arm's cost (Dolan & Moré, 2002)."""
    panels, sayings = [], []
    for what, words in WORDS.items():
        costs = several.target_costs(what)
        if costs is None or len(costs) < 2:
            return None
        table = np.stack(list(costs.values()))
        best = table.min(axis=0)
        solved = np.isfinite(best)
        if not solved.any() or (best[solved] <= 0).any():
            continue
        ratios = table[:, solved] / best[solved]
        last = max(float(ratios[np.isfinite(ratios)].max()) * 1.3, 1.5)
        taus = np.unique(np.concatenate([[1.0, last], ratios[np.isfinite(ratios)].ravel()]))
        profile = performance_profile(costs, taus)
        figure = axes(x=f"τ: {words}, times the best arm's", y="share of tasks (%)")
        for label, share in profile.items():
            figure.add_scatter(
                x=taus,
                y=100 * share,
                mode="lines",
                line={
                    **line(look_of(several.arms.index(label)), width=2.6),
                    "shape": "hv",
                },
                hovertemplate=f"%{{y:.3~g}} % of tasks within %{{x:.3~g}} ×"
                f"<extra>{plain(label)}</extra>",
                meta=_meta(several, label),
            )
        figure.update_yaxes(range=[-3, 104])
        figure.update_xaxes(type="log", range=[0.0, math.log10(last)], tickformat="~g")
        figure.update_xaxes(tickvals=_ticks(last))
        figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "3px,3px"})
        panels.append(
            Panel(
                words.capitalize(),
                figure,
                "Rising steps, one per arm: the share of tasks on which the arm reached the target "
                f"within τ times the {words} of the best arm there.",
                height=320,
            )
        )
        first = {label: share[0] for label, share in profile.items()}
        leader = max(first, key=lambda label: first[label])
        tied = sum(share == first[leader] for share in first.values())
        who = leader if tied == 1 else f"{leader} (and {tied - 1} more)"
        sayings.append(
            f"{who} {'takes' if tied == 1 else 'take'} the fewest {what} on "
            f"{100 * first[leader]:.0f} % of the tasks."
        )
    if not panels:
        return None
    return Picture(
        "target-profile",
        "How soon they reached the target, over tasks",
        " ".join(sayings),
        tuple(panels),
        (
            "At τ = 1: the share of tasks on which the arm is the fastest; to the right: within "
            "twice, three times … the fastest arm's cost (Dolan & Moré, Math. Program. 91:201, "
            "2002). Costs are medians over seeds. A target that was missed is never within any τ, "
            "and a task that no arm solves counts for none.",
        ),
    )


def _ticks(last: float) -> list[float]:
    """Round ratios from 1 to the last one, about six of them.

    >>> _ticks(1.6), _ticks(30.0)
    ([1, 1.1, 1.2, 1.3, 1.4, 1.5], [1, 2, 3, 5, 10, 20, 30])
    """
    fine = [1, 1.1, 1.2, 1.3, 1.4, 1.5]
    coarse = [m * 10**e for e in range(6) for m in (1, 2, 3, 5)]
    if last <= 1.6:
        return fine
    ticks = [1, 1.25, 1.5, 2, 2.5, 3] if last <= 3.5 else coarse
    return [tick for tick in ticks if tick <= last]


def _finals(several: Several) -> Picture | None:
    """The final metric of every run, a panel per task."""
    panels = []
    for task, result in several.results.items():
        values = final_values(result)
        if any(values.values()):
            panel = final_panel(result, values, result_unit(result))
            panels.append(
                dataclasses.replace(panel, title=f"{task}: {metric_words(result.metric)}")
            )
    if not panels:
        return None
    return Picture(
        "finals",
        "Task by task: every seed",
        "The arms stand from best to worst on each task.",
        tuple(panels),
        ("A dot is one seed; the diamond and bar are the mean over seeds and its interval.",),
    )
