"""Runs of one task that keep step: as one population where they can, else in turns.

A race carries its runs out one after the other, or in populations, and looks at them only at
evaluations. Averages of weights and snapshots look at every run after every step, or after the
same step, so here all runs of a group are always equally far.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.train.agreement import why_not_together
from steepest.train.checkpoint import RunState
from steepest.train.memory import fitting, member_bytes
from steepest.train.population import WARM_UP, Member, Population
from steepest.train.precision import FLOAT32
from steepest.train.solo import SoloRun, model_state
from steepest.train.task import Task, build_model

__all__ = ["Group", "how_to_train"]


class Group:
    """Runs of equal length that are always equally far.

    Args:
        task: What is trained.
        members: The runs.
        steps: How long each of them is.
        batch_size: Default: the task's.
        device: ``cpu`` or ``cuda``.
        together: As one population; else one run after the other, a step of each.
        precision: ``float32``, ``tf32`` or ``bf16``.

    >>> task = Task(name="tiny", model=lambda: nn.Linear(8, 1), loss=nn.functional.mse_loss,
    ...             train=(torch.ones(64, 8), torch.ones(64, 1)))
    >>> members = [Member(lambda p: torch.optim.SGD(p, lr=0.01), None, seed) for seed in range(3)]
    >>> group = Group(task, members, steps=20)
    >>> group.advance(5)
    >>> group.position, [round(loss, 2) > 0 for loss in group.losses]
    (5, [True, True, True])
    """

    def __init__(
        self,
        task: Task,
        members: Sequence[Member],
        *,
        steps: int,
        batch_size: int | None = None,
        device: str = "cpu",
        together: bool = True,
        precision: str = FLOAT32,
    ) -> None:
        self.task = task
        self.members = tuple(members)
        self.steps = steps
        self.losses = [float("nan")] * len(members)
        self._population: Population | None = None
        self._solos: list[SoloRun] = []
        if together:
            self._population = Population(
                task,
                members,
                steps=steps,
                batch_size=batch_size,
                device=device,
                precision=precision,
            )
        else:
            self._solos = [
                SoloRun(
                    task,
                    optimizer=member.optimizer,
                    schedule=member.schedule,
                    seed=member.seed,
                    steps=steps,
                    batch_size=batch_size,
                    device=device,
                    precision=precision,
                )
                for member in members
            ]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def diverged_at(self) -> list[int | None]:
        """Of each run the step whose loss was not finite, or None; such a run stays as it is."""
        if self._population is not None:
            return list(self._population.diverged_at)
        return [run.diverged_at for run in self._solos]

    @property
    def alive(self) -> list[int]:
        """The places of the runs that have not diverged."""
        return [place for place, step in enumerate(self.diverged_at) if step is None]

    @property
    def position(self) -> int:
        """Steps that the runs still alive have done."""
        if self._population is not None:
            return self._population.position
        return max((run.position for run in self._solos), default=0)

    def advance(self, n: int) -> None:
        """Train ``n`` steps, or to the end."""
        if self._population is not None:
            chunks = self._population.advance(n)
        else:
            chunks = [run.advance(n) for run in self._solos]
        for place, chunk in enumerate(chunks):
            if len(chunk.loss):
                self.losses[place] = float(chunk.loss[-1])

    def live(self) -> dict[str, Tensor]:
        """The weights themselves, under names of the group's own; see `of`."""
        if self._population is not None:
            return {name: p.detach() for name, p in self._population.stacks.params.items()}
        return {
            f"{place}/{name}": p.detach()
            for place, run in enumerate(self._solos)
            for name, p in run.model.named_parameters()
        }

    def of(self, place: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One run's part of what `live` named, by the names of the model."""
        if self._population is not None:
            return {name: stack[place] for name, stack in tensors.items()}
        mine = f"{place}/"
        return {n.removeprefix(mine): t for n, t in tensors.items() if n.startswith(mine)}

    def model(self, place: int) -> nn.Module:
        """A copy of a run's model as it is now, in eval mode, on the group's device."""
        if self._population is None:
            model = copy.deepcopy(self._solos[place].model)
            shown = self._solos[place].weights()  # of schedule-free optimizers, their average
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(shown[name])
            return model.eval()
        population = self._population
        model = build_model(self.task, self.members[place].seed).to(population.device)
        with population.steppers.showing_answers(), torch.no_grad():
            saved = population.stacks.of(place)
            for name, tensor in model_state(model):
                tensor.copy_(saved[name])
        return model.eval()

    def state(self) -> RunState:
        """Everything that `restore` needs."""
        tensors: dict[str, Tensor] = {}
        metas = []
        for place in range(len(self)):
            if self._population is not None:
                state = self._population.state(place)
            else:
                state = self._solos[place].state()
            metas.append(state.meta)
            tensors |= {f"{place}/{name}": tensor for name, tensor in state.tensors.items()}
        return RunState(tensors=tensors, meta={"runs": metas})

    def restore(self, state: RunState) -> None:
        """Go to where a state was taken, in a group of the same runs.

        Raises:
            InputError: If it belongs to other runs.
        """
        metas = state.meta["runs"]
        if len(metas) != len(self):
            raise InputError(f"this checkpoint has {len(metas)} runs, the group {len(self)}")
        states = []
        for place, meta in enumerate(metas):
            mine = f"{place}/"
            tensors = {
                n.removeprefix(mine): t for n, t in state.tensors.items() if n.startswith(mine)
            }
            states.append(RunState(tensors=tensors, meta=meta))
        if self._population is not None:
            self._population.restore(states)
        else:
            for run, own in zip(self._solos, states, strict=True):
                run.restore(own)


def how_to_train(
    task: Task,
    members: Sequence[Member],
    *,
    steps: int,
    batch_size: int,
    device: str,
    precision: str = FLOAT32,
) -> tuple[int, bool, str]:
    """How many runs to train at a time, whether as populations, and why.

    They are tried for a few steps both ways: a population that does not come out as its runs do
    alone, or that is slower on this machine, is not used.
    """
    if len(members) < 2:
        return 1, False, "one run trains by itself"
    settings: dict[str, Any] = {
        "batch_size": batch_size, "device": device, "precision": precision
    }  # fmt: skip
    reason = why_not_together(task, members, steps=steps, **settings)
    if reason is not None:
        return 1, False, f"one by one, since they cannot be batched: {reason}"
    each = member_bytes(task, members[0], **settings)
    size = min(len(members), fitting(each, torch.device(device)) or len(members))
    few = list(members)[: min(size, 8)]
    alone = _seconds(Group(task, few[:1], steps=steps, together=False, **settings))
    batched = _seconds(Group(task, few, steps=steps, **settings)) / len(few)
    times = f"{1e3 * batched:.3g} ms per step of a run there, {1e3 * alone:.3g} ms alone"
    if batched > alone:
        return 1, False, f"one by one: {len(few)} at a time would be slower ({times})"
    return size, True, f"populations of {size}: {times}"


def _seconds(group: Group) -> float:
    """Per step of the whole group, after warming up; the best of three short times."""
    group.advance(WARM_UP)
    best = float("inf")
    for _ in range(3):
        before = group.position
        begin = time.perf_counter()
        group.advance(5)
        if group.position > before:
            best = min(best, (time.perf_counter() - begin) / (group.position - before))
    return best
