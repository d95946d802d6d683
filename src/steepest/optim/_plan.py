"""What an optimizer remembers of a parameter group, so that a step need not look it up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor

from steepest.kernels import Block
from steepest.optim._names import Face

__all__ = ["Plan", "active_slots"]


@dataclass
class Plan:
    """A parameter group split into blocks.

    Attributes:
        face: How the rule's values stand in the group.
        group: The parameter group.
        entries: The group's values when they were looked at last.
        active: The slots in use, of vectors and of matrices.
        params: The group's parameters, with a gradient or without.
        grads: Their gradients.
        blocks: Those that have one or have had one, put together.
        members: Which parameters each block has.
        lasting: Whether the blocks hold for the next step as well.
    """

    face: Face
    group: dict[str, Any]
    entries: tuple[Any, ...]
    active: tuple[tuple[str, ...], ...]
    params: list[Tensor]
    grads: list[Tensor | None]
    blocks: list[Block]
    members: list[list[int]]
    lasting: bool

    def describes(self, group: dict[str, Any], grads: list[Tensor | None]) -> bool:
        """Whether it is still this group, with gradients for the same parameters."""
        params = group["params"]
        return (
            self.lasting
            and self.group is group
            and len(params) == len(self.params)
            and all(map(is_, params, self.params))
            and _same_missing(grads, self.grads)
        )

    def has_entries_of(self, group: dict[str, Any]) -> bool:
        """Whether the group holds the values that it held."""
        return len(group) == len(self.entries) and all(map(_same, group.values(), self.entries))

    def renew(self, group: dict[str, Any], values: Mapping[str, Any]) -> bool:
        """Take over changed values; False if they change what the blocks are."""
        before = self.blocks[0] if self.blocks else None
        if before is None or self.active != active_slots(self.face, values):
            return False
        flags = tuple(
            group.get(flag, False) for flag in ("maximize", "capturable", "differentiable")
        )
        if flags != (before.maximize, before.capturable, before.differentiable):
            return False
        self.entries = tuple(group.values())
        for block in self.blocks:
            block.values = self.face.for_type(values, group, block.params[0].dtype)
        return True

    def take(self, grads: list[Tensor | None]) -> None:
        """Take over other gradients for the same parameters."""
        self.grads = grads
        for block, members in zip(self.blocks, self.members, strict=True):
            block.grads = [grads[i] for i in members]

    def release(self) -> None:
        """Let go of the gradients; the blocks are then only good for an engine's `Prepared`."""
        self.grads = []
        for block in self.blocks:
            block.grads = []


def active_slots(face: Face, values: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The slots in use, of vectors and of matrices."""
    return tuple(face.rule.active_slots(values, ndim=ndim) for ndim in (1, 2))


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is float and type(b) is float and a == b)


def _same_missing(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    # comparing types costs 10 ns per gradient, comparing with None one by one 25 ns
    if type(None) not in set(map(type, a)):
        return type(None) not in set(map(type, b))
    return [x is None for x in a] == [x is None for x in b]
