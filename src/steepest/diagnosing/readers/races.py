"""Curves from a race's folder."""

from __future__ import annotations

from pathlib import Path

from steepest.diagnosing.curves import Curves, Series
from steepest.racing.result import Result

__all__ = ["from_race"]


def from_race(result: Result | Path, baseline: float | None) -> list[Curves]:
    """The curves of every run of the final stage that has begun, in the order of the arms."""
    race = result if isinstance(result, Result) else Result(result)
    losses, rates = race.curves("train_loss"), race.curves("lr")
    held = {
        f"{split}_{metric}": race.evaluations(split, metric)
        for split in ("val", "train")
        for metric in race.measured
    }
    found = []
    order = {arm.label: number for number, arm in enumerate(race.arms)}
    runs = {(run.arm, run.seed): run for run in race.final_runs}
    for arm, seed in sorted(losses, key=lambda key: (order[key[0]], key[1])):
        at, values = losses[arm, seed]
        if not len(at):
            continue
        series = {
            key: Series(*curve[arm, seed])
            for key, curve in held.items()
            if len(curve.get((arm, seed), ((), ()))[0])
        }
        found.append(
            Curves(
                name=f"{arm}, seed {seed}",
                group=arm,
                train_loss=Series(at, values),
                val_loss=series.pop("val_loss", None),
                lr=Series(*rates[arm, seed]) if len(rates[arm, seed][0]) else None,
                metrics=series,
                diverged=runs[arm, seed].status == "diverged",
                baseline=baseline,
            )
        )
    return found
