"""Carry out several planned runs as one population: train, evaluate and commit them together.

All members that are alive commit in one transaction, at the same step, so that the population can
go on from there. A member that diverges is committed at once and keeps its place, frozen. When half
of the places are frozen, the others move together; that happens at an evaluation, so that an
interrupted race does it at the same step as an uninterrupted one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

from steepest.errors import InputError, LedgerError
from steepest.racing.observer import StoppedError
from steepest.racing.record import Place, Record, commit, unfinished
from steepest.racing.records import Progress, Status, Stored
from steepest.racing.spec import RunPlan
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState
from steepest.train.memory import is_out_of_memory
from steepest.train.population import Member, Population, why_not
from steepest.train.solo import Chunk

__all__ = ["Together", "build", "carry_out_together"]

Split = Literal["train", "val", "test"]
Regroup = Callable[[Sequence[Sequence[str]]], None]
"""Told, inside a transaction, which groups of runs have taken a group's place."""


def build(place: Place, planned: Sequence[RunPlan], *, compiled: bool) -> Population:
    """The population of these runs, at its start."""
    return Population(
        place.task,
        [
            Member(run.arm.factory(), run.arm.schedule, run.seed, place.plan.spec.guard)
            for run in planned
        ],
        steps=planned[0].steps,
        batch_size=place.plan.spec.batch_size,
        device=place.plan.spec.device,
        compiled=compiled,
        precision=place.plan.spec.precision,
    )


class Together(Protocol):
    """What carries out the steps of runs that keep step: a `Population`, here or elsewhere."""

    start_hashes: list[str]
    position: int
    diverged_at: list[int | None]

    @property
    def how(self) -> str:
        """How its passes are carried out, in words; empty before the first one."""

    @property
    def alive(self) -> list[int]:
        """The places of the members that go on."""

    def __len__(self) -> int:
        """How many members there are."""

    def advance(self, n: int) -> list[Chunk]:
        """Train some steps."""

    def evaluate(self, split: Split, *, remember: bool = False) -> list[dict[str, float] | None]:
        """Measure on a split."""

    def stop(self, place: int) -> None:
        """Leave a member as it is now."""

    def freeze(self, place: int, step: int) -> None:
        """Leave a member as it is: it is known to end with this step."""

    def keep_best(self, places: Sequence[int]) -> None:
        """Keep the weights that the last evaluation remembered."""

    def end_with_best(self, places: Sequence[int], split: Split | None) -> list[dict[str, float]]:
        """End members here, with those weights."""

    def left(self) -> list[int]:
        """The places of members that had come to their ends by now."""

    def compacted(self) -> tuple[Together, list[int]]:
        """The others, and their places."""

    def order_hash(self, place: int) -> str:
        """Over the batches that a member was given."""

    def weights(self, place: int) -> dict[str, Tensor]:
        """A member's parameters."""

    def state(self, place: int) -> RunState:
        """What `restore` needs of a member."""

    def restore(
        self, states: Sequence[RunState | None], *, frozen: Mapping[int, int] | None = None
    ) -> None:
        """Go to where the members' states were taken."""


def carry_out_together(
    place: Place,
    planned: Sequence[RunPlan],
    *,
    at_start: Callable[[Sequence[RunPlan]], Together],
    regroup: Regroup,
    passing: tuple[type[Exception], ...] = (),
) -> list[RunPlan]:
    """Bring these runs to their ends, or to a commit if the race was asked to stop.

    Out of memory, the population is halved and goes on from its last commit. Whatever else the
    population raises is written down, and its runs are left to be trained one by one, each
    from its last commit: there it shows whose fault it was.

    Args:
        place: The race.
        planned: The runs.
        at_start: Makes the population of some of them, at its start.
        regroup: Is told which groups have taken this one's place.
        passing: Errors that are the caller's and not the runs'.

    Returns:
        The runs that are left.
    """
    left: list[RunPlan] = []
    waiting = [list(planned)]
    while waiting:
        runs = waiting.pop(0)
        behind = [[run.run_id for run in group] for group in waiting]

        def beside(groups: Sequence[Sequence[str]], behind: Any = behind) -> None:
            regroup([*groups, *behind])

        try:
            _Group(place, runs, at_start=at_start, regroup=beside).train()
            continue
        except Exception as error:  # a stranger's model, loss, metric or optimizer
            if isinstance(error, (LedgerError, StoppedError, *passing)):
                raise
            full = is_out_of_memory(error) and len(runs) > 1
            reason = why_not(error)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        runs = unfinished(place, runs)
        if full:
            half = (len(runs) + 1) // 2
            waiting = [runs[:half], runs[half:], *waiting]
            _tell(
                place,
                "out_of_memory",
                f"a population of {len(runs)} runs does not fit into memory ({reason}); halved",
            )
        else:
            left += runs
            _tell(
                place,
                "not_batched",
                f"{len(runs)} runs cannot be trained as one population and are trained one by one: "
                f"{reason}",
            )
        with place.ledger.transaction():
            regroup([[run.run_id for run in group] for group in waiting])
    return left


