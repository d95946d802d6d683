"""A run's side of the ledger: what it has done since its last commit, and how that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from steepest.errors import InputError
from steepest.racing.folder import CHECKPOINTS, WEIGHTS
from steepest.racing.ledger import Ledger
from steepest.racing.objects import Handout
from steepest.racing.observer import Observer, Pace, Stop
from steepest.racing.records import Evaluation, Floats, Progress, Status, Stored
from steepest.racing.spec import Plan, RunPlan
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState
from steepest.train.solo import Chunk
from steepest.train.stopping import Stopper
from steepest.train.task import Task, hash_tensors

__all__ = ["Place", "Record", "commit", "name_of", "unfinished"]


@dataclass(frozen=True)
class Place:
    """What all runs of a race have in common."""

    ledger: Ledger
    plan: Plan
    task: Task
    observer: Observer
    pace: Pace
    stop: Stop
    handout: Handout


@dataclass
class _Since:
    """What a run has done since its last commit, at ``first - 1`` steps."""

    first: int
    chunks: list[Chunk] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    clock: dict[int, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.first - 1 + sum(len(chunk.loss) for chunk in self.chunks)

    def curves(self) -> Mapping[str, Floats]:
        return {
            "train_loss": np.concatenate([np.zeros(0, np.float32), *(c.loss for c in self.chunks)]),
            "lr": np.concatenate([np.zeros(0, np.float32), *(c.lr for c in self.chunks)]),
        }


class Record:
    """One run, as its ledger is to know it.

    Args:
        place: The race.
        planned: The run.
    """

    def __init__(self, place: Place, planned: RunPlan) -> None:
        self.place = place
        self.planned = planned
        self.id = planned.run_id
        self.seconds = 0.0
        self.since = _Since(1)
        self.reason = ""
        rule = place.plan.spec.stopping
        self.stopper = None if rule is None else Stopper(rule)

    # ------------------------------------------------------------------ beginning

    def keep_start(self, weights: dict[str, Tensor]) -> None:
        """The first final run of a seed writes down what all runs of the seed start from."""
        if self.planned.stage == "tuning":
            return  # the hash is in the ledger; weights are for comparing arms that are compared
        ledger, seed = self.place.ledger, self.planned.seed
        path = f"{WEIGHTS}/start-s{seed}.safetensors"
        with ledger.transaction():  # runs of one seed may begin at the same moment
            if not any(s.kind == "start" and s.seed == seed for s in ledger.stored()):
                checkpoint.save(ledger.folder / path, RunState(weights, {}))
                ledger.put_start(Stored(path, "start", None, seed, 0, hash_tensors(weights)))

    def checkpoint(self) -> Stored | None:
        """Where the run can go on."""
        stored = self.place.ledger.stored()
        return next((s for s in stored if s.run_id == self.id and s.kind == "resume"), None)

    def begin(self, start_hash: str, *, step: int) -> None:
        """Go on from a step; say loudly if the start is not what the others of the seed had."""
        ledger = self.place.ledger
        ledger.rewind(self.id, step=step)
        for other in ledger.rows(
            "SELECT run_id, label FROM runs JOIN trials USING (trial_id) JOIN arms USING (arm_id) "
            "WHERE seed = ? AND start_hash != ? ORDER BY position LIMIT 1",
            self.planned.seed,
            start_hash,
        ):
            same = "it" if other["run_id"] == self.id else other["label"]
            self.tell(
                "unequal_start",
                f"starts from other weights than {same} did with the same seed; the comparison "
                "is not fair. The model takes randomness from somewhere else than torch, "
                "numpy or random",
            )
        ledger.begin_run(self.id, start_hash=start_hash)
        self.seconds = max(ledger.clock(self.id).values(), default=0.0)
        self.since = _Since(step + 1)

    # ------------------------------------------------------------------ on the way

    def took(self, chunk: Chunk) -> None:
        """Steps were done."""
        self.seconds += chunk.seconds
        self.reason = chunk.reason
        self.since.chunks.append(chunk)
        self.place.observer.advanced(
            self.id, self.since.done, self.planned.steps, float(chunk.loss[-1])
        )

    def measured(self, step: int, split: str, numbers: Mapping[str, float]) -> None:
        """A split was evaluated."""
        self.since.evaluations += [Evaluation(step, split, k, v) for k, v in numbers.items()]
        self.since.clock[step] = self.seconds

    def watched(self, step: int, numbers: Mapping[str, float]) -> bool:
        """The watched split was evaluated; whether the run is to stop."""
        watch = self.place.plan.spec.watch
        self.measured(step, str(watch), numbers)
        if self.stopper is None:
            return False
        return self.stopper.see(step, {f"{watch}_{key}": v for key, v in numbers.items()})

    @property
    def improved(self) -> bool:
        """Whether the last evaluation was the best, and is to be kept."""
        return self.stopper is not None and self.stopper.improved

    @property
    def best_step(self) -> int | None:
        """The evaluation whose weights are kept; None where none are."""
        return None if self.stopper is None else self.stopper.best_step

    def found(self, state: RunState) -> None:
        """The run goes on from a checkpoint."""
        if self.stopper is not None:
            if "stopper" not in state.meta:
                raise InputError("its checkpoint was written without early stopping")
            self.stopper.load_state_dict(state.meta["stopper"])

    def save(self, state: RunState, step: int) -> Stored:
        """Write a checkpoint; it counts when it is committed."""
        if self.stopper is not None:
            state.meta["stopper"] = self.stopper.state_dict()
        path = f"{CHECKPOINTS}/{self.id}-{step}.safetensors"
        checkpoint.save(self.place.ledger.folder / path, state)
        return Stored(path, "resume", self.id, self.planned.seed, step)

    def save_end(self, weights: dict[str, Tensor], step: int) -> Stored | None:
        """Write the final weights of a final run; they count when they are committed."""
        if self.planned.stage == "tuning":
            return None
        path = f"{WEIGHTS}/{self.id}.safetensors"
        checkpoint.save(self.place.ledger.folder / path, RunState(weights, {}))
        return Stored(path, "final", self.id, self.planned.seed, step, hash_tensors(weights))

    def progress(
        self,
        status: Status,
        stored: Stored | None,
        *,
        order_hash: str,
        diverged_at: int | None = None,
    ) -> Progress:
        """All that was done since the last commit."""
        done = self.since.done
        return Progress(
            run_id=self.id,
            status=status,
            steps_done=done,
            first_step=self.since.first,
            curves=self.since.curves(),
            evaluations=self.since.evaluations,
            stored=stored,
            seconds={**self.since.clock, done: self.seconds},
            order_hash=order_hash,
            diverged_at=diverged_at,
            best_step=self.best_step if status == "done" else None,
            message=self._message(status),
        )

    def _message(self, status: Status) -> str | None:
        """Why the run ended before its last step."""
        if status == "done" and self.stopper is not None and self.stopper.stopped_at is not None:
            return self.stopper.reason
        return self.reason or None if status == "diverged" else None

    def committed(self, progress: Progress) -> None:
        """What was done is on the disk."""
        metrics = {f"{e.split}_{e.metric}": e.value for e in self.since.evaluations}
        self.since = _Since(progress.steps_done + 1)
        if progress.diverged_at is not None:
            step = progress.diverged_at
            why = progress.message or f"its loss was not finite at step {step}"
            self.tell("diverged", f"diverged: {why}")
        elif progress.message is not None:
            self.tell("stopped", progress.message)
        if progress.status in ("done", "diverged"):
            self.place.observer.run_finished(self.id, progress.status, metrics)

    def tell(self, kind: str, text: str) -> None:
        """Write down something that a reader of the result should know."""
        text = f"{name_of(self.planned)} {text}"
        self.place.ledger.put_event(kind, text, run_id=self.id)
        self.place.observer.note(text)


def commit(ledger: Ledger, records: Sequence[Record], progresses: Sequence[Progress]) -> None:
    """Commit what several runs have done in one transaction, then delete what that replaced."""
    with ledger.transaction():
        obsolete = [path for progress in progresses for path in ledger.commit(progress)]
    for path in obsolete:
        (ledger.folder / path).unlink(missing_ok=True)
    for record, progress in zip(records, progresses, strict=True):
        record.committed(progress)


def unfinished(place: Place, runs: Sequence[RunPlan]) -> list[RunPlan]:
    """Those that have neither diverged nor come to their ends."""
    ended = ("diverged", "done")
    return [run for run in runs if place.ledger.run(run.run_id)["status"] not in ended]


def name_of(planned: RunPlan) -> str:
    """How messages call a run."""
    return f"{planned.name},"
