"""Carry out one planned run by itself: train, look up, evaluate, commit, go on after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from steepest.errors import InputError, LedgerError, SteepestError, TaskError
from steepest.racing.folder import CHECKPOINTS, WEIGHTS
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Observer, Pace, Stop, StoppedError
from steepest.racing.plan import Plan, RunPlan
from steepest.racing.records import Evaluation, Floats, Progress, Status, Stored
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState
from steepest.train.solo import Chunk, SoloRun
from steepest.train.task import Task, hash_tensors

__all__ = ["carry_out"]

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class _Place:
    """What all runs of a race have in common."""

    ledger: Ledger
    plan: Plan
    task: Task
    observer: Observer
    pace: Pace
    stop: Stop


@dataclass
class _Since:
    """What a run has done since its last commit, at ``first - 1`` steps."""

    first: int
    chunks: list[Chunk] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    clock: dict[int, float] = field(default_factory=dict)

    def curves(self) -> Mapping[str, Floats]:
        return {
            "train_loss": np.concatenate([np.zeros(0, np.float32), *(c.loss for c in self.chunks)]),
            "lr": np.concatenate([np.zeros(0, np.float32), *(c.lr for c in self.chunks)]),
        }


def carry_out(
    ledger: Ledger,
    plan: Plan,
    task: Task,
    planned: RunPlan,
    *,
    observer: Observer,
    pace: Pace,
    stop: Stop,
) -> None:
    """Bring one run to its end, or to a commit if the race was asked to stop.

    Whatever the run's own code raises is written down as the run's failure.
    """
    place = _Place(ledger, plan, task, observer, pace, stop)
    try:
        _Run(place, planned).train()
    except (LedgerError, StoppedError):
        raise
    except Exception as error:  # noqa: BLE001  a stranger's model, loss, metric or optimizer
        named = "" if isinstance(error, SteepestError) else f"{type(error).__name__}: "
        message = f"{named}{str(error).strip()}"
        ledger.fail(planned.run_id, message)
        ledger.put_event("failed", f"{_name(planned)}: {message}", run_id=planned.run_id)
        observer.note(f"{_name(planned)} failed: {message}")
        observer.run_finished(planned.run_id, "failed", {})


class _Run:
    """A run on its way: the training, and what of it is not committed yet."""

    def __init__(self, place: _Place, planned: RunPlan) -> None:
        self.place = place
        self.planned = planned
        self.id = planned.run_id
        self.solo = self._at_start()
        self._keep_start()
        self._find_place()
        self._begin()
        self.seconds = max(place.ledger.clock(self.id).values(), default=0.0)
        self.since = _Since(self.solo.position + 1)
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
            self._took(chunk)
            per_step = chunk.seconds / max(1, len(chunk.loss))
            if chunk.diverged_at is not None:
                self._end("diverged", diverged_at=chunk.diverged_at + 1)
                return
            if spec.watch and (solo.position % spec.eval_every == 0 or solo.position == total):
                self._evaluate(spec.watch)
            if solo.position < total and (self.place.stop.requested or self._is_due()):
                begin = time.monotonic()
                self._commit("running", self._saved())
                self.cost = self.committed_at - begin
                self.place.stop.obey()
        if self.planned.stage == "final" and spec.decides.split != spec.watch:
            self._evaluate(spec.decides.split)
        self._end("done")

    # ------------------------------------------------------------------ beginning

    def _at_start(self) -> SoloRun:
        planned, spec = self.planned, self.place.plan.spec
        return SoloRun(
            self.place.task,
            optimizer=planned.arm.factory(),
            schedule=planned.arm.schedule,
            seed=planned.seed,
            steps=planned.steps,
            batch_size=spec.batch_size,
            device=spec.device,
        )

    def _keep_start(self) -> None:
        """The first run of a seed writes down what all runs of the seed start from."""
        ledger, seed = self.place.ledger, self.planned.seed
        if any(s.kind == "start" and s.seed == seed for s in ledger.stored()):
            return
        weights = self.solo.weights()
        path = f"{WEIGHTS}/start-s{seed}.safetensors"
        checkpoint.save(ledger.folder / path, RunState(weights, {}))
        ledger.put_start(Stored(path, "start", None, seed, 0, hash_tensors(weights)))

    def _find_place(self) -> None:
        """Go to the last checkpoint, or to the beginning, and forget what came after it."""
        ledger = self.place.ledger
        row = ledger.run(self.id)
        saved = [s for s in ledger.stored() if s.run_id == self.id and s.kind == "resume"]
        if saved:
            try:
                self.solo.restore(checkpoint.load(ledger.folder / saved[0].path))
            except InputError as error:
                self._tell("restarted", f"begins again from step 0: {error}")
                self.solo = self._at_start()
        elif row["steps_done"]:
            reason = row["message"] or "it had no checkpoint"
            self._tell("restarted", f"begins again from step 0: {reason}")
        ledger.rewind(self.id, step=self.solo.position)

    def _begin(self) -> None:
        """Record what the run starts from, and say loudly if it is not what the others had."""
        ledger, mine = self.place.ledger, self.solo.start_hash
        for other in ledger.runs():
            theirs = other["start_hash"]
            if other["seed"] == self.planned.seed and theirs and theirs != mine:
                same = "it" if other["run_id"] == self.id else other["label"]
                self._tell(
                    "unequal_start",
                    f"starts from other weights than {same} did with the same seed; the comparison "
                    "is not fair. The model takes randomness from somewhere else than torch, "
                    "numpy or random",
                )
                break
        ledger.begin_run(self.id, start_hash=mine)

    # ------------------------------------------------------------------ on the way

    def _took(self, chunk: Chunk) -> None:
        self.seconds += chunk.seconds
        self.since.chunks.append(chunk)
        done = self.since.first - 1 + sum(len(c.loss) for c in self.since.chunks)
        loss = float(chunk.loss[-1])
        self.place.observer.advanced(self.id, done, self.planned.steps, loss)

    def _evaluate(self, split: str) -> None:
        numbers = self.solo.evaluate(cast("Split", split))
        step = self.solo.position
        self.since.evaluations += [Evaluation(step, split, k, v) for k, v in numbers.items()]
        self.since.clock[step] = self.seconds

    def _is_due(self) -> bool:
        wait = max(self.place.pace.commit, self.cost / self.place.pace.share)
        return time.monotonic() - self.committed_at >= wait

    def _saved(self) -> Stored | None:
        """A checkpoint of this moment; None where the optimizer's state cannot be written."""
        if not self.can_be_saved:
            return None
        step = self.solo.position
        path = f"{CHECKPOINTS}/{self.id}-{step}.safetensors"
        try:
            state = self.solo.state()
        except TaskError as error:
            self.can_be_saved = False
            self._tell(
                "no_checkpoint",
                f"cannot be continued after an interruption and would begin again: {error}",
            )
            return None
        checkpoint.save(self.place.ledger.folder / path, state)
        return Stored(path, "resume", self.id, self.planned.seed, step)

    def _end(self, status: Status, *, diverged_at: int | None = None) -> None:
        weights = self.solo.weights()
        path = f"{WEIGHTS}/{self.id}.safetensors"
        checkpoint.save(self.place.ledger.folder / path, RunState(weights, {}))
        step, seed = self.solo.position, self.planned.seed
        stored = Stored(path, "final", self.id, seed, step, hash_tensors(weights))
        metrics = {f"{e.split}_{e.metric}": e.value for e in self.since.evaluations}
        self._commit(status, stored, diverged_at=diverged_at)
        if diverged_at is not None:
            self._tell("diverged", f"diverged: its loss was not finite at step {diverged_at}")
        self.place.observer.run_finished(self.id, status, metrics)

    def _commit(
        self, status: Status, stored: Stored | None, *, diverged_at: int | None = None
    ) -> None:
        since, ledger = self.since, self.place.ledger
        curves = since.curves()
        done = since.first - 1 + len(curves["train_loss"])
        obsolete = ledger.commit(
            Progress(
                run_id=self.id,
                status=status,
                steps_done=done,
                first_step=since.first,
                curves=curves,
                evaluations=since.evaluations,
                stored=stored,
                seconds={**since.clock, done: self.seconds},
                order_hash=self.solo.order_hash,
                diverged_at=diverged_at,
            )
        )
        for path in obsolete:
            (ledger.folder / path).unlink(missing_ok=True)
        self.since = _Since(done + 1)
        self.committed_at = time.monotonic()

    def _tell(self, kind: str, text: str) -> None:
        text = f"{_name(self.planned)} {text}"
        self.place.ledger.put_event(kind, text, run_id=self.id)
        self.place.observer.note(text)


def _name(planned: RunPlan) -> str:
    return f"{planned.arm.label}, seed {planned.seed},"
