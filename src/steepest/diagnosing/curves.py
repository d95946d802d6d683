"""What a diagnosis looks at: the curves of one training run, wherever they were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError

__all__ = ["Curves", "Series"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One recorded quantity.

    Attributes:
        at: When each value was recorded, in steps or epochs; strictly increasing.
        values: What was recorded; NaN and infinities are kept: they say that a run blew up.

    >>> Series([1, 2, 3], [2.3, 1.1, 0.7]).values.tolist()
    [2.3, 1.1, 0.7]
    >>> Series([1, 1], [2.3, 1.1])
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: the positions of a curve must increase; 1 is followed by 1
    """

    at: Array
    values: Array

    def __init__(self, at: npt.ArrayLike, values: npt.ArrayLike) -> None:
        where, what = (np.asarray(part, np.float64) for part in (at, values))
        if where.ndim != 1 or where.shape != what.shape:
            raise InputError(
                "a curve needs equally many positions and values in one dimension; got shapes "
                f"{where.shape} and {what.shape}"
            )
        if not np.isfinite(where).all():
            raise InputError("the positions of a curve must be finite numbers")
        falls = np.flatnonzero(np.diff(where) <= 0)
        if len(falls):
            first = int(falls[0])
            raise InputError(
                f"the positions of a curve must increase; {where[first]:g} is followed by "
                f"{where[first + 1]:g}"
            )
        object.__setattr__(self, "at", where)
        object.__setattr__(self, "values", what)

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The curves of one run.

    Attributes:
        name: How the run is called.
        group: What it is a repetition of, with another seed; None: it stands alone.
        train_loss: Of every batch, or averaged over some batches or an epoch.
        val_loss: On held-out data.
        lr: The learning rate.
        metrics: Everything else that was recorded, such as ``val_accuracy``.
        unit: What positions count.
        diverged: The record says that the run ended because its loss was not finite.
        baseline: The loss of the best constant prediction (log C for C equally frequent classes,
            the variance of the targets for a squared error), if it is known. Without it the first
            recorded loss is the yardstick.
        notes: What a reader had to decide, in words.

    Raises:
        InputError: If there is neither a training nor a validation loss.
    """

    name: str
    group: str | None = None
    train_loss: Series | None = None
    val_loss: Series | None = None
    lr: Series | None = None
    metrics: Mapping[str, Series] = field(default_factory=dict)
    unit: Literal["step", "epoch"] = "step"
    diverged: bool = False
    baseline: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if self.train_loss is None and self.val_loss is None:
            raise InputError(
                f"{self.name}: there is no loss to look at; give train_loss, val_loss, or both"
            )
        if self.baseline is not None and not (np.isfinite(self.baseline) and self.baseline > 0):
            raise InputError(f"baseline must be a number > 0, got {self.baseline!r}")

    @property
    def main(self) -> Series:
        """The training loss, or the validation loss where there is no other."""
        return cast("Series", self.val_loss if self.train_loss is None else self.train_loss)

    @property
    def end(self) -> float:
        """The last position at which anything was recorded."""
        return max(
            float(series.at[-1])
            for series in (self.train_loss, self.val_loss)
            if series is not None and len(series)
        )
