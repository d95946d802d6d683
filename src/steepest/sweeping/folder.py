"""A sweep's folder: what lies in it, what is still to be measured, and what follows from it.

DIR/study.jsonl    what is asked for, then one row per pass and seed with the losses of its runs

    R     learning rates        S     seeds        N     steps of every run

A sweep is measured in passes: ``coarse``, all rates of the grid, and after it ``fine``, rates
between those around the edge; or ``growing``, where the rate grows within one run. One pass with
one seed is measured at once and written at once, so that is what an interruption costs. Findings
are no part of the folder: they follow from the losses, in the same way every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steepest.errors import LedgerError
from steepest.numbers import amount
from steepest.racing import journal
from steepest.sweeping.analysis import (
    Bools,
    Floats,
    analyse,
    bracket,
    end_losses,
    noise_of_ends,
    unstable_runs,
)
from steepest.sweeping.classical import analyse_growing, growing_rates
from steepest.sweeping.result import Sweep, SweepSpec

__all__ = ["KIND", "Kind", "Unit", "kind_of", "read_sweep", "run_steps", "to_do"]

KIND = "sweep"  # in the journal's header
Kind = Literal["held", "growing"]
Rows = Sequence[Mapping[str, Any]]

_FINE = 13  # rates between the two around the edge
_GROWING = 200  # least steps of a growing run
_PASSES = {
    "coarse": "the grid of rates",
    "fine": "the rates around the edge",
    "growing": "the growing rate",
}


@dataclass(frozen=True, eq=False)
class Unit:
    """What is measured at once: one pass with one seed.

    Attributes:
        name: The pass.
        seed: Of all of its runs.
        rates: Of its runs; of a growing run, those of its steps.
        run_steps: Steps of all of its runs together.
    """

    name: str
    seed: int
    rates: Floats
    run_steps: int

    def row(self, losses_RN: Floats, seconds: float) -> dict[str, Any]:
        """What the journal keeps of it; every run up to the step at which it diverged.

        >>> unit = Unit("coarse", 0, np.array([0.1, 0.2]), 6)
        >>> unit.row(np.array([[3.0, 2.5, 2.0], [3.0, 4.0, np.inf]]), 0.5)["losses"]
        [[3.0, 2.5, 2.0], [3.0, 4.0]]
        """
        return {
            "pass": self.name,
            "seed": self.seed,
            "rates": self.rates.tolist(),
            "losses": [run[_until_it_ends(run)].tolist() for run in losses_RN],
            "seconds": seconds,
        }


def _until_it_ends(losses_N: Floats) -> Bools:
    """JSON has no word for the loss at which a run diverged, nor for what would follow."""
    return np.logical_and.accumulate(np.isfinite(losses_N))


def kind_of(events: Rows) -> Kind | None:
    """How the sweep is measured, as was decided when it began; None before that."""
    return next((event["kind"] for event in events if event["kind"] in ("held", "growing")), None)


def to_do(spec: SweepSpec, kind: Kind, rows: Rows) -> list[Unit]:
    """What has no row yet, in the order in which it is measured; empty for a finished sweep.

    Whether there is a fine pass, and over which rates, is known when the coarse one is finished.
    """
    done = {(row["pass"], row["seed"]) for row in rows}
    return [
        Unit(name, seed, rates, _steps(spec, name, rates))
        for name, rates in _passes(spec, kind, rows).items()
        for seed in spec.seeds
        if (name, seed) not in done
    ]


def run_steps(spec: SweepSpec, kind: Kind, rows: Rows) -> int:
    """Steps of all runs together, those that are done among them, as far as is known by now."""
    passes = _passes(spec, kind, rows)
    return sum(_steps(spec, name, rates) * len(spec.seeds) for name, rates in passes.items())


def _steps(spec: SweepSpec, name: str, rates: Floats) -> int:
    return len(rates) if name == "growing" else len(rates) * spec.steps


def _passes(spec: SweepSpec, kind: Kind, rows: Rows) -> dict[str, Floats]:
    """The rates of every pass that is known by now."""
    if kind == "growing":
        wanted = {"growing": growing_rates(spec.low, spec.high, max(spec.steps, _GROWING))}
    else:
        wanted = {"coarse": spec.grid}
        around = _around(spec, rows)
        if around is not None:
            wanted["fine"] = np.geomspace(*around, _FINE + 2)[1:-1]
    # where a pass has begun, its rates are those that it began with, to the last bit
    begun = {row["pass"]: np.array(row["rates"]) for row in rows}
    return {name: begun.get(name, rates) for name, rates in wanted.items()}


def _around(spec: SweepSpec, rows: Rows) -> tuple[float, float] | None:
    """The rates around the edge; None where there is none, or the coarse pass is not finished."""
    if not _is_whole(spec, rows, "coarse"):
        return None
    rates, losses = _measured(spec, rows, "coarse")
    unstable = unstable_runs(end_losses(losses), losses[0, :, 0], noise_of_ends(losses))
    return bracket(rates, unstable)


def _is_whole(spec: SweepSpec, rows: Rows, name: str) -> bool:
    return {row["seed"] for row in rows if row["pass"] == name} == set(spec.seeds)


def _measured(spec: SweepSpec, rows: Rows, name: str) -> tuple[Floats, Floats]:
    """Rates and losses ``[R, S, N]`` of a whole pass; not-a-number after a run's end."""
    by_seed = {row["seed"]: row for row in rows if row["pass"] == name}
    rates = np.array(by_seed[spec.seeds[0]]["rates"], float)
    runs = len(by_seed[spec.seeds[0]]["losses"])
    steps = len(rates) if name == "growing" else spec.steps
    losses = np.full((runs, len(spec.seeds), steps), np.nan)
    for place, seed in enumerate(spec.seeds):
        for run, values in enumerate(by_seed[seed]["losses"]):
            losses[run, place, : len(values)] = values
    return rates, losses


