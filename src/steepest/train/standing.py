"""Where a run stands: what both engines write into its state, so that it can go on in either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steepest.errors import InputError
from steepest.train.checkpoint import RunState, pack, unpack

__all__ = ["Standing"]

_FACTS = ("seed", "steps", "position", "diverged_at", "order_hash", "start_hash", "base_lr")
_PARTS = ("model", "extra", "optimizer", "guard", "best")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A run between two steps.

    Attributes:
        seed: Its seed.
        steps: How long it is.
        position: Number of updates done.
        diverged_at: The step at which it ended, or None.
        order_hash: Over the numbers of the examples that it was given.
        start_hash: Of its initial parameters and buffers.
        base_lr: Learning rates before the schedule, by group.
        model: Its parameters and buffers.
        extra: What its modules keep beside them.
        optimizer: The state_dict of its optimizer.
        guard: The state of its guard; None without one.
        best: The weights of its best evaluation; None if none were kept.
    """

    seed: int
    steps: int
    position: int
    diverged_at: int | None
    order_hash: str
    start_hash: str
    base_lr: Sequence[float]
    model: Mapping[str, Tensor]
    extra: Mapping[str, Any]
    optimizer: dict[str, Any]
    guard: Mapping[str, Any] | None
    best: dict[str, Tensor] | None

    def pack(self) -> RunState:
        """As a checkpoint holds it, copied."""
        tensors: dict[str, Tensor] = {}
        meta = {name: getattr(self, name) for name in _FACTS}
        for name in _PARTS:
            if (part := getattr(self, name)) is not None:
                meta[name] = pack(part, name, tensors)
        return RunState(tensors=tensors, meta=meta)

    @classmethod
    def unpack(cls, state: RunState) -> Standing:
        """The inverse of `pack`."""
        facts = {name: state.meta[name] for name in _FACTS}
        parts = {name: unpack(state.meta.get(name), state.tensors) for name in _PARTS}
        return cls(**facts, **parts)

    def check_own(self, *, seed: int, steps: int, start_hash: str) -> None:
        """`InputError` unless it is of the run with this seed, length and start."""
        for name, value in (("seed", seed), ("steps", steps), ("start_hash", start_hash)):
            if getattr(self, name) != value:
                raise InputError(
                    f"this checkpoint belongs to another run: its {name} is "
                    f"{getattr(self, name)}, this run's is {value}"
                )
