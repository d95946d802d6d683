"""A pass in C++, ready to be called."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.kernels import compiler
from steepest.train.fused.lowering import Lowered

__all__ = ["Fused"]

# Products are multiplied and added in one rounding, as every matrix library does; the outcome
# still depends on nothing but the member's own numbers. Integers overflow as in torch.
_FLAGS = ("-ffp-contract=fast", "-fwrapv")


class Fused:
    """Forward and backward pass of a population: each member by one thread, all in its cache.

    Args:
        lowered: The pass of one member.
        members: How many there are.

    Raises:
        KernelUnavailable: If it cannot be compiled here.
    """

    def __init__(self, lowered: Lowered, members: int) -> None:
        library = compiler.load(lowered.source, flags=_FLAGS)
        self._run = library.steepest_pass
        self._run.restype = ctypes.c_int64
        self._run.argtypes = [ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 4]
        self.lowered, self.members = lowered, members
        self.results = [torch.zeros(members, *shape, dtype=t) for shape, t in lowered.results]
        self._losses, *self._grads = [
            None if number is None else self.results[number] for number in lowered.outputs
        ]
        constants = [tensor.data_ptr() for tensor in lowered.constants]
        self._given = (ctypes.c_void_p * (len(lowered.used) + len(constants)))(
            *[None] * len(lowered.used), *constants
        )
        self._into = (ctypes.c_void_p * len(self.results))(*(t.data_ptr() for t in self.results))
        self._scratch, self._threads = torch.empty(0, dtype=torch.uint8), 0

    def __call__(
        self, tensors: Sequence[Tensor], numbers: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor | None]] | None:
        """Losses ``[M]`` and gradients, which the next call overwrites.

        Args:
            tensors: What the recording takes; with ``numbers``, all data in place of the batch.
            numbers: Of the members' examples, ``[M * B]``.

        Returns:
            None if a batch has another shape than the one recorded, or if a number in it points
            outside of what it counts, such as a class that is not one.
        """
        threads = torch.get_num_threads()
        if threads != self._threads:
            self._scratch = torch.empty(threads * self.lowered.scratch, dtype=torch.uint8)
            self._threads = threads
        for place, (number, shape) in enumerate(self.lowered.used.items()):
            tensor = tensors[number]
            if numbers is None and number >= self.lowered.batch and tensor.shape[1:] != shape:
                return None
            self._given[place] = tensor.data_ptr()
        outside = self._run(
            self.members,
            threads,
            self._given,
            None if numbers is None else numbers.data_ptr(),
            self._into,
            self._scratch.data_ptr(),
        )
        assert self._losses is not None  # noqa: S101  every pass gives a loss
        return None if outside else (self._losses, self._grads)