def read_sweep(folder: str | Path) -> Sweep:
    """The sweep in a folder; nothing is trained and no task is loaded.

    Raises:
        LedgerError: If there is no sweep, or it is not finished; then it says how far it is.
    """
    folder = Path(folder)
    header, rows, events = journal.read(folder)
    asked = header["spec"]
    if asked["kind"] != KIND:
        raise LedgerError(
            f"{folder} is the folder of a study ({asked['kind']}), not of a sweep; steepest report "
            "shows it"
        )
    known = {field.name: asked[field.name] for field in fields(SweepSpec)}
    spec = SweepSpec(**(known | {"seeds": tuple(asked["seeds"])}))
    kind = kind_of(events)
    if kind is None or to_do(spec, kind, rows):
        raise LedgerError(
            f"the sweep in {folder} is not finished: {_how_far(spec, kind, rows)}. If nothing is "
            "running there, the same command again goes on with it"
        )
    if kind == "growing":
        rates, losses = _measured(spec, rows, "growing")
        findings = analyse_growing(rates, losses[0], level=spec.level)
        count = int(np.isfinite(losses).sum())
        reason = next(event["text"] for event in events if event["kind"] == kind)
    else:
        rates, losses = _measured(spec, rows, "coarse")
        fine_rates, fine = (
            _measured(spec, rows, "fine") if _is_whole(spec, rows, "fine") else (None, None)
        )
        findings = analyse(
            rates, losses, losses[0, :, 0], fine_rates=fine_rates, fine_losses=fine,
            level=spec.level,
        )  # fmt: skip
        count = losses.size + (0 if fine is None else fine.size)
        reason = f"{count:,} run-steps as populations"
    left_out = [event["text"] for event in events if event["kind"] == "schedule"]
    told = ("held", "growing", "schedule")  # the reason says it
    return Sweep(
        spec=spec,
        findings=findings,
        kind=kind,
        reason="; ".join([reason, *left_out]),
        seconds=sum(row["seconds"] for row in rows),
        steps_done=count,
        folder=folder,
        command=str(header["meta"].get("command") or ""),
        events=tuple(event["text"] for event in events if event["kind"] not in told),
    )


def _how_far(spec: SweepSpec, kind: Kind | None, rows: Rows) -> str:
    if kind is None or not rows:
        return "nothing of it is measured yet"
    parts = []
    for name in _passes(spec, kind, rows):
        done = len({row["seed"] for row in rows if row["pass"] == name})
        parts.append(f"{_PASSES[name]} with {done} of {amount(len(spec.seeds), 'seed')}")
    return f"measured are {', '.join(parts)}"
