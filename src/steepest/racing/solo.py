"""Carry out one planned run by itself: train, look up, evaluate, commit, go on after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from torch import Tensor

from steepest.errors import InputError, LedgerError, SteepestError, TaskError
from steepest.racing.observer import StoppedError
from steepest.racing.record import Place, Record, commit, name_of
from steepest.racing.records import Status, Stored
from steepest.racing.spec import RunPlan
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState
from steepest.train.solo import Chunk, SoloRun

__all__ = ["Training", "carry_out", "fail", "train_here"]

Split = Literal["train", "val", "test"]


class Training(Protocol):
    """What carries out a run's steps: a `SoloRun`, here or in another process."""

    position: int
    start_hash: str

    @property
    def order_hash(self) -> str:
        """Over the batches handed out so far."""

    def advance(self, n: int) -> Chunk:
        """Train some steps."""

    def evaluate(self, split: Split, *, remember: bool = False) -> dict[str, float]:
        """Measure on a split."""

    def keep_best(self) -> None:
        """Keep the weights that the last evaluation remembered."""

    def end_with_best(self) -> None:
        """End here, with those weights."""

    def weights(self) -> dict[str, Tensor]:
        """The parameters."""

    def state(self) -> RunState:
        """What `restore` needs."""

    def restore(self, state: RunState) -> None:
        """Go to where a state was taken."""


def train_here(place: Place, planned: RunPlan) -> SoloRun:
    """The run, at its start, in this process."""
    return SoloRun(
        place.task,
        optimizer=planned.arm.factory(),
        schedule=planned.arm.schedule,
        seed=planned.seed,
        **vars(place.plan.spec.conditions(planned.steps)),
    )


def carry_out(
    place: Place,
    planned: RunPlan,
    *,
    at_start: Callable[[Place, RunPlan], Training] = train_here,
    passing: tuple[type[Exception], ...] = (),
) -> None:
    """Bring one run to its end, or to a commit if the race was asked to stop.

    Whatever the run's own code raises is written down as the run's failure.

    Args:
        place: The race.
        planned: The run.
        at_start: Makes the training.
        passing: Errors that are the caller's and not the run's.
    """
    try:
        _Run(place, planned, at_start).train()
    except Exception as error:  # a stranger's model, loss, metric or optimizer
        if isinstance(error, (LedgerError, StoppedError, *passing)):
            raise
        named = "" if isinstance(error, SteepestError) else f"{type(error).__name__}: "
        fail(place, planned, f"{named}{str(error).strip()}")


def fail(place: Place, planned: RunPlan, message: str) -> None:
    """Write down that a run failed."""
    place.ledger.fail(planned.run_id, message)
    place.ledger.put_event("failed", f"{name_of(planned)}: {message}", run_id=planned.run_id)
    place.observer.note(f"{name_of(planned)} failed: {message}")
    place.observer.run_finished(planned.run_id, "failed", {})


class _Run:
    """A run on its way: the training, and what of it is not committed yet."""

    def __init__(
        self, place: Place, planned: RunPlan, at_start: Callable[[Place, RunPlan], Training]
    ) -> None:
        self.place = place
        self.planned = planned
        self.at_start = at_start
        self.record = Record(place, planned)
        self.solo = at_start(place, planned)
        self.record.keep_start(self.solo.weights())
        self._find_place()
        self.record.begin(self.solo.start_hash, step=self.solo.position)
        self.committed_at = time.monotonic()
        self.cost = 0.0  # seconds of the last commit
        self.can_be_saved = True

    def train(self) -> None:
        spec, solo, total = self.place.plan.spec, self.solo, self.planned.steps
        per_step = 0.0
        while solo.position < total:
            wanted = max(1, int(self.place.pace.look / per_step)) if per_step else 1
            to_evaluation = spec.eval_every - solo.position % spec.eval_every
            chunk = solo.advance(min(wanted, to_evaluation))
            self.record.took(chunk)
            per_step = chunk.seconds / max(1, len(chunk.loss))
            if chunk.diverged_at is not None:
                self._end("diverged", diverged_at=chunk.diverged_at + 1)
                return
            at_evaluation = solo.position % spec.eval_every == 0 or solo.position == total
            if spec.watch and at_evaluation and self._stops(spec.watch):
                break
            if solo.position < total and (self.place.stop.requested or self._is_due()):
                begin = time.monotonic()
                self._commit("running", self._saved())
                self.cost = self.committed_at - begin
                self.place.stop.obey()
        if self.record.best_step is not None:
            solo.end_with_best()
        if self.planned.stage == "final" and spec.decides.split != spec.watch:
            numbers = solo.evaluate(cast("Split", spec.decides.split))
            step = self.record.best_step or solo.position
            self.record.measured(step, spec.decides.split, numbers)
        self._end("done")

    def _find_place(self) -> None:
        """Go to the last checkpoint, or to the beginning."""
        row = self.place.ledger.run(self.record.id)
        saved = self.record.checkpoint()
        if saved is not None:
            try:
                state = checkpoint.load(self.place.ledger.folder / saved.path)
                self.record.found(state)
                self.solo.restore(state)
            except InputError as error:
                self.record.tell("restarted", f"begins again from step 0: {error}")
                self.solo = self.at_start(self.place, self.planned)
        elif row["steps_done"]:
            reason = row["message"] or "it had no checkpoint"
            self.record.tell("restarted", f"begins again from step 0: {reason}")

    def _stops(self, watch: str) -> bool:
        """Look at the watched split; whether the run ends here."""
        remember = self.record.stopper is not None
        numbers = self.solo.evaluate(cast("Split", watch), remember=remember)
        stops = self.record.watched(self.solo.position, numbers)
        if self.record.improved:
            self.solo.keep_best()
        return stops

    def _is_due(self) -> bool:
        wait = max(self.place.pace.commit, self.cost / self.place.pace.share)
        return time.monotonic() - self.committed_at >= wait

    def _saved(self) -> Stored | None:
        """A checkpoint of this moment; None where the optimizer's state cannot be written."""
        if not self.can_be_saved:
            return None
        try:
            state = self.solo.state()
        except TaskError as error:
            self.can_be_saved = False
            self.record.tell(
                "no_checkpoint",
                f"cannot be continued after an interruption and would begin again: {error}",
            )
            return None
        return self.record.save(state, self.solo.position)

    def _end(self, status: Status, *, diverged_at: int | None = None) -> None:
        stored = self.record.save_end(self.solo.weights(), self.solo.position)
        self._commit(status, stored, diverged_at=diverged_at)

    def _commit(self, status: Status, stored: Stored | None, **more: Any) -> None:
        progress = self.record.progress(status, stored, order_hash=self.solo.order_hash, **more)
        commit(self.place.ledger, [self.record], [progress])
        self.committed_at = time.monotonic()
