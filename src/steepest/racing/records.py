"""The rows of a ledger, as the rest of the house sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Evaluation", "Floats", "PlannedRun", "Progress", "Status", "Stored", "Timing"]

Floats = npt.NDArray[np.float32]
Status = Literal["pending", "running", "done", "diverged", "failed"]


class PlannedRun(NamedTuple):
    """One trial with one seed."""

    run_id: str
    trial_id: int
    stage: Literal["tuning", "final"]
    seed: int
    steps: int


class Evaluation(NamedTuple):
    """One number of one split after so many steps."""

    step: int
    split: str
    metric: str
    value: float


class Stored(NamedTuple):
    """A file of tensors in the race's folder."""

    path: str
    kind: Literal["start", "resume", "final"]
    run_id: str | None
    seed: int
    step: int
    sha256: str | None = None


class Timing(NamedTuple):
    """A median of the timing pass, with its quartiles; a ratio has a 95 % interval instead."""

    quantity: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run has done since its last commit; it becomes visible all at once or not at all.

    Attributes:
        run_id: Whose it is.
        status: The run's status from now on.
        steps_done: Steps done in all.
        curves: By name, the values of the steps ``first_step`` … ``steps_done``.
        first_step: The step (from 1) of the first value.
        evaluations: Numbers that were measured in between.
        stored: The checkpoint or the final weights; it replaces the run's earlier one.
        seconds: By step, seconds spent in training since the run's first step.
        order_hash: Of the batches handed out until ``steps_done``.
        diverged_at: The step (from 1) whose loss was not finite.
        message: Why the run failed.
    """

    run_id: str
    status: Status
    steps_done: int
    first_step: int
    curves: Mapping[str, Floats]
    evaluations: Iterable[Evaluation] = ()
    stored: Stored | None = None
    seconds: Mapping[int, float] = field(default_factory=dict)
    order_hash: str | None = None
    diverged_at: int | None = None
    message: str | None = None
