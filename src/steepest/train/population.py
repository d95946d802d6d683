"""Many runs trained as one batched computation.

    M      members: the runs that train together
    B      examples in a batch
    T_M    a parameter or buffer of all members, stacked along a new first dimension

The model runs once, mapped over the stacks with `torch.func.vmap`; one backward pass gives every
member its own gradients, since the sum of the members' losses is linear in each. Then all members
that follow one rule take their steps in one launch (see `steepest.train.steppers`).

A member is the run that `SoloRun` would have been: same start, same batches, same noise, all of
them functions of (seed, step). Nothing flows between members, so one that diverges changes no bit
of the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steepest.errors import InputError, SteepestError, UnsupportedError
from steepest.train.allocator import keep_freed_memory
from steepest.train.checkpoint import RunState
from steepest.train.data import TensorSource, check_batch_size, map_tensors, open_source
from steepest.train.evaluator import Evaluator
from steepest.train.guard import Guarded, GuardRule
from steepest.train.keyed import step_words
from steepest.train.mapped import Mapped
from steepest.train.orders import Orders
from steepest.train.precision import FLOAT32, Precision
from steepest.train.randomness import isolated, run_key
from steepest.train.recorded import FIRST, Passes
from steepest.train.solo import Chunk, OptimizerFactory, Schedule, find_device
from steepest.train.stacks import Stacks
from steepest.train.standing import Standing
from steepest.train.steppers import Steppers
from steepest.train.task import Task

__all__ = ["WARM_UP", "Member", "Population"]

WARM_UP = FIRST + 1  # steps after which a step takes what it will take


@dataclass(frozen=True)
class Member:
    """What makes a run of a task this run.

    Attributes:
        optimizer: Makes the optimizer for the model's parameters.
        schedule: Multiplies every group's learning rate; None: leave it to the optimizer.
        seed: Start, order and noise are functions of it.
        guard: Ends the run when it blows up, and puts back the weights from before.
    """

    optimizer: OptimizerFactory
    schedule: Schedule | None
    seed: int
    guard: GuardRule | None = None


class Population:
    """Runs of one task, of equal length and batch size, that train together.

    Args:
        task: What to train; its training data must be tensors.
        members: The runs, in their places.
        steps: How long each of them is; schedules need to know.
        batch_size: None: the task's.
        device: ``"cpu"`` or ``"cuda"``.
        compiled: Run the model through `torch.compile`.
        recorded: Repeat the tensor operations of a pass where that gives the same bits and pays,
            instead of running the model's code (see `steepest.train.recorded`).
        fused: Carry out what is recorded in C++, where that can be (see `steepest.train.fused`).
        precision: ``"float32"``, ``"tf32"`` or ``"bf16"``; see `steepest.train.precision`.

    Attributes:
        start_hashes: Of each member's initial parameters and buffers, equal to its solo run's.
        position: Number of updates that the members still alive have done.
        steps_per_epoch: Batches in an epoch.
        diverged_at: Of each member the step whose loss was not finite, or at which its guard ended
            it, or None. Such a member keeps its place but is frozen.
        stopped_at: Of each member the number of updates after which it was stopped, or None. It is
            frozen, too.

    Raises:
        UnsupportedError: If the runs cannot be batched; the message says why, and the runs can
            be trained one by one.

    >>> from torch import nn
    >>> task = Task(name="tiny", model=lambda: nn.Linear(8, 1), loss=nn.functional.mse_loss,
    ...             train=(torch.ones(64, 8), torch.ones(64, 1)))
    >>> members = [Member(lambda p: torch.optim.SGD(p, lr=0.01), None, seed) for seed in range(3)]
    >>> population = Population(task, members, steps=20)
    >>> [len(chunk.loss) for chunk in population.advance(20)], population.position
    ([20, 20, 20], 20)
    """

    def __init__(
        self,
        task: Task,
        members: Sequence[Member],
        *,
        steps: int,
        batch_size: int | None = None,
        device: str | torch.device = "cpu",
        compiled: bool = False,
        recorded: bool = True,
        fused: bool = True,
        precision: str = FLOAT32,
    ) -> None:
        if not members:
            raise InputError("a population needs at least one member, got none")
        if steps < 0:
            raise InputError(f"a run needs steps >= 0, got {steps}")
        self.task = task
        self.members = tuple(members)
        self.steps = steps
        self.batch_size = batch_size
        self.compiled = compiled
        self.recorded, self.fused = recorded, fused
        self.device = find_device(device)
        self.precision = Precision(precision, self.device)
        self.position = 0
        self.diverged_at: list[int | None] = [None] * len(members)
        self.stopped_at: list[int | None] = [None] * len(members)
        self._alive = list(range(len(members)))
        self._is_guarded = any(m.guard is not None for m in members)
        self._guarded = [None if m.guard is None else Guarded(m.guard) for m in members]
        keep_freed_memory()
        with isolated(self.device):
            self._open_source()
            if not task.checked:
                task.check(self._source.batch(self._orders.numbers(0)[: self._b]))
            self.stacks = Stacks(
                task, [m.seed for m in members], self.device, own_linear=not compiled
            )
            self.steppers = Steppers(
                task, self.stacks, [(m.optimizer, m.schedule, m.seed) for m in members], steps
            )
        self.start_hashes = self.stacks.start_hashes
        self._mapped = Mapped(task, self.stacks.template, self.precision)
        self._evaluator = Evaluator(self._mapped, self.stacks, self.steppers)
        keys = torch.tensor([run_key(m.seed) for m in members], dtype=torch.int32)
        self._run_keys_M2 = keys.to(self.device)
        self._passes = Passes(
            task,
            self._mapped.compiled() if compiled else self._mapped.losses,
            batch=self._batch,
            data=self._source.rows,
            model=self.stacks.template,
            params=self.stacks.params,
            buffers=self.stacks.buffers,
            trained=self.stacks.trained,
            key=(len(members), self.precision.name),
            steps=None if compiled or not recorded else steps,
            fused=fused,
        )

    def __len__(self) -> int:
        return len(self.members)

    def _open_source(self) -> None:
        task, where = self.task, f"task '{self.task.name}': train"
        source = open_source(task.train, self.device, where=where)
        if not isinstance(source, TensorSource):
            kind = "DataLoader" if source is None else "Dataset"
            raise UnsupportedError(
                f"its training data come from a {kind}, which is read example by example; a "
                "population gathers batches from tensors"
            )
        self._source = source
        self._b = check_batch_size(self.batch_size or task.batch_size, source, where=where)
        self._orders = Orders(source, [m.seed for m in self.members], self._b, self.device)
        self._order: list[str | None] = [None] * len(self.members)
        self.steps_per_epoch = self._orders.steps_per_epoch

    # ------------------------------------------------------------------ training

    @property
    def alive(self) -> list[int]:
        """The places of the members that have neither diverged nor been stopped."""
        return list(self._alive)

    @property
    def how(self) -> str:
        """How its passes are carried out, in words; empty before the first one."""
        return "through torch.compile" if self.compiled else self._passes.how

    def _ended(self, place: int) -> int | None:
        """The last step (from 0) in which a member took part, or None while it goes on."""
        stopped = self.stopped_at[place]
        return self.diverged_at[place] if stopped is None else stopped - 1

    def left(self) -> list[int]:
        """The places of members that had come to their ends by now.

        One that is known to end later, because it did before an interruption, is not among them:
        so a run that is resumed is compacted as one that was never interrupted.
        """
        ends = ((i, self._ended(i)) for i in range(len(self)))
        return [i for i, step in ends if step is not None and step < self.position]

    def order_hash(self, place: int) -> str:
        """A hash over the numbers of the examples that this member was given."""
        return self._order[place] or self._orders.digest(place, self.position)

    def advance(self, n: int) -> list[Chunk]:
        """Train ``n`` steps, or to the end; the members' chunks in the order of their places.

        ``Chunk.seconds`` is a member's share of the time. A frozen member's chunk is empty.
        """
        first, M = self.position, len(self.members)
        n = max(0, min(n, self.steps - first)) if self.alive else 0
        losses, rates = np.zeros((M, n), np.float32), np.zeros((M, n), np.float32)
        counts = [0] * M
        begin = time.perf_counter()
        with self._mapped.training():
            self.steppers.show_trained()
            for k in range(first, first + n):
                column = k - first
                rates[:, column] = self.steppers.set_rates(k)
                for place in self._alive:
                    counts[place] = column + 1
                losses[:, column] = self._step(k)
                if not self._alive:
                    break
                self.position = k + 1
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - begin
        working = sum(map(bool, counts))
        return [
            Chunk(
                first,
                losses[i, : counts[i]],
                rates[i, : counts[i]],
                seconds / working if counts[i] else 0.0,
                self.diverged_at[i],
                "" if (guarded := self._guarded[i]) is None else guarded.watch.reason,
            )
            for i in range(M)
        ]

    def _step(self, step: int) -> NDArray[Any]:
        """One step of all members; the losses before it. Whose run ends is not updated."""
        if self.stacks.key is not None:
            self.stacks.key.copy_(step_words(self._run_keys_M2, step))
        loss_M, grads = self._passes(self._orders.numbers(step))
        values_M: NDArray[Any] = loss_M.to("cpu").numpy()
        ending: list[int] = []
        if self._is_guarded or not np.isfinite(values_M).all():
            ending = [i for i in self._alive if self._ends(i, step, float(values_M[i]))]
            for place in ending:
                self._freeze(place, diverged_at=step)
        if self._alive:
            self.steppers.step(self._alive, grads)
        for place in ending:
            if (guarded := self._guarded[place]) is not None:
                guarded.put_back(self.stacks.of(place))
        return values_M

    def _ends(self, place: int, step: int, loss: float) -> bool:
        """Whether a member's run ends at this loss, before the step's update."""
        guarded = self._guarded[place]
        if guarded is None:
            return not math.isfinite(loss)
        return guarded.see(step, loss, self.stacks.of(place))

    def _freeze(
        self, place: int, *, diverged_at: int | None = None, stopped_at: int | None = None
    ) -> None:
        self.diverged_at[place], self.stopped_at[place] = diverged_at, stopped_at
        self._alive = [i for i in self._alive if i != place]
        given = self.position if diverged_at is None else diverged_at + 1
        self._order[place] = self._orders.digest(place, given)

    def stop(self, place: int) -> None:
        """Leave a member as it is now: its run has come to its end before the others'."""
        self._freeze(place, stopped_at=self.position)

    def keep_best(self, places: Sequence[int]) -> None:
        """Keep members' parameters and buffers as the last evaluation saw and remembered them."""
        self._evaluator.keep_best(places)

    def end_with_best(
        self, places: Sequence[int], split: Literal["train", "val", "test"] | None
    ) -> list[dict[str, float]]:
        """End members here, with what `keep_best` kept.

        Returns:
            What `evaluate` would say of these weights, one member after the other; empty without
            a split.
        """
        numbers = []
        for place in places:
            self.stop(place)
            self._evaluator.settle(place)
            if split is not None:
                numbers.append(self._evaluator.evaluate_settled(place, split))
        return numbers

    def _batch(self, numbers: Tensor) -> tuple[Any, Any]:
        """``[M, B, ...]``, gathered where the data lie."""
        x, y = self._source.batch(numbers)
        shape = (len(self.members), self._b)
        return (
            map_tensors(lambda t: t.view(*shape, *t.shape[1:]), x),
            map_tensors(lambda t: t.view(*shape, *t.shape[1:]), y),
        )

    def _assure(self) -> None:
        """Before something is looked at or kept: what was repeated is still what is written."""
        if not self._passes.in_doubt:
            return
        step = max(0, self.position - 1)
        with self._mapped.training():
            self.steppers.show_trained()
            self._passes.check(self._orders.numbers(step))

    # ------------------------------------------------------------------ looking

    def evaluate(
        self, split: Literal["train", "val", "test"], *, remember: bool = False
    ) -> list[dict[str, float] | None]:
        """Of every member ``{"loss": …, metric: …}`` over a split, in eval mode; None if frozen.

        Members share the batches, some members at a time; training is not touched.

        Args:
            split: Which one.
            remember: So that `keep_best` can keep what was looked at.
        """
        self._assure()
        found = self._evaluator.evaluate(split, self._alive, remember=remember)
        return [found.get(i) for i in range(len(self))]

    def try_evaluation(self, examples: int) -> int:
        """Ask all members about the first training examples, as an evaluation would.

        Returns:
            How many examples there were.
        """
        indices = torch.arange(min(examples, self._source.examples))
        x, y = self._source.batch(indices)
        self._evaluator.ask(x, y)
        return len(indices)

    def examples(self, split: str) -> int | None:
        """How many examples a split has; None where only its DataLoader knows."""
        source = open_source(self.task.split(split), torch.device("cpu"), where=split)
        return None if source is None else source.examples

    def weights(self, place: int) -> dict[str, Tensor]:
        """Copies of a member's named parameters, on the CPU."""
        self._assure()
        return self._evaluator.weights(place)

    # ------------------------------------------------------------------ going on later

    def state(self, place: int) -> RunState:
        """A member's state, in the form of `SoloRun.state`: the run can go on in either."""
        self._assure()
        optimizer, base = self.steppers.state(place)
        guarded = self._guarded[place]
        return Standing(
            seed=self.members[place].seed,
            steps=self.steps,
            start_hash=self.start_hashes[place],
            position=self.position,
            diverged_at=self.diverged_at[place],
            order_hash=self.order_hash(place),
            base_lr=base,
            model=self.stacks.of(place),
            extra={},
            optimizer=optimizer,
            guard=None if guarded is None else guarded.state(),
            best=self._evaluator.best.get(place),
        ).pack()

    def restore(
        self, states: Sequence[RunState | None], *, frozen: Mapping[int, int] | None = None
    ) -> None:
        """Go to where the members' states were taken, all after equally many steps.

        Args:
            states: By place; None for a member that has ended and whose state is not kept.
            frozen: The last step (from 0) in which each of those took part, by place.

        Raises:
            InputError: If a state belongs to another run, or they do not belong together.
        """
        found = {i: Standing.unpack(s) for i, s in enumerate(states) if s is not None}
        gone = dict(frozen or {})
        if len(states) != len(self.members) or sorted([*found, *gone]) != [*range(len(self))]:
            raise InputError(
                f"a population of {len(self)} members needs a state of each, or the step at which "
                f"it ended; got {len(found)} states and {len(gone)} steps"
            )
        for i, saved in found.items():
            saved.check_own(
                seed=self.members[i].seed, steps=self.steps, start_hash=self.start_hashes[i]
            )
        alive = {i: saved for i, saved in found.items() if saved.diverged_at is None}
        positions = {saved.position for saved in alive.values()}
        if len(positions) != 1:
            raise InputError(
                "these checkpoints do not belong together: they were taken after steps "
                f"{', '.join(map(str, sorted(positions))) or '-'}"
            )
        (self.position,) = positions
        self.diverged_at = [gone.get(i) for i in range(len(self))]
        self._alive = sorted(alive)
        for i, saved in found.items():
            self.diverged_at[i] = saved.diverged_at
            if i in alive:
                self._orders.restore(i, self.position, saved.order_hash)
            else:
                self._order[i] = saved.order_hash
            self.stacks.put(i, saved.model)
            if (guarded := self._guarded[i]) is not None:
                guarded.load_state(saved.guard)
            if saved.best is not None:
                self._evaluator.best[i] = {n: t.to(self.device) for n, t in saved.best.items()}
        self.steppers.restore({i: (saved.optimizer, saved.base_lr) for i, saved in found.items()})

    def freeze(self, place: int, step: int) -> None:
        """Leave a member as it is: it is known to end with this step (from 0)."""
        self.diverged_at[place] = step
        self._alive = [i for i in self._alive if i != place]

    def compacted(self) -> tuple[Population, list[int]]:
        """A population without the members that have `left`, and its members' places."""
        places = [i for i in range(len(self)) if i not in self.left()]
        smaller = Population(
            self.task,
            [self.members[i] for i in places],
            steps=self.steps,
            batch_size=self.batch_size,
            device=self.device,
            compiled=self.compiled,
            recorded=self.recorded,
            fused=self.fused,
            precision=self.precision.name,
        )
        later = {n: step for n, i in enumerate(places) if (step := self._ended(i)) is not None}
        smaller.restore(
            [None if n in later else self.state(i) for n, i in enumerate(places)], frozen=later
        )
        return smaller, places


def why_not(error: BaseException) -> str:
    """What keeps runs from being batched, in one line."""
    text = str(error).strip().split("\n")[0]
    return text if isinstance(error, SteepestError) else f"{type(error).__name__}: {text}"
