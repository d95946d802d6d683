"""A recorded pass as one CUDA graph: the host says once per step what the device is to do.

A pass of a small model is some tens of kernels of a few microseconds each, and the host needs as
long to start each of them. Captured in a graph they are started together. A graph reads and writes
fixed addresses, so batches are copied to where the capture found them; parameters and buffers lie
still in a population's stacks, and so do the gradients that come out, which the optimizers' launch
reads (one per rule, outside the graph: learning rates are the host's).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steepest.train.recording import Grads, Recording

__all__ = ["Graphed", "capture"]

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is to be done, and returns what does it again with the same memory."""

_WARM_UP = 3  # passes before a capture: libraries choose their algorithms and take their memory


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """Capture CUDA work as a graph."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Graphed:
    """A recording for one population, captured.

    Args:
        recording: What to capture.
        tensors: What the pass is called with: first what lies still, then the batch.
        places: Where gradients go that the recording writes to a place.
        batch: How many of the tensors are the batch's.
        capture: What captures; for tests without a GPU.
    """

    def __init__(
        self,
        recording: Recording,
        tensors: Sequence[Tensor],
        places: Sequence[Tensor],
        *,
        batch: int,
        capture: Capture = capture,
    ) -> None:
        first = len(tensors) - batch
        self._still = list(tensors[:first])
        self._batch = [t.clone() for t in tensors[first:]]
        buffers = [t for t in self._still if not t.requires_grad]
        before = [t.clone() for t in buffers]

        def work() -> None:
            self._found = recording([*self._still, *self._batch], places)

        self._replay = capture(work)
        with torch.no_grad():  # warming up ran the pass, which may write to buffers
            for tensor, value in zip(buffers, before, strict=True):
                tensor.copy_(value)

    def __call__(self, tensors: Sequence[Tensor], places: Sequence[Tensor]) -> tuple[Tensor, Grads]:
        """As a `Recording`; what comes out is overwritten by the next call."""
        first = len(tensors) - len(self._batch)
        if any(a is not b for a, b in zip(self._still, tensors[:first], strict=True)):
            raise RuntimeError("a captured pass was called with other parameters or buffers")
        for mine, given in zip(self._batch, tensors[first:], strict=True):
            mine.copy_(given)
        self._replay()
        return self._found
