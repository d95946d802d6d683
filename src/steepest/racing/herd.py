"""A population that trains in another process.

Two processes with one thread each get more out of two cores than one process with two threads,
since nothing waits for the other thread after every operation; and other programs on the machine
slow down one of them, not both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from steepest.racing.apart import Worker, sent
from steepest.racing.arm import Arm
from steepest.racing.parcels import pack_state, unpack_state, unpack_weights
from steepest.racing.spec import Conditions, Plan, RunPlan
from steepest.train.checkpoint import RunState
from steepest.train.solo import Chunk

__all__ = ["RemotePopulation", "gather_there"]

Split = Literal["train", "val", "test"]


class RemotePopulation:
    """A `Population` in a worker; see there for what its parts mean.

    Args:
        worker: Which one.
        members: The arm, with a setting, and the seed of each.
        under: The conditions, equal for all.
    """

    position: int
    diverged_at: list[int | None]
    alive: list[int]
    how: str

    def __init__(
        self, worker: Worker, members: Sequence[tuple[Arm, int]], *, under: Conditions
    ) -> None:
        self._worker = worker
        self._size = len(members)
        told = [(sent(arm), seed) for arm, seed in members]
        self.start_hashes: list[str] = self._keep(worker.ask("gather", told, under))

    def __len__(self) -> int:
        return self._size

    def _keep(self, answer: tuple[Any, tuple[Any, ...]]) -> Any:
        """Every answer says where the members are, too."""
        found, where = answer
        self.position, self.diverged_at, self.alive, self._left, self.how = where
        return found

    def _ask(self, name: str, *arguments: Any) -> Any:
        return self._keep(self._worker.ask("together", name, *arguments))

    def advance(self, n: int) -> list[Chunk]:
        """Train some steps."""
        return self._ask("advance", n)  # type: ignore[no-any-return]

    def evaluate(self, split: Split, *, remember: bool = False) -> list[dict[str, float] | None]:
        """Measure on a split."""
        return self._ask("evaluate", split, remember)  # type: ignore[no-any-return]

    def stop(self, place: int) -> None:
        """Leave a member as it is now."""
        self._ask("stop", place)

    def keep_best(self, places: Sequence[int]) -> None:
        """Keep the weights that the last evaluation remembered."""
        self._ask("keep_best", list(places))

    def end_with_best(self, places: Sequence[int], split: Split | None) -> list[dict[str, float]]:
        """End members here, with those weights."""
        return self._ask("end_with_best", list(places), split)  # type: ignore[no-any-return]

    def freeze(self, place: int, step: int) -> None:
        """Leave a member as it is: it is known to end with this step."""
        self._ask("freeze", place, step)

    def left(self) -> list[int]:
        """The places of members that had come to their ends by now."""
        return list(self._left)

    def order_hash(self, place: int) -> str:
        """Over the batches that a member was given."""
        return self._ask("order_hash", place)  # type: ignore[no-any-return]

    def weights(self, place: int) -> dict[str, Tensor]:
        """A member's parameters."""
        return unpack_weights(self._ask("weights", place))

    def state(self, place: int) -> RunState:
        """What `restore` needs of a member."""
        return unpack_state(self._ask("state", place))

    def restore(
        self, states: Sequence[RunState | None], *, frozen: Mapping[int, int] | None = None
    ) -> None:
        """Go to where the members' states were taken."""
        packed = [None if state is None else pack_state(state) for state in states]
        self._ask("restore", packed, dict(frozen or {}))

    def compacted(self) -> tuple[RemotePopulation, list[int]]:
        """Itself without the members that have left, and its members' places."""
        places: list[int] = self._ask("compacted")
        self._size = len(places)
        self.start_hashes = [self.start_hashes[i] for i in places]
        return self, places


def gather_there(worker: Worker, plan: Plan, planned: Sequence[RunPlan]) -> RemotePopulation:
    """Planned runs, at their start, as a population in a worker."""
    members = [(run.arm, run.seed) for run in planned]
    return RemotePopulation(worker, members, under=plan.spec.conditions(planned[0].steps))
