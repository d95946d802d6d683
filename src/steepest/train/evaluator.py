"""What the members of a population score, and the weights that scored best.

M      members
B      examples in a batch

Nothing here trains: parameters and buffers of the stacks are read, and are afterwards as before.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from steepest.train.data import eval_batches, map_tensors, tensors_of
from steepest.train.mapped import Mapped
from steepest.train.randomness import isolated
from steepest.train.solo import concatenate
from steepest.train.stacks import Stacks
from steepest.train.steppers import Steppers

__all__ = ["Evaluator"]

_AT_A_TIME = 8  # members whose outputs over a whole split are held, at most
_EXAMPLES = 2000  # that are in memory at once, all members' together


class Evaluator:
    """Looks at the weights that the members' optimizers want to be looked at.

    Args:
        mapped: The model.
        stacks: The members' weights.
        steppers: Their optimizers.

    Attributes:
        best: By place, the parameters and buffers that `keep_best` kept.
    """

    def __init__(self, mapped: Mapped, stacks: Stacks, steppers: Steppers) -> None:
        self._mapped = mapped
        self._stacks = stacks
        self._steppers = steppers
        self._seen: dict[int, dict[str, Tensor]] = {}
        self.best: dict[int, dict[str, Tensor]] = {}
        self._settled: dict[int, dict[str, Tensor]] = {}

    def evaluate(
        self, split: str, places: Sequence[int], *, remember: bool
    ) -> dict[int, dict[str, float]]:
        """``{"loss": …, metric: …}`` of the members in these places; some are asked at a time.

        Args:
            split: ``train``, ``val`` or ``test``.
            places: The places.
            remember: So that `keep_best` can keep what was looked at.
        """
        found: dict[int, dict[str, float]] = {}
        with self._looking():
            for some in self._parts():
                if set(places).isdisjoint(some):
                    continue
                measured = self._measure(*self._stacks.part(some), len(some), split)
                found |= dict(zip(some, measured, strict=True))
            if remember:
                self._seen = {
                    i: {name: t.clone() for name, t in self._stacks.of(i).items()} for i in places
                }
        return {i: found[i] for i in places}

    def ask(self, x: Any, y: Any) -> None:
        """Ask all members about a batch, as an evaluation would."""
        with self._looking():
            for some in self._parts():
                self._mapped.answers(*self._stacks.part(some), x, y)

    def keep_best(self, places: Sequence[int]) -> None:
        """Keep members' parameters and buffers as the last evaluation saw and remembered them."""
        self.best |= {place: self._seen[place] for place in places}
        self._seen = {}

    def settle(self, place: int) -> None:
        """From now on a member's weights are what `keep_best` kept."""
        self._settled[place] = self.best.pop(place)

    def evaluate_settled(self, place: int, split: str) -> dict[str, float]:
        """What `evaluate` would say of these weights."""
        best = self._settled[place]
        params, buffers = self._stacks.part(range(place, place + 1))
        params = {name: best[name][None] for name in params}
        buffers = {n: best[n][None] if n in best else b for n, b in buffers.items()}
        with isolated(self._mapped.device), self._mapped.evaluating():
            (numbers,) = self._measure(params, buffers, 1, split)
        return numbers

    def weights(self, place: int) -> dict[str, Tensor]:
        """Copies of a member's named parameters, on the CPU."""
        if (settled := self._settled.get(place)) is not None:
            return {name: settled[name].to("cpu", copy=True) for name in self._stacks.params}
        with self._steppers.showing_answers():
            return {
                name: stack[place].detach().to("cpu", copy=True)
                for name, stack in self._stacks.params.items()
            }

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """The stacks are the optimizers' answers meanwhile, and the model is in eval mode."""
        with (
            isolated(self._mapped.device),
            self._steppers.showing_answers(),
            self._mapped.evaluating(),
        ):
            yield

    def _parts(self) -> list[range]:
        """All places, some at a time."""
        count = len(self._stacks)
        some = max(1, min(_AT_A_TIME, _EXAMPLES // self._mapped.task.eval_batch_size))
        return [range(first, min(first + some, count)) for first in range(0, count, some)]

    def _measure(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], count: int, split: str
    ) -> list[dict[str, float]]:
        """Of each of ``count`` members, from parameters and buffers ``[M, ...]``."""
        task = self._mapped.task
        total = np.zeros(count)
        examples = 0
        outputs: list[Any] = []
        targets: list[Any] = []
        for x, y in eval_batches(
            task.split(split),
            batch_size=task.eval_batch_size,
            device=self._mapped.device,
            where=f"task '{task.name}': {split}",
        ):
            loss_M, out = self._mapped.answers(params, buffers, x, y)
            n = len(next(iter(tensors_of(y) or tensors_of(x))))
            total, examples = total + loss_M.double().cpu().numpy() * n, examples + n
            if task.metrics:
                outputs.append(out)
                targets.append(y)
        results = [{"loss": float(loss) / examples} for loss in total]
        if task.metrics:
            joined, wanted = concatenate(outputs, dim=1), concatenate(targets)
            for i, numbers in enumerate(results):
                own = map_tensors(operator.itemgetter(i), joined)
                numbers.update(task.measure(own, wanted))
        return results
