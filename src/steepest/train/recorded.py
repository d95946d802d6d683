"""A population's forward and backward pass, recorded once and carried out as a flat list.

Mapping a model over members with `torch.func.vmap`, handing it stacked parameters and building
autograd's graph take about a millisecond of Python per step, whatever the members number. A step
of an MLP on MNIST takes a member 0.07 ms. So the tensor operations of one pass are recorded and
repeated: no map, no graph, no layer of the model's own code.

That is allowed only where it changes nothing. What is repeated has to give the bits of the pass as
it was written, losses, gradients and buffers alike: at the first steps of every population, and
again whenever something of it is looked at or kept. (On a GPU, where some sums come in any order
and a pass repeats itself only nearly, it has to do that.) A model or a loss that counts its calls,
or keeps something of them, is not recorded: its next pass may be another one.

On CUDA what was recorded is captured in a graph, too (`steepest.train.graphed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steepest.errors import UnsupportedError
from steepest.train.data import map_tensors, tensors_of
from steepest.train.graphed import Graphed
from steepest.train.keepsakes import changed, drawn, kept_things
from steepest.train.recording import Grads, Recording, record
from steepest.train.task import Task

__all__ = ["FIRST", "Passes"]

_PAYS = 300  # steps; recording takes as long as it saves in so many
_NEAR = 1e-2  # of a tensor's largest element, on a GPU
FIRST = 2  # so many first steps are compared with the pass as it was written

Losses = Callable[[dict[str, Tensor], dict[str, Tensor], Any, Any], Tensor]
"""Of all members ``[M]``, from their parameters, buffers and batches."""

_RECORDED: WeakKeyDictionary[Task, dict[Any, Recording | str]] = WeakKeyDictionary()
"""By task and what else decides: a recording, or why there is none."""


class Passes:
    """Forward and backward passes of one population.

    Args:
        task: What is trained.
        losses: The forward pass as it was written.
        model: Whose code it runs.
        params: Stacked, by name.
        buffers: The same.
        trained: Names of the parameters whose gradients are wanted.
        key: What else decides which operations these are.
        steps: How many passes there will be; None: never record.

    Attributes:
        reason: Why nothing is recorded; empty where it is.
        no_graph: Why what is recorded could not be captured in a CUDA graph.
    """

    def __init__(
        self,
        task: Task,
        losses: Losses,
        *,
        model: nn.Module,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        trained: Sequence[str],
        key: Any,
        steps: int | None,
    ) -> None:
        self.reason = "" if steps is not None else "recording was not asked for"
        self.no_graph = ""
        self._task, self._losses, self._model = task, losses, model
        self._params, self._buffers, self._trained = params, buffers, list(trained)
        self._key, self._steps = key, steps
        self._recording: Recording | Graphed | None = None
        self._places: list[Tensor] = []
        self._done = 0
        self._trusted = 0  # passes up to the last comparison

    def __call__(self, x: Any, y: Any) -> tuple[Tensor, Grads]:
        """Losses ``[M]`` and the gradients of the trained parameters, in their order.

        Args:
            x: The members' inputs.
            y: Their targets.

        Raises:
            UnsupportedError: If the second pass is another one than the first.
        """
        if self._recording is None and not self.reason:
            self._find(x, y)
        if self._recording is None:
            return self._as_written(self._buffers, x, y)
        self._done += 1
        if self._done <= FIRST:
            return self._compare(self._recording, x, y)
        return self._recording(self._tensors(self._buffers, x, y), self._places)

    @property
    def in_doubt(self) -> bool:
        """Whether passes were repeated since the last comparison."""
        return self._recording is not None and self._trusted < self._done

    def check(self, x: Any, y: Any) -> None:
        """Compare once more, without leaving a trace in the buffers.

        Raises:
            UnsupportedError: If the model does something else by now than what was recorded.
        """
        if self._recording is None:
            return
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._compare(self._recording, x, y)
        for name, buffer in before.items():
            self._buffers[name].copy_(buffer)

    def _as_written(self, buffers: dict[str, Tensor], x: Any, y: Any) -> tuple[Tensor, Grads]:
        return self._pass(self._params, buffers, x, y)

    def _pass(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Any, y: Any
    ) -> tuple[Tensor, Grads]:
        losses = self._losses(params, buffers, x, y)
        wanted = [params[name] for name in self._trained]
        grads = torch.autograd.grad(losses, wanted, torch.ones_like(losses), allow_unused=True)
        return losses.detach(), list(grads)

    def _tensors(self, buffers: dict[str, Tensor], x: Any, y: Any) -> list[Tensor]:
        return [*self._params.values(), *buffers.values(), *tensors_of(x), *tensors_of(y)]

    def _find(self, x: Any, y: Any) -> None:
        """Record this pass, unless it was recorded before, is not worth it, or cannot be."""
        tensors = self._tensors(self._buffers, x, y)
        key = (self._key, tuple(self._trained), *map(_layout, tensors))
        known = _RECORDED.setdefault(self._task, {})
        if key not in known:
            if self._steps is None or self._steps < _PAYS:
                self.reason = f"recording a pass pays from {_PAYS} steps on"
                return
            known[key] = self._record(tensors, x, y)
        found = known[key]
        if isinstance(found, str):
            self.reason = found
            return
        self._recording = found
        self._places = found.places(tensors[0].device)
        if can_capture(tensors[0].device):
            batch = len(tensors) - len(self._params) - len(self._buffers)
            try:
                self._recording = Graphed(found, tensors, self._places, batch=batch)
            except RuntimeError as error:  # an operation that no graph can hold
                self.no_graph = str(error).strip().split("\n")[0]

    def _record(self, tensors: Sequence[Tensor], x: Any, y: Any) -> Recording | str:
        n, m = len(self._params), len(self._buffers)

        def run(*given: Tensor) -> list[Tensor | None]:
            params = dict(zip(self._params, given[:n], strict=True))
            buffers = dict(zip(self._buffers, given[n : n + m], strict=True))
            rest = iter(given[n + m :])
            batch = [map_tensors(lambda _: next(rest), part) for part in (x, y)]
            losses, grads = self._pass(params, buffers, *batch)
            return [losses, *grads]

        copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        written = [type(m).forward for m in self._model.modules() if not _is_of_torch(m)]
        before = kept_things([*self._model.modules(), *written, self._task.loss])
        chance = drawn()
        try:
            found = record(run, copies)
        except Exception as error:  # noqa: BLE001  a stranger's model; as written it works
            text = str(error).strip().split("\n")[0]
            return f"its pass cannot be recorded ({type(error).__name__}: {text})"
        if drawn() != chance:
            return "it draws random numbers, and the next pass draws others"
        other = changed(before)
        if other:
            return f"{other} changes with every pass, so the next one may be another"
        return found

    def _compare(self, recording: Recording | Graphed, x: Any, y: Any) -> tuple[Tensor, Grads]:
        """Both ways, from the same state; what was recorded holds if they agree to the bit."""
        mine = {name: buffer.clone() for name, buffer in self._buffers.items()}
        losses, grads = self._as_written(mine, x, y)
        again, others = recording(self._tensors(self._buffers, x, y), self._places)
        pairs = [(losses, again), *zip(grads, others, strict=True)]
        pairs += [(mine[name], self._buffers[name]) for name in mine]
        self._trusted = self._done
        if all(_same(a, b) for a, b in pairs):
            return again, others
        if self._done > 1:
            raise UnsupportedError(
                f"the model of task '{self._task.name}' or its loss computes something else by now "
                "than when its operations were recorded; what it does must follow from its inputs, "
                "parameters and buffers alone"
            )
        self.reason = "what was recorded does not give the same bits"
        self._recording, self._places = None, []
        for name, buffer in mine.items():
            self._buffers[name].copy_(buffer)
        return losses, grads


def can_capture(device: torch.device) -> bool:
    """Whether passes can be captured in graphs there."""
    return device.type == "cuda"


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """To the bit, or both not numbers; on a GPU, where sums come in any order, nearly so."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or torch.equal(a, b):
        return a.shape == b.shape
    if not a.is_floating_point():
        return False
    if a.device.type == "cpu":
        return bool(torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))
    largest = float(a.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return bool(torch.allclose(a, b, rtol=_NEAR, atol=_NEAR * largest, equal_nan=True))


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")
