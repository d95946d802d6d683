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

On CUDA what was recorded is captured in a graph, too (`steepest.train.graphed`). On the CPU it
becomes one C++ function per member where all of its operations are known (`steepest.train.fused`).
That one adds in another order than torch does, so from its first step on a population is either
fused or it is not: a property of the model, the length of the runs and the machine, not of when
somebody looks. What it computes is compared with the recording before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from steepest.errors import UnsupportedError
from steepest.kernels.unavailable import KernelUnavailable
from steepest.train.data import map_tensors, tensors_of
from steepest.train.fused import Fused
from steepest.train.graphed import Graphed
from steepest.train.keepsakes import changed, drawn, kept_things
from steepest.train.recording import Grads, Recording, record
from steepest.train.task import Task

__all__ = ["FIRST", "Passes"]

_PAYS = 300  # steps; recording takes as long as it saves in so many
_NEAR = 1e-2  # of a tensor's largest element, on a GPU
_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-10}  # of a tensor's norm
_TRIALS = 8  # passes of members that are compared before one is fused
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
        batch: Looks up a batch ``[M, B, ...]`` by the numbers of its examples.
        data: What it takes the examples from, if it does nothing else; else None.
        model: Whose code it runs.
        params: Stacked, by name.
        buffers: The same.
        trained: Names of the parameters whose gradients are wanted.
        key: What else decides which operations these are.
        steps: How many passes there will be; None: never record.
        fused: Let one C++ function carry out what was recorded, where that can be.

    Attributes:
        reason: Why nothing is recorded; empty where it is.
        not_fused: Why what is recorded is carried out by torch; empty where it is not.
        no_graph: Why what is recorded could not be captured in a CUDA graph.
    """

    def __init__(
        self,
        task: Task,
        losses: Losses,
        *,
        batch: Callable[[Tensor], tuple[Any, Any]],
        data: Sequence[Tensor] | None,
        model: nn.Module,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        trained: Sequence[str],
        key: Any,
        steps: int | None,
        fused: bool = True,
    ) -> None:
        self.reason = "" if steps is not None else "recording was not asked for"
        self.not_fused = "" if fused else "it was not asked for"
        self.no_graph = ""
        self._task, self._losses, self._model = task, losses, model
        self._batch = batch
        self._data = data
        if data is not None and not all(t.is_contiguous() for t in data):
            self._data = None
        self._params, self._buffers, self._trained = params, buffers, list(trained)
        self._key, self._steps = key, steps
        self._recording: Recording | Graphed | None = None
        self._fused: Fused | None = None
        self._places: list[Tensor] = []
        self._done = 0
        self._trusted = 0  # passes up to the last comparison

    def __call__(self, numbers: Tensor) -> tuple[Tensor, Grads]:
        """Losses ``[M]`` and the gradients of the trained parameters, in their order.

        Args:
            numbers: Of the members' examples, ``[M * B]``.

        Raises:
            UnsupportedError: If the second pass is another one than the first.
        """
        if self._fused is not None and self._done >= FIRST and self._data is not None:
            given = [*self._params.values(), *self._buffers.values(), *self._data]
            by_rows = self._fused(given, numbers)
            if by_rows is not None:
                self._done += 1
                return by_rows
        x, y = self._batch(numbers)
        if self._recording is None and not self.reason:
            self._find(x, y)
        if self._recording is None:
            return self._as_written(self._buffers, x, y)
        self._done += 1
        if self._done <= FIRST:
            before = {name: buffer.clone() for name, buffer in self._buffers.items()}
            outcome = self._compare(self._recording, x, y)
            if not self.is_fused:
                return outcome
            self._put_back(before)
        tensors = self._tensors(self._buffers, x, y)
        found = None if self._fused is None else self._fused(tensors)
        return self._recording(tensors, self._places) if found is None else found

    @property
    def is_fused(self) -> bool:
        """Whether passes are carried out in C++; known from the first one on."""
        return self._recording is not None and self._fused is not None

    @property
    def how(self) -> str:
        """How passes are carried out, in words; empty before the first one."""
        if self.is_fused:
            return "in C++, each member's by one thread"
        if isinstance(self._recording, Graphed):
            return "in a CUDA graph"
        if self._recording is not None:
            return f"by torch, operation by operation: {self.no_graph or self.not_fused}"
        return f"as the model is written: {self.reason}" if self.reason else ""

    @property
    def in_doubt(self) -> bool:
        """Whether passes were repeated since the last comparison."""
        return self._recording is not None and self._trusted < self._done

    def check(self, numbers: Tensor) -> None:
        """Compare once more, without leaving a trace in the buffers.

        Args:
            numbers: Of the members' examples.

        Raises:
            UnsupportedError: If the model does something else by now than what was recorded.
        """
        if self._recording is None:
            return
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._compare(self._recording, *self._batch(numbers))
        self._put_back(before)

    def _put_back(self, buffers: Mapping[str, Tensor]) -> None:
        for name, buffer in buffers.items():
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
        if self._steps is None or self._steps < _PAYS:  # also where it is known: see above on bits
            self.reason = f"recording a pass pays from {_PAYS} steps on"
            return
        tensors = self._tensors(self._buffers, x, y)
        key = (self._key, tuple(self._trained), *map(_layout, tensors))
        known = _RECORDED.setdefault(self._task, {})
        if key not in known:
            known[key] = self._record(tensors, x, y)
        found = known[key]
        if isinstance(found, str):
            self.reason = found
            return
        self._recording = found
        self._places = found.places(tensors[0].device)
        self._fuse(found, tensors)
        if can_capture(tensors[0].device):
            batch = len(tensors) - len(self._params) - len(self._buffers)
            try:
                self._recording = Graphed(found, tensors, self._places, batch=batch)
            except RuntimeError as error:  # an operation that no graph can hold
                self.no_graph = str(error).strip().split("\n")[0]

    def _fuse(self, found: Recording, tensors: Sequence[Tensor]) -> None:
        """Let C++ carry out what was recorded, if it can and gives the same."""
        members, threads = len(tensors[0]), torch.get_num_threads()
        if self.not_fused:
            return
        if tensors[0].device.type != "cpu":
            self.not_fused = "C++ is for the CPU"
            return
        if isinstance(found.lowered, str):
            self.not_fused = found.lowered
            return
        if threads > 2 * members:
            self.not_fused = f"{members} members would leave most of {threads} threads idle"
            return
        if (self._steps or 0) < found.lowered.operations:
            self.not_fused = f"{found.lowered.operations} operations pay from as many steps on"
            return
        try:
            fused = Fused(found.lowered, members)
        except KernelUnavailable as error:
            self.not_fused = str(error)
            return
        self.not_fused = self._try(fused, found, tensors)
        if not self.not_fused:
            self._fused = fused

    def _try(self, fused: Fused, found: Recording, tensors: Sequence[Tensor]) -> str:
        """What is wrong with a fused pass; empty if nothing is.

        A number beside the bend of a ReLU may fall to either side of it, and then gradients differ
        by more than rounding; so most of several passes have to agree, not all.
        """
        members, n = len(tensors[0]), len(self._params)
        agree: list[bool] = []
        while len(agree) < _TRIALS:
            factor = 1 + len(agree) / 64
            given = [t.detach() * factor if i < n and t.is_floating_point() else t
                     for i, t in enumerate(tensors)]  # fmt: skip
            m = n + len(self._buffers)
            changed = [[*given[:n], *(t.clone() for t in given[n:m]), *given[m:]] for _ in "ab"]
            theirs, mine = found(changed[0], self._places), fused(changed[1])
            if mine is None:
                return "it takes a number for one that is out of bounds"
            pairs = [(theirs[0], mine[0]), *zip(theirs[1], mine[1], strict=True)]
            given_away = [(a, b) for a, b in pairs if a is not None and b is not None]
            buffers = list(zip(changed[0][n:m], changed[1][n:m], strict=True))
            agree += [_agrees([(a[i], b[i]) for a, b in given_away]) and
                      all(_agrees([(a[i], b[i])]) for a, b in buffers)
                      for i in range(members)]  # fmt: skip
        if 2 * sum(agree) < len(agree):
            return f"it agrees with torch in {sum(agree)} of {len(agree)} passes only"
        return ""

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
            found = record(run, copies, buffers=n, batch=n + m)
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
        self._recording, self._fused, self._places = None, None, []
        self._put_back(mine)
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


def _agrees(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether tensors of one member are the same but for rounding."""
    if not all(bool(a.isfinite().all()) for a, _ in pairs):
        return all(torch.equal(a.isfinite(), b.isfinite()) for a, b in pairs)
    norms = [float(a.double().norm()) for a, _ in pairs]
    least = 1e-3 * max(norms[1:], default=0.0)  # a gradient of 0 is rounding and nothing else
    return all(
        float((a.double() - b.double()).norm()) <= _CLOSE.get(a.dtype, 0.0) * max(norm, least)
        for (a, b), norm in zip(pairs, norms, strict=True)
    )


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")
