"""How the settings of the tuning stage did, and which of them goes into the final stage.

Everything here is computed from what the ledger holds, so whoever reads it later finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from steepest.racing.ledger import Ledger
from steepest.racing.records import PlannedTrial
from steepest.racing.rows import TrialRow, TuningRow
from steepest.tune import halving, select

__all__ = ["EQUAL_BUDGET", "Outcome", "best", "budgets", "outcomes", "promoted", "read_trials"]

EQUAL_BUDGET = """
SELECT arms.label, COUNT(DISTINCT trials.trial_id) AS trials, COUNT(*) AS runs,
       SUM(runs.steps) AS steps
FROM runs JOIN trials USING (trial_id) JOIN arms USING (arm_id)
WHERE runs.stage = 'tuning' GROUP BY arm_id ORDER BY arm_id
"""
"""What every tuned arm was given; the numbers of all rows must be equal."""

_ENDS = """
SELECT runs.trial_id, runs.rung, runs.steps, runs.status, chosen.value, loss.value AS loss
FROM runs
LEFT JOIN evaluations AS chosen ON chosen.run_id = runs.run_id
    AND chosen.step = COALESCE(runs.best_step, runs.steps)
    AND chosen.split = ?1 AND chosen.metric = ?2
LEFT JOIN evaluations AS loss ON loss.run_id = runs.run_id
    AND loss.step = COALESCE(runs.best_step, runs.steps)
    AND loss.split = ?1 AND loss.metric = 'loss'
WHERE stage = 'tuning' ORDER BY position
"""


@dataclass(frozen=True)
class Outcome:
    """What the tuning stage found out about a setting, in the longest rung that it reached.

    Attributes:
        trial: The setting.
        rung: That rung.
        steps: Of a run in it.
        values: The validation metric at the end of each run; NaN where there is none.
        statuses: Of the runs.
        loss: Mean validation loss at the end, infinite if a run has none: it tells settings of
            equal score apart, such as those that have all learnt nothing yet.
    """

    trial: PlannedTrial
    rung: int
    steps: int
    values: tuple[float, ...]
    statuses: tuple[str, ...]
    loss: float

    @property
    def score(self) -> float:
        """Mean over the seeds; NaN if a run diverged or failed, or is not finished."""
        return fmean(self.values) if self.values else math.nan

    @property
    def ended(self) -> int:
        """Runs that came to an end, be it good or bad."""
        return sum(status in ("done", "diverged", "failed") for status in self.statuses)

    def count(self, status: str) -> int:
        """Runs of this status."""
        return self.statuses.count(status)


def outcomes(ledger: Ledger, chooses: Mapping[str, Any]) -> list[Outcome]:
    """Of every candidate, in the order in which they were planned.

    Args:
        ledger: The race.
        chooses: ``split`` and ``metric`` that settings are chosen by.
    """
    runs: dict[int, list[dict[str, Any]]] = {}
    for row in ledger.rows(_ENDS, chooses["split"], chooses["metric"]):
        runs.setdefault(row["trial_id"], []).append(row)
    found = []
    for trial in ledger.trials():
        if trial.role != "candidate":
            continue
        of_trial = runs.get(trial.trial_id, [])
        rung = max((row["rung"] for row in of_trial), default=0)
        last = [row for row in of_trial if row["rung"] == rung]
        found.append(
            Outcome(
                trial,
                rung,
                max((row["steps"] for row in last), default=0),
                tuple(_value(row) for row in last),
                tuple(row["status"] for row in last),
                fmean(_loss(row) for row in last) if last else math.inf,
            )
        )
    return found


def best(of_arm: Sequence[Outcome], *, higher_is_better: bool) -> Outcome:
    """The setting to go on with, among those that were trained for the longest time.

    A run that diverged or failed is worse than any value; see `steepest.tune.select.best`. Of
    settings with equal scores the one with the lower validation loss is better.
    """
    longest = max(outcome.steps for outcome in of_arm)
    last = _by_loss(outcome for outcome in of_arm if outcome.steps == longest)
    found = select.best([o.values for o in last], higher_is_better=higher_is_better)
    return last[found.index]


def promoted(of_arm: Iterable[Outcome], keep: int, *, higher_is_better: bool) -> list[Outcome]:
    """The settings that go on to the next rung, in their old order."""
    last = _by_loss(of_arm)
    values = [outcome.values for outcome in last]
    kept = halving.promote(values, keep, higher_is_better=higher_is_better)
    return sorted((last[i] for i in kept), key=lambda outcome: outcome.trial.number)


def _by_loss(of_arm: Iterable[Outcome]) -> list[Outcome]:
    """So that of equals, of which the first one wins, that is the one with the lower loss."""
    return sorted(of_arm, key=lambda outcome: (outcome.loss, outcome.trial.number))


def budgets(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Trials and planned steps of every tuned arm, by label: what `EQUAL_BUDGET` finds."""
    return {row["label"]: (row["trials"], row["steps"]) for row in ledger.rows(EQUAL_BUDGET)}


def read_trials(ledger: Ledger, meta: Mapping[str, Any]) -> tuple[list[TrialRow], TuningRow | None]:
    """All settings, and how they were searched, as a result shows them."""
    labels = {arm["arm_id"]: arm["label"] for arm in ledger.arms()}
    spec = meta["spec"].get("tuning")
    found = {o.trial.trial_id: o for o in outcomes(ledger, spec["chooses"])} if spec else {}
    chosen = {selection.trial_id: selection for selection in ledger.selections()}
    spaces = meta.get("spaces", {})
    rows = []
    for trial in ledger.trials():
        outcome = found.get(trial.trial_id)
        selection = chosen.get(trial.trial_id)
        label = labels[trial.arm_id]
        searched = spaces[label][0]["dimensions"] if trial.role == "candidate" else ()
        names = dict.fromkeys(dimension["name"].partition("[")[0] for dimension in searched)
        values = {**{name: trial.values[name] for name in names}, **trial.values}
        rows.append(
            TrialRow(
                trial_id=trial.trial_id,
                arm=label,
                number=trial.number,
                role=trial.role,
                round=trial.round,
                values=values,
                searched={name: values[name] for name in names},
                score=outcome.score if outcome else math.nan,
                rung=outcome.rung if outcome else 0,
                steps=outcome.steps if outcome else 0,
                runs=outcome.ended if outcome else 0,
                diverged=outcome.count("diverged") if outcome else 0,
                failed=outcome.count("failed") if outcome else 0,
                selected=selection is not None or trial.role == "fixed",
                edges=selection.edges if selection else (),
            )
        )
    if spec is None:
        return rows, None
    spent = budgets(ledger)
    chooses = spec["chooses"]
    return rows, TuningRow(
        method=spec["method"],
        trials=spec["trials"],
        seeds=tuple(spec["seeds"]),
        rungs=tuple(steps for _, steps in spec["rungs"]),
        metric=f"{chooses['split']}_{chooses['metric']}",
        higher_is_better=chooses["higher_is_better"],
        budget=spec["budget"],
        widen=spec["widen"],
        rounds=1 + max(row.round for row in rows),
        trials_per_arm={label: trials for label, (trials, _) in spent.items()},
        steps_per_arm={label: steps for label, (_, steps) in spent.items()},
        over=bool(chosen),
    )


def _value(row: Mapping[str, Any]) -> float:
    done = row["status"] == "done" and row["value"] is not None
    return float(row["value"]) if done else math.nan


def _loss(row: Mapping[str, Any]) -> float:
    done = row["status"] == "done" and row["loss"] is not None and math.isfinite(row["loss"])
    return float(row["loss"]) if done else math.inf
