"""Curves from files: tables, Keras histories, Hugging Face trainer states, TensorBoard events."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steepest.diagnosing.curves import Curves
from steepest.diagnosing.readers.columns import build, match
from steepest.errors import DataError
from steepest.extras import need

__all__ = ["from_csv", "from_events", "from_history", "from_json", "from_trainer_state"]

Rows = dict[str, list[tuple[float, float]]]
Chosen = Mapping[str, str | None]


def from_csv(path: Path, chosen: Chosen, baseline: float | None) -> Curves:
    """A table with a head. An empty cell was not recorded; ``nan`` was, and says that it blew up.

    Raises:
        DataError: If it cannot be read, is empty, or holds no loss.
    """
    text = _read(path)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} is empty; expected a line with column names, then numbers")
    try:
        dialect: Any = csv.Sniffer().sniff(lines[0], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    head, *body = csv.reader(lines, dialect)
    head = [cell.strip() for cell in head]
    if not body:
        raise DataError(f"{path} has a head ({', '.join(head)}) and no rows below it")
    cells: dict[str, list[float | None]] = {name: [] for name in head if name}
    for row in body:
        for name, cell in zip(head, [*row, *[""] * (len(head) - len(row))], strict=False):
            if name:
                cells[name].append(_number(cell))
    numeric = {k: v for k, v in cells.items() if any(value is not None for value in v)}
    if not numeric:
        raise DataError(
            f"{path} has no column with numbers; its columns: {', '.join(cells)}. Is the first "
            "line the head?"
        )
    found = match(numeric, chosen)
    at, unit = _positions(numeric, found, len(body))
    columns: Rows = {
        name: [(at[i], value) for i, value in enumerate(values) if value is not None]
        for name, values in numeric.items()
    }
    return build(path.stem, columns, found, unit=unit, baseline=baseline)


def _positions(
    numeric: Mapping[str, Sequence[float | None]], found: Mapping[str, str], count: int
) -> tuple[list[float], Any]:
    """Of every row: its step, else its epoch, else its number.

    Rows of one epoch that are many (a row per batch) are spread over it.
    """
    key = "step" if "step" in found else "epoch" if "epoch" in found else None
    if key is None:
        return [float(i + 1) for i in range(count)], "step"
    values = numeric[found[key]]
    known = [v for v in values if v is not None and math.isfinite(v)]
    if key == "epoch" and len(set(known)) * 2 < len(known) and len(set(known)) < count / 2:
        return [float(i + 1) for i in range(count)], "step"
    last, at = 0.0, []
    for value in values:
        last = last if value is None or not math.isfinite(value) else value
        at.append(last)
    return at, key


def _number(cell: str) -> float | None:
    """A number, or None where there is none; a comma may be the decimal point."""
    text = cell.strip()
    if not text or text.lower() in ("none", "null", "na", "n/a", "-"):
        return None
    for candidate in (text, text.replace(",", ".")):
        try:
            return float(candidate)
        except ValueError:
            continue
    return None


def from_json(path: Path, chosen: Chosen, baseline: float | None) -> Curves:
    """A Keras history or a Hugging Face ``trainer_state.json``, by what is in it.

    Raises:
        DataError: If it is neither.
    """
    try:
        held = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if isinstance(held, dict) and isinstance(held.get("log_history"), list):
        return from_trainer_state(held, path.parent.name or path.stem, chosen, baseline)
    if isinstance(held, dict) and held and all(isinstance(v, list) for v in held.values()):
        return from_history(held, path.stem, chosen, baseline)
    if isinstance(held, list) and held and all(isinstance(row, dict) for row in held):
        return from_trainer_state({"log_history": held}, path.stem, chosen, baseline)
    raise DataError(
        f"{path} holds no curves: expected a Keras history ({{'loss': [...], 'val_loss': [...]}}), "
        "a Hugging Face trainer_state.json (with 'log_history'), or a list of records; got "
        + (
            f"an object with {', '.join(map(repr, list(held)[:6]))}"
            if isinstance(held, dict)
            else type(held).__name__
        )
    )


def from_history(
    held: Mapping[str, Any], name: str, chosen: Chosen, baseline: float | None
) -> Curves:
    """Lists of equal standing by name, one value per epoch: what Keras calls a history.

    An ``epoch`` or ``step`` list, if there is one, says where the values belong.

    Raises:
        DataError: If a list holds something else than numbers, or none of them is a loss.
    """
    lists: dict[str, list[float | None]] = {}
    for key, values in held.items():
        try:
            lists[str(key)] = [None if v is None else float(v) for v in values]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name}: '{key}' must be a list of numbers, got {values!r:.60}"
            ) from error
    found = match([key for key, values in lists.items() if values], chosen)
    if "step" not in found and "epoch" not in found:
        longest = max((len(values) for values in lists.values()), default=0)
        at, unit = [float(i + 1) for i in range(longest)], "epoch"
    else:
        longest = max(len(values) for values in lists.values())
        at, unit = _positions(lists, found, longest)
    columns: Rows = {
        key: [(at[i], v) for i, v in enumerate(values) if v is not None and i < len(at)]
        for key, values in lists.items()
    }
    return build(
        name, {k: v for k, v in columns.items() if v}, found, unit=_unit(unit), baseline=baseline
    )


def _unit(text: str) -> Any:
    return "epoch" if text == "epoch" else "step"


def from_trainer_state(
    held: Mapping[str, Any], name: str, chosen: Chosen, baseline: float | None
) -> Curves:
    """The log of a Hugging Face ``Trainer``: records with a step and some of its numbers.

    Its last record is a summary over the whole run (``train_runtime``) and no point of a curve.

    Raises:
        DataError: If no record holds a loss.
    """
    columns: Rows = {}
    for number, record in enumerate(held["log_history"], start=1):
        if "train_runtime" in record:
            continue
        at = float(record.get("step", record.get("epoch", number)))
        for key, value in record.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                columns.setdefault(str(key), []).append((at, float(value)))
            elif value in ("NaN", "nan", "Infinity", "inf"):
                columns.setdefault(str(key), []).append((at, math.nan))
    if not columns:
        raise DataError(f"{name}: 'log_history' holds no numbers; was logging switched off?")
    found = match(columns, chosen)
    stepped = "step" in columns or "epoch" not in columns
    return build(name, columns, found, unit="step" if stepped else "epoch", baseline=baseline)


def from_events(folder: Path, chosen: Chosen, baseline: float | None) -> list[Curves]:
    """The scalars of TensorBoard event files, one run per folder.

    Raises:
        UnsupportedError: If TensorBoard is not installed.
        DataError: If they hold no loss.
    """
    need("tensorboard", extra="tensorboard", what="reading event files")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    folders = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    runs: dict[str, Rows] = {}
    for inside in folders:
        events = EventAccumulator(str(inside), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        columns: Rows = {
            tag: [(float(e.step), float(e.value)) for e in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
        for tag in events.Tags()["tensors"]:  # TensorFlow 2 and Keras write scalars as tensors
            values = [
                (e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)
            ]
            if values and all(v.size == 1 for _, v in values):
                columns[tag] = [(float(step), float(v.reshape(()))) for step, v in values]
        place = inside.name if inside != folder else folder.name
        keras = place in ("train", "validation") and any(t.startswith("epoch_") for t in columns)
        if keras:  # one run in two folders with equal names
            into = runs.setdefault(inside.parent.name, {})
            into |= {
                f"val_{t.removeprefix('epoch_')}"
                if place == "validation"
                else t.removeprefix("epoch_"): rows
                for t, rows in columns.items()
            }
        else:
            runs.setdefault(str(inside.relative_to(folder.parent)), {}).update(columns)
    found: list[Curves] = []
    tags: set[str] = set()
    for name, columns in runs.items():
        tags |= set(columns)
        matched = match(columns, chosen) if columns else {}
        matched = {k: v for k, v in matched.items() if k not in ("step", "epoch")}
        if {"train_loss", "val_loss"} & set(matched):
            found.append(build(name, columns, matched, unit="step", baseline=baseline))
    if not found:
        raise DataError(
            f"the event files in {folder} hold no scalar that is known to be a loss; their tags: "
            f"{', '.join(sorted(tags)) or 'none'}. Name one with --train-loss or --val-loss"
        )
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file: {error.reason} at byte {error.start}"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
