"""Curves from wherever they were recorded.

columns.py   which column is which curve
files.py     CSV, Keras histories, Hugging Face trainer states, TensorBoard events
races.py     the ledger of a race
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from steepest.diagnosing.curves import Curves
from steepest.diagnosing.readers.files import (
    from_csv,
    from_events,
    from_history,
    from_json,
    from_trainer_state,
)
from steepest.diagnosing.readers.races import from_race
from steepest.errors import DataError, InputError
from steepest.racing.result import Result
from steepest.racing.several import is_several, places

__all__ = ["read"]

KINDS = (
    "a race's folder (ledger.sqlite), TensorBoard event files, a Hugging Face trainer_state.json, "
    "a Keras history as JSON, or a CSV file"
)


def read(
    source: Any,
    *,
    baseline: float | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> list[Curves]:
    """The curves in a file, a folder or an object.

    Args:
        source: A path; a race's result; `Curves`; a Keras history, as the object or its dict; the
            ``log_history`` of a Hugging Face trainer.
        baseline: See `Curves`.
        columns: ``train_loss``, ``val_loss``, ``lr``, ``step`` to the names that they have there.

    Raises:
        DataError: If there is nothing to read, or it cannot be read.
        InputError: If a column is not there, or a package is missing.

    >>> read({"loss": [2.3, 1.1, 0.8], "val_loss": [1.5, 1.2, 1.1]})[0].unit
    'epoch'
    >>> read({"losss": [2.3, 1.1]})
    Traceback (most recent call last):
        ...
    steepest.errors.DataError: history: no column is known to be a loss; ...
    """
    chosen = dict(columns or {})
    if isinstance(source, Curves):
        return [source]
    if isinstance(source, Result):
        return from_race(source, baseline)
    held = getattr(source, "history", source)
    if isinstance(held, Mapping):
        if "log_history" in held:
            return [from_trainer_state(held, "trainer", chosen, baseline)]
        return [from_history(held, "history", chosen, baseline)]
    if isinstance(held, list) and held and all(isinstance(row, Mapping) for row in held):
        return [from_trainer_state({"log_history": held}, "trainer", chosen, baseline)]
    if isinstance(source, (str, Path)):
        return _from_path(Path(source), chosen, baseline)
    raise InputError(
        f"curves can be read from a path, a race's result, a dict of lists, or Curves; got "
        f"{type(source).__name__}"
    )


def _from_path(
    path: Path, chosen: Mapping[str, str | None], baseline: float | None
) -> list[Curves]:
    if path.is_dir():
        return _from_folder(path, chosen, baseline)
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise DataError(
            f"{path} does not exist"
            + (f"; in {path.parent} there is: {', '.join(beside[:12])}" if beside else "")
        )
    if path.name.startswith("events.out.tfevents"):
        return from_events(path.parent, chosen, baseline)
    if path.suffix.lower() in (".json", ".jsonl"):
        return [from_json(path, chosen, baseline)]
    if path.suffix.lower() == ".sqlite":
        return from_race(path.parent, baseline)
    return [from_csv(path, chosen, baseline)]


def _from_folder(
    path: Path, chosen: Mapping[str, str | None], baseline: float | None
) -> list[Curves]:
    if (path / "ledger.sqlite").exists():
        found = from_race(path, baseline)
        if not found:
            raise DataError(f"no run of the race in {path} has begun, so there are no curves yet")
        return found
    if is_several(path):
        return [
            replace(curves, name=f"{task}: {curves.name}", group=f"{task}: {curves.group}")
            for task, inside in places(path).items()
            for curves in from_race(inside, baseline)
        ]
    if any(path.rglob("events.out.tfevents.*")):
        return from_events(path, chosen, baseline)
    states = [path / "trainer_state.json", *path.glob("checkpoint-*/trainer_state.json")]
    states = [state for state in states if state.exists()]
    if states:
        latest = max(states, key=_checkpoint)
        return [from_json(latest, chosen, baseline)]
    tables = sorted(path.rglob("*.csv"))
    if tables:
        return [from_csv(table, chosen, baseline) for table in tables]
    raise DataError(f"{path} holds no curves; expected {KINDS}")


def _checkpoint(path: Path) -> float:
    """The number of the checkpoint; a state at the top is that of the finished run."""
    numbered = re.fullmatch(r"checkpoint-(\d+)", path.parent.name)
    return float(numbered.group(1)) if numbered else float("inf")
