"""Layers whose chance is a function of (seed, step, element), not of a generator.

    k    key of the step            int32 [2], one buffer shared by all such layers of a model
    i    number of the decision     int32, counted through all layers of one forward pass

A global generator hands out numbers in the order in which it is asked, so what one run draws
depends on who drew before it. Here the key is a buffer of the model: an engine writes the key of
(seed, step) into it before the step, and a population stacks one key per member and maps over it.
Counting goes by shapes only, and inside `vmap` shapes are those of one member: member and solo run
count alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steepest.errors import TaskError
from steepest.train.randomness import mix

__all__ = ["KEY", "Counter", "Keyed", "step_words"]

KEY = "steepest_key"
"""The buffer's name: not in any ``state_dict``, and left out of hashes and checkpoints."""

_LAP = 2**32 - 1


def step_words(key: Sequence[int] | Tensor, step: int) -> Tensor:
    """The key of one step, from the run's key (see `steepest.train.randomness.run_key`).

    Args:
        key: Two integers, or an int32 tensor ``[M, 2]`` with one key per member.
        step: Number of the step, from 0.

    Returns:
        An int32 tensor ``[2]`` or ``[M, 2]``.
    """
    first, second = mix(step & 0x7FFFFFFF), mix(~(step & 0x7FFFFFFF))
    if isinstance(key, Tensor):
        return torch.stack((mix(key[..., 0] ^ first), mix(key[..., 1] ^ second)), dim=-1)
    return torch.tensor((mix(key[0] ^ first), mix(key[1] ^ second)), dtype=torch.int32)


class Counter:
    """How many decisions the layers of one model took in this forward pass.

    A pass starts at 0 again, so that a closure that runs the model twice in one step meets the
    same masks twice.
    """

    def __init__(self) -> None:
        self.taken = 0

    def take(self, n: int) -> int:
        """The number of the first of ``n`` fresh decisions, all in one lap of 2**32."""
        if (self.taken & _LAP) + n > _LAP:
            self.taken = (self.taken | _LAP) + 1
        start = self.taken
        self.taken += n
        return start


class Keyed(nn.Module):
    """A layer whose chance is a function of (seed, step, element): base of dropout, augmentation.

    Attributes:
        starts: Where in the count its calls of this forward pass began.
    """

    steepest_key: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """What it is made of, for a module that becomes such a layer later, too."""
        self.counter = Counter()
        self.starts: list[int] = []
        self.register_buffer(KEY, torch.zeros(2, dtype=torch.int32), persistent=False)

    def share(self, key: Tensor, counter: Counter) -> None:
        """Draw by the key and in the count of a whole model."""
        self.counter = counter
        self.steepest_key = key

    def draw(self, n: int, device: torch.device) -> Tensor:
        """So many fresh int32 numbers, uniform in their high bits."""
        if n >= 2**31:
            raise TaskError(f"{n} random numbers at once; steepest counts up to 2**31 - 1")
        start = self._start(n)
        lap, start = start >> 32, (start & _LAP) - 2**31
        first, second = self.steepest_key.unbind(0)
        # Three multiplications with the second key word in between; who compares reads the
        # high bits, so the last xor-shift of `mix` is not needed. In place once the key is in,
        # because every pass over the elements costs a read and a write.
        x = torch.arange(start, start + n, dtype=torch.int32, device=device) ^ first
        x.mul_(0x2C1B3C6D)
        x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).add_(second, alpha=2 * lap + 1)
        x.mul_(0x297A2D39)
        return x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0x21F0AAAD)

    def keep(self, p: float, shape: Sequence[int], device: torch.device) -> Tensor:
        """True with probability ``1 - p``, for every element by itself; nothing is drawn at 1."""
        if p == 1.0:
            return torch.zeros(shape, dtype=torch.bool, device=device)
        threshold = min(round(p * 2**32), 2**32 - 1) - 2**31
        return (self.draw(math.prod(shape), device) >= threshold).view(shape)

    def _start(self, n: int) -> int:
        """Where this call's decisions begin; a recomputation in the backward pass repeats them."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            if len(self.starts) != 1:
                raise TaskError(
                    f"a layer that draws ({self}) runs {len(self.starts)} times per forward pass "
                    "under activation checkpointing, so what to recompute is ambiguous; use one "
                    "module per call"
                )
            return self.starts[0]
        self.starts.append(self.counter.take(n))
        return self.starts[-1]
