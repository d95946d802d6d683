"""The rows of a ledger, as the rest of the house sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Addition",
    "Evaluation",
    "Floats",
    "PlannedRun",
    "PlannedTrial",
    "Progress",
    "Role",
    "Selection",
    "Stage",
    "Status",
    "Stored",
    "Timing",
]

Floats = npt.NDArray[np.float32]
Role = Literal["fixed", "candidate", "defaults"]
Stage = Literal["tuning", "final"]
Status = Literal["pending", "running", "done", "diverged", "failed"]


class PlannedTrial(NamedTuple):
    """One setting of an arm.

    ``point`` is its place in the unit cube of its space; None for one that is not searched.
    """

    trial_id: int
    arm_id: int
    number: int
    role: Role
    round: int
    point: tuple[float, ...] | None
    values: Mapping[str, Any]


class PlannedRun(NamedTuple):
    """One trial with one seed."""

    run_id: str
    trial_id: int
    stage: Stage
    seed: int
    steps: int
    rung: int = 0
    wave: int = 0


class Selection(NamedTuple):
    """The setting of a tuned arm that goes into the final stage, and why it may be doubted."""

    arm_id: int
    trial_id: int
    score: float | None
    edges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What a plan grows by; it becomes visible all at once or not at all.

    Attributes:
        trials: New settings.
        runs: New runs, in the order of their execution, after those that are there.
        selections: Of tuned arms, with the final runs.
        meta: Facts about the race as a whole that change with it.
        events: Kind and text of what a reader should know.
    """

    trials: tuple[PlannedTrial, ...] = ()
    runs: tuple[PlannedRun, ...] = ()
    selections: tuple[Selection, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[tuple[str, str], ...] = ()


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
        diverged_at: The step (from 1) whose loss was not finite, or at which the guard ended it.
        best_step: With early stopping, the evaluation whose weights are the final ones.
        message: Why the run ended before its last step.
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
    best_step: int | None = None
    message: str | None = None