def _tell(place: Place, kind: str, text: str) -> None:
    place.ledger.put_event(kind, text)
    place.observer.note(text)


class _Group:
    """A population on its way, and what of it is not committed yet."""

    def __init__(
        self,
        place: Place,
        planned: Sequence[RunPlan],
        *,
        at_start: Callable[[Sequence[RunPlan]], Together],
        regroup: Regroup,
    ) -> None:
        self.place = place
        self.regroup = regroup
        self.at_start = at_start
        self.records = [Record(place, run) for run in planned]
        self.population = at_start(planned)
        for i, record in enumerate(self.records):
            if record.planned.seed not in {r.planned.seed for r in self.records[:i]}:
                record.keep_start(self.population.weights(i))
        self._find_place()
        with place.ledger.transaction():
            for i in self.population.alive:
                self.records[i].begin(
                    self.population.start_hashes[i], step=self.population.position
                )
        self.committed_at = time.monotonic()
        self.cost = 0.0
        self.how = ""

    @property
    def _alive(self) -> list[tuple[int, Record]]:
        return [(i, self.records[i]) for i in self.population.alive]

    def train(self) -> None:
        place, spec = self.place, self.place.plan.spec
        total, stage = self.records[0].planned.steps, self.records[0].planned.stage
        if not self.population.alive:
            return
        per_step = 0.0
        while self.population.position < total and self.population.alive:
            population = self.population
            wanted = max(1, int(place.pace.look / per_step)) if per_step else 1
            to_evaluation = spec.eval_every - population.position % spec.eval_every
            begin = time.monotonic()
            self._advance(min(wanted, to_evaluation))
            per_step = (time.monotonic() - begin) / min(wanted, to_evaluation)
            if not population.alive:
                return
            at_end = population.position == total
            at_evaluation = population.position % spec.eval_every == 0
            if spec.watch and (at_evaluation or at_end):
                self._look(spec.watch)
                if not population.alive:
                    return
            if at_end:
                break
            crowded = at_evaluation and self._is_half_empty()
            if place.stop.requested or crowded or self._is_due():
                begin = time.monotonic()
                self._commit("running")
                self.cost = self.committed_at - begin
                place.stop.obey()
                if crowded:
                    self._compact()
        if spec.stopping is not None:
            self._leave([i for i, record in self._alive if record.best_step is not None])
        if stage == "final" and spec.decides.split != spec.watch and self.population.alive:
            found = self.population.evaluate(cast("Split", spec.decides.split))
            for i, record in self._alive:
                record.measured(self.population.position, spec.decides.split, found[i] or {})
        self._commit("done")

    def _find_place(self) -> None:
        """Go to where all members were committed together, or to the beginning."""
        ledger = self.place.ledger
        rows = [ledger.run(record.id) for record in self.records]
        ends = {"diverged": "diverged_at", "done": "steps_done"}  # done: it was stopped early
        frozen = {
            i: row[ends[row["status"]]] - 1 for i, row in enumerate(rows) if row["status"] in ends
        }
        saved = {i: r.checkpoint() for i, r in enumerate(self.records) if i not in frozen}
        reason = "not all of its members have a checkpoint"
        if saved and all(saved.values()):
            try:
                states = {i: checkpoint.load(ledger.folder / s.path) for i, s in saved.items() if s}
                for i, state in states.items():
                    self.records[i].found(state)
                self.population.restore([states.get(i) for i in range(len(rows))], frozen=frozen)
            except InputError as error:
                reason = str(error)
            else:
                return
        if any(rows[i]["steps_done"] for i in saved):
            text = f"A population of {len(rows)} runs begins again from step 0: {reason}"
            _tell(self.place, "restarted", text)
            self.population = self.at_start([r.planned for r in self.records])
        for i, step in frozen.items():
            self.population.freeze(i, step)

    def _advance(self, n: int) -> None:
        population = self.population
        before = population.alive
        chunks = population.advance(n)
        if population.how != self.how:
            self._say_how()
        for i in before:
            self.records[i].took(chunks[i])
        gone = [i for i in before if population.diverged_at[i] is not None]
        progresses = []
        for i in gone:
            stored = self.records[i].save_end(population.weights(i), chunks[i].diverged_at or 0)
            progresses.append(
                self._progress(i, "diverged", stored, diverged_at=(chunks[i].diverged_at or 0) + 1)
            )
        if gone:
            commit(self.place.ledger, [self.records[i] for i in gone], progresses)

    def _say_how(self) -> None:
        """Write down how passes are carried out: the last bits of a run depend on it."""
        self.how = self.population.how
        text = f"passes of populations are carried out {self.how}"
        ledger = self.place.ledger
        with ledger.transaction():
            if text not in {
                event["text"] for event in ledger.events() if event["kind"] == "passes"
            }:
                ledger.put_event("passes", text)

    def _look(self, watch: str) -> None:
        """Evaluate the watched split; members that are to stop leave."""
        population, step = self.population, self.population.position
        remember = self.place.plan.spec.stopping is not None
        found = population.evaluate(cast("Split", watch), remember=remember)
        stopping = [i for i, record in self._alive if record.watched(step, found[i] or {})]
        population.keep_best([i for i, record in self._alive if record.improved])
        if stopping:
            self._leave(stopping)

    def _leave(self, places: Sequence[int]) -> None:
        """End members with the weights of their best evaluations, and commit them."""
        spec, population = self.place.plan.spec, self.population
        final = self.records[0].planned.stage == "final" and spec.decides.split != spec.watch
        kept = [i for i in places if self.records[i].best_step is not None]
        split = spec.decides.split if final else None
        numbers = population.end_with_best(kept, cast("Split | None", split))
        for i, measured in zip(kept, numbers, strict=final):
            self.records[i].measured(self.records[i].best_step or 0, spec.decides.split, measured)
        progresses = []
        for i in places:
            if i not in kept:
                population.stop(i)
            stored = self.records[i].save_end(population.weights(i), population.position)
            progresses.append(self._progress(i, "done", stored))
        commit(self.place.ledger, [self.records[i] for i in places], progresses)

    def _is_due(self) -> bool:
        wait = max(self.place.pace.commit, self.cost / self.place.pace.share)
        return time.monotonic() - self.committed_at >= wait

    def _is_half_empty(self) -> bool:
        return 2 * len(self.population.left()) >= len(self.population)

    def _compact(self) -> None:
        self.population, places = self.population.compacted()
        self.records = [self.records[i] for i in places]
        with self.place.ledger.transaction():
            self.regroup([[record.id for record in self.records]])

    def _commit(self, status: Status) -> None:
        """All members that are alive, at the same step."""
        population, records, progresses = self.population, [], []
        step = population.position
        for i, record in self._alive:
            if status == "done":
                stored = record.save_end(population.weights(i), step)
            else:
                stored = record.save(population.state(i), step)
            records.append(record)
            progresses.append(self._progress(i, status, stored))
        commit(self.place.ledger, records, progresses)
        self.committed_at = time.monotonic()

    def _progress(
        self, i: int, status: Status, stored: Stored | None, *, diverged_at: int | None = None
    ) -> Progress:
        return self.records[i].progress(
            status, stored, order_hash=self.population.order_hash(i), diverged_at=diverged_at
        )
