"""Fresh seeds for a race that was planned without them."""

from __future__ import annotations

import re
from itertools import count, islice
from typing import Any

from steepest.errors import InputError
from steepest.numbers import amount
from steepest.racing.ledger import Ledger
from steepest.racing.records import Addition
from steepest.racing.spec import RaceSpec
from steepest.racing.stages import final_runs

__all__ = ["extend", "read_addition"]


def extend(ledger: Ledger, spec: RaceSpec, seeds: Any) -> tuple[int, ...]:
    """Add seeds to the final stage: every arm runs every one of them.

    A race in its tuning stage gets them together with its other final runs.

    Args:
        ledger: The race, open for writing; its task and arms must be what they were, see
            `steepest.racing.folder.reopen`.
        spec: What it is to do.
        seeds: ``"+10"`` or 10.

    Returns:
        The new seeds: the smallest that no run of the race has.
    """
    number = read_addition(seeds)
    rows = ledger.runs()
    meta = ledger.meta()
    before = tuple(meta.get("extended", ()))
    used = {*spec.seeds, *(row["seed"] for row in rows)}
    new = tuple(islice((seed for seed in count() if seed not in used), number))
    chosen = {selection.trial_id for selection in ledger.selections()}
    trials = [t for t in ledger.trials() if t.role != "candidate" or t.trial_id in chosen]
    wave = 1 + max(row["wave"] for row in rows)
    planned = any(row["stage"] == "final" for row in rows)
    ledger.add(
        Addition(
            runs=final_runs(spec, trials, new, wave=wave) if planned else (),
            meta={"extended": [*before, *new]},
            events=(("extended", f"{amount(number, 'seed')} added: {', '.join(map(str, new))}"),),
        )
    )
    return new


def read_addition(seeds: Any) -> int:
    """How many seeds are to be added.

    >>> read_addition("+10"), read_addition(4)
    (10, 4)
    >>> read_addition("ten")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: seeds to add are written as +10, got 'ten'
    """
    if isinstance(seeds, str) and re.fullmatch(r"\s*\+?\d+\s*", seeds):
        seeds = int(seeds)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InputError(f"seeds to add are written as +10, got {seeds!r}")
    return seeds
