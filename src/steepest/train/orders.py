"""Which examples every member of a population is given, many steps ahead.

    S  distinct seeds      M  members      B  examples in a batch      W  steps

Members with equal seeds see equal batches. Their numbers are looked up for some steps at a time:
asking every member's stream in every step takes longer than a small member's step on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.train.data import OrderStream, Source

__all__ = ["Orders"]

_WINDOW = 64  # steps that are looked up at a time


class Orders:
    """The numbers of the examples of every step.

    Args:
        source: The examples.
        seeds: Of the members, in their places.
        batch_size: Examples of a member's step.
        device: Where the numbers are wanted.

    Attributes:
        steps_per_epoch: Batches in an epoch.
    """

    def __init__(
        self, source: Source, seeds: Sequence[int], batch_size: int, device: torch.device
    ) -> None:
        self.steps_per_epoch = source.examples // batch_size
        self._batch_size = batch_size
        self._device = device
        distinct = list(dict.fromkeys(seeds))
        self._streams = [OrderStream(source, seed=s, batch_size=batch_size) for s in distinct]
        self._rows = [distinct.index(seed) for seed in seeds]
        self._rows_M = torch.tensor(self._rows)
        self._first = self._handed = 0
        self._window_SWB = torch.empty(len(distinct), 0, batch_size, dtype=torch.int64)
        self._window_WMB = torch.empty(0, 0, dtype=torch.int64)

    def numbers(self, step: int) -> Tensor:
        """``[M * B]``, on the device."""
        at = step - self._first
        if not 0 <= at < len(self._window_WMB):
            self._look_up(step)
            at = 0
        return self._window_WMB[at]

    def _look_up(self, step: int) -> None:
        self._hand_out(self._first + len(self._window_WMB))
        W = min(_WINDOW, self.steps_per_epoch - step % self.steps_per_epoch)
        found = [stream.indices(step, W) for stream in self._streams]
        self._window_SWB = torch.stack(found).view(len(found), W, self._batch_size)
        flat = self._window_SWB[self._rows_M].transpose(0, 1).reshape(W, -1)
        self._first, self._handed = step, step
        self._window_WMB = flat.to(self._device)

    def _hand_out(self, steps: int) -> None:
        """Let the digests count the batches in up to this number."""
        lo, hi = self._handed - self._first, steps - self._first
        if hi > lo:
            for stream, rows in zip(self._streams, self._window_SWB, strict=True):
                stream.count_in(self._handed, rows[lo:hi])
            self._handed = steps

    def digest(self, place: int, steps: int) -> str:
        """A hash over what a member was given in its first steps, which go up to now."""
        self._hand_out(steps)
        return self._streams[self._rows[place]].digest.hex()

    def restore(self, place: int, steps: int, digest: str) -> None:
        """Go to where a member was given so many batches; `InputError` if they were others."""
        self._streams[self._rows[place]].restore(steps, bytes.fromhex(digest))
        self._window_WMB = self._window_WMB[:0]
        self._first = self._handed = steps
