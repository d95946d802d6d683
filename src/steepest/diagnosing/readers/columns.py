"""Which of the recorded columns is which curve: names as training tools write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from steepest.diagnosing.curves import Curves, Series
from steepest.errors import DataError, unknown_name
from steepest.numbers import amount

__all__ = ["NAMES", "build", "match", "tidy"]

# Most telling names first; compared after `tidy`. Keras, Hugging Face, Lightning, TensorBoard's
# and Weights & Biases' exports, fastai and Ultralytics use these.
NAMES: dict[str, tuple[str, ...]] = {
    "train_loss": (
        "train_loss", "training_loss", "loss_train", "train_loss_step", "train_loss_epoch",
        "loss", "batch_loss", "loss_step", "epoch_loss",
    ),
    "val_loss": (
        "val_loss", "validation_loss", "valid_loss", "eval_loss", "dev_loss", "loss_val",
        "loss_validation", "val_loss_epoch", "validation_epoch_loss", "test_loss",
    ),
    "lr": (
        "lr", "learning_rate", "learningrate", "rate", "lr_adam", "lr_sgd", "lr_adamw", "lr_pg0",
    ),
    "step": (
        "step", "global_step", "trainer_global_step", "steps", "iteration", "iter", "iterations",
        "batch",
    ),
    "epoch": ("epoch", "epochs"),
}  # fmt: skip

CONSTANT = "constant"  # in place of a column: the rate never changed


def tidy(name: str) -> str:
    """A column's name in the form in which names are compared.

    What a tool puts in front of the metric (``run-3 - ``) or behind it (``__MIN``) is left out.

    >>> tidy("run-3 - Train/Loss"), tidy("eval/loss"), tidy("val_Loss")
    ('train_loss', 'eval_loss', 'val_loss')
    """
    last = name.rsplit(" - ", 1)[-1].strip()
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")


def match(names: Iterable[str], chosen: Mapping[str, str | None]) -> dict[str, str]:
    """From curves to the columns that hold them.

    Args:
        names: The columns.
        chosen: Curves whose column was named by hand; None where it was not. For ``lr``,
            ``constant`` says that the rate never changed.

    Raises:
        InputError: If a column that was named by hand is not there; the nearest one is suggested.

    >>> match(["epoch", "loss", "val_loss", "accuracy"], {})
    {'train_loss': 'loss', 'val_loss': 'val_loss', 'epoch': 'epoch'}
    """
    there = list(names)
    found: dict[str, str] = {}
    for curve, known in NAMES.items():
        by_hand = chosen.get(curve)
        if (curve, by_hand) == ("lr", CONSTANT) and CONSTANT not in there:
            found[curve] = CONSTANT
            continue
        if by_hand is not None:
            if by_hand not in there:
                raise unknown_name("column", by_hand, there)
            found[curve] = by_hand
            continue
        ranked = [
            (known.index(tidy(name)), name)
            for name in there
            if tidy(name) in known and not name.endswith(("__MIN", "__MAX"))
        ]
        if ranked:
            found[curve] = min(ranked)[1]
    return found


def build(
    name: str,
    columns: Mapping[str, Sequence[tuple[float, float]]],
    found: Mapping[str, str],
    *,
    unit: Literal["step", "epoch"],
    baseline: float | None,
    diverged: bool = False,
    notes: Sequence[str] = (),
) -> Curves:
    """Curves from columns of (position, value).

    A loss that is counted otherwise than the training loss (epochs beside steps) is laid over the
    same stretch, since findings compare what happened at the same time.

    Raises:
        DataError: If no column is a loss.
    """
    losses = [found[key] for key in ("train_loss", "val_loss") if key in found]
    if not losses:
        listed = ", ".join(sorted(columns)) or "none"
        raise DataError(
            f"{name}: no column is known to be a loss; its columns with numbers: {listed}. Name "
            "one with --train-loss or --val-loss (train_loss=, val_loss= in Python)"
        )
    told = list(notes)
    series = {key: _series(columns[text]) for key, text in found.items() if text in columns}
    longest = max(len(series[key]) for key in ("train_loss", "val_loss") if key in series)
    if longest < 2:
        raise DataError(
            f"{name}: the curve has {amount(longest, 'value')}; a diagnosis needs at least 2, and "
            "most findings need 10 or more"
        )
    if found.get("lr") == CONSTANT and "lr" not in series:
        at = series["train_loss" if "train_loss" in series else "val_loss"].at
        series["lr"] = Series(at, np.ones(len(at)))
    end = max(series[key].at[-1] for key in ("train_loss", "val_loss") if key in series)
    for key in ("train_loss", "val_loss", "lr"):
        if key in series and len(series[key]) > 1 and series[key].at[-1] < 0.5 * end:
            at = series[key].at
            count = len(at)
            told.append(
                f"'{found[key]}' is counted to {at[-1]:g} where the rest goes to {end:g}: taken as "
                "evenly spread over the run"
            )
            series[key] = Series(end * np.arange(1, count + 1) / count, series[key].values)
    known = set(found.values())
    return Curves(
        name=name,
        train_loss=series.get("train_loss"),
        val_loss=series.get("val_loss"),
        lr=series.get("lr"),
        metrics={text: _series(rows) for text, rows in columns.items() if text not in known},
        unit=unit,
        diverged=diverged,
        baseline=baseline,
        notes=tuple(told),
    )


def _series(rows: Sequence[tuple[float, float]]) -> Series:
    """By position; of several values at one (a run that went on from a checkpoint) the last."""
    last = dict(rows)
    kept = sorted((at, value) for at, value in last.items() if math.isfinite(at))
    return Series([at for at, _ in kept], [value for _, value in kept])
