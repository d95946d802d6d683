r"""Averages of the weights that training passes through: Polyak's, SWA, and the debiased EMA.

All three are one recursion. After the n-th time that weights :math:`w_n` are counted in,

.. math:: a_n = a_{n-1} + c_n\,(w_n - a_{n-1}), \qquad c_1 = 1

with :math:`c_n = 1/n` for means, in which everything that was counted in weighs alike, and

.. math:: c_n = \frac{1 - d}{1 - d^n}

for the exponential moving average: it is :math:`m_n/(1 - d^n)` with :math:`m_n = d\,m_{n-1} +
(1 - d)\,w_n,\ m_0 = 0`, Adam's debiased form, in which the weights :math:`(1-d)\,d^{n-i}/(1-d^n)`
of all terms add up to one from the first step on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from steepest.errors import InputError, unknown_name
from steepest.train.batchnorm import batch_norms, recompute_batch_norm

__all__ = ["METHODS", "Method", "RunningMean", "WeightAverage", "coefficient"]

Method: TypeAlias = Literal["ema", "swa", "polyak"]
METHODS: tuple[Method, ...] = get_args(Method)


def coefficient(method: Method, n: int, decay: float) -> float:
    r"""The :math:`c_n` of the recursion: what the n-th weights (from 1) weigh in the average.

    >>> coefficient("polyak", 4, 0.9), coefficient("ema", 1, 0.9)
    (0.25, 1.0)
    >>> round(coefficient("ema", 2, 0.9), 4)     # 0.1 / (1 - 0.81)
    0.5263
    """
    if method != "ema":
        return 1.0 / n
    if n == 1 or not decay:
        return 1.0
    # expm1: 1 - d^n of a d near 1 is what is left of two almost equal numbers
    return (1 - decay) / -math.expm1(n * math.log(decay))


class RunningMean:
    """The recursion over named tensors, kept in float32 or better.

    bfloat16 has 8 bits: an update that is 1/256 of the weight or smaller would be lost. So the
    mean of 16-bit weights is float32, of all others their own type.

    Args:
        method: ``ema``, ``swa`` or ``polyak``; the last two are the same mean.
        decay: d of the EMA.

    Attributes:
        count: How many times weights were counted in.
        tensors: The mean by name; empty before the first time.

    >>> mean = RunningMean("swa")
    >>> for value in (1.0, 2.0, 6.0):
    ...     mean.update({"w": torch.tensor([value])})
    >>> mean.tensors
    {'w': tensor([3.])}
    """

    def __init__(self, method: Method, *, decay: float = 0.999) -> None:
        if method not in METHODS:
            raise unknown_name("averaging method", str(method), METHODS)
        given: object = decay
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < 1:
            raise InputError(
                f"decay must be at least 0 and less than 1, got {decay!r}; 0.999 averages over "
                "about the last 1,000 updates"
            )
        self.method = method
        self.decay = float(decay)
        self.count = 0
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, live: Mapping[str, Tensor]) -> None:
        """Count these in; they are not changed and not kept."""
        if not self.count:
            self.tensors = {name: _wide(tensor, copy=True) for name, tensor in live.items()}
            self.count = 1
            return
        self.count += 1
        c = coefficient(self.method, self.count, self.decay)
        means: list[Tensor] = []
        values: list[Tensor] = []
        for name, mean in self.tensors.items():
            value = live[name].detach()
            if mean.is_floating_point() or mean.is_complex():
                means.append(mean)
                values.append(_wide(value))
            else:
                mean.copy_(value)  # a counter has no mean
        if means:
            torch._foreach_lerp_(means, values, c)


def _wide(tensor: Tensor, *, copy: bool = False) -> Tensor:
    short = tensor.is_floating_point() and tensor.element_size() < 4
    return tensor.detach().to(torch.float32 if short else tensor.dtype, copy=copy)


class WeightAverage:
    """The average of a model's weights, kept beside it while it is trained.

    Any model: tied weights are averaged once, frozen ones stay what they are, 16-bit ones are
    averaged in float32. Batch norm's statistics belong to the weights that produced them, so an
    averaged model has them measured again: give batches where it is used.

    Beside `torch.optim.swa_utils.AveragedModel`, whose mean is the same for ``swa``, it debiases
    the EMA, keeps 16-bit weights' average in float32, costs no second forward-able model, and puts
    the average into the model itself for as long as it is needed.

    Args:
        model: What is trained.
        method: ``ema``: recent weights count more. ``polyak``: the mean of all (Polyak &
            Juditsky, SIAM J. Control Optim. 30:838, 1992), counted in after every step. ``swa``:
            the mean of a few far apart (Izmailov et al., arXiv:1803.05407), usually one per epoch.
        decay: Of the EMA; 0.999 averages over about the last 1,000 updates.
        start: Calls of `update` that pass before the first one counts.
        every: Of those that follow, count every so-manieth (the first one with ``start + every``).
        buffers: ``copy``: buffers are the model's own, as they are. ``average``: those with
            fractions are averaged like weights.

    Attributes:
        seen: Calls of `update`.
        count: How many of them were counted in.

    Raises:
        InputError: For a decay outside of [0, 1), a negative start, ``every`` below 1.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(model, method="polyak")
    >>> for value in (1.0, 3.0):                             # instead of optimizer.step()
    ...     _ = nn.init.constant_(model.weight, value)
    ...     counted = average.update()
    >>> with average.applied():
    ...     inside = model.weight.item()
    >>> inside, model.weight.item()
    (2.0, 3.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        method: Method = "ema",
        decay: float = 0.999,
        start: int = 0,
        every: int = 1,
        buffers: Literal["copy", "average"] = "copy",
    ) -> None:
        check_times(start=start, every=every)
        if buffers not in ("copy", "average"):
            raise InputError(f"buffers must be 'copy' or 'average', got {buffers!r}")
        self.model = model
        self.start = start
        self.every = every
        self.buffers = buffers
        self.seen = 0
        self._mean = RunningMean(method, decay=decay)

    @property
    def method(self) -> Method:
        """``ema``, ``swa`` or ``polyak``."""
        return self._mean.method

    @property
    def decay(self) -> float:
        """Of the EMA."""
        return self._mean.decay

    @property
    def count(self) -> int:
        """How many times weights were counted in."""
        return self._mean.count

    def update(self) -> bool:
        """Look at the model's weights; call it after every ``optimizer.step()``.

        Returns:
            Whether they were counted in.
        """
        self.seen += 1
        counts = counts_in(self.seen, start=self.start, every=self.every)
        if counts:
            self._mean.update(self._live())
        return counts

    def _live(self) -> dict[str, Tensor]:
        live: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.buffers == "average":
            measured = {f"{n}." if n else "" for n in batch_norms(self.model)}
            for name, buffer in self.model.named_buffers():
                if f"{name.rpartition('.')[0]}." not in measured and name not in live:
                    live[name] = buffer
        return live

    def weights(self) -> dict[str, Tensor]:
        """The average by name, copied, in the types of the model's own weights.

        Raises:
            InputError: If nothing was counted in yet.
        """
        self._check_any()
        live = self._live()
        return {
            name: mean.to(live[name].dtype, copy=True) for name, mean in self._mean.tensors.items()
        }

    def _check_any(self) -> None:
        if not self.count:
            raise InputError(
                f"nothing was averaged yet: update() was called {self.seen} times and counts from "
                f"call {self.start + self.every} on; train longer, or choose a smaller start"
            )

    @contextmanager
    def applied(
        self,
        batches: Iterable[Any] | None = None,
        *,
        forward: Callable[[nn.Module, Any], Any] | None = None,
    ) -> Iterator[nn.Module]:
        """The model with the average in it; afterwards it is bitwise what it was.

        Args:
            batches: For a model with batch norm: training data to measure its statistics with,
                see `steepest.train.batchnorm.recompute_batch_norm`.
            forward: ``(model, batch)``, where ``model(batch)`` would not do.

        Raises:
            InputError: If nothing was counted in yet, or a model with batch norm gets no batches.
        """
        self._check_any()
        live = self._live() | dict(self.model.named_buffers())
        before = {name: tensor.detach().clone() for name, tensor in live.items()}
        try:
            self.copy_to(self.model, batches, forward=forward)
            yield self.model
        finally:
            with torch.no_grad():
                for name, tensor in live.items():
                    tensor.copy_(before[name])

    @torch.no_grad()
    def copy_to(
        self,
        model: nn.Module,
        batches: Iterable[Any] | None = None,
        *,
        forward: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        """Write the average into a model of the same kind, for good.

        Args:
            model: The trained one, or another with equal names and shapes.
            batches: As for `applied`.
            forward: As for `applied`.

        Raises:
            InputError: As for `applied`, or if the model is of another kind.
        """
        self._check_any()
        if batches is None and batch_norms(model):
            raise InputError(
                f"the model has batch norm ('{next(iter(batch_norms(model)))}'), whose statistics "
                "belong to the weights that it was trained with; give batches=... of training "
                "data, so that they can be measured for the average"
            )
        theirs: dict[str, Tensor] = {
            **dict(model.named_parameters()),
            **dict(model.named_buffers()),
        }
        own = dict(self.model.named_buffers())
        _check_alike(self._mean.tensors, theirs)
        for name, mean in self._mean.tensors.items():
            theirs[name].copy_(mean)
        if model is not self.model:
            for name, buffer in own.items():
                if name not in self._mean.tensors:
                    theirs[name].copy_(buffer)
        if batches is not None:
            recompute_batch_norm(model, batches, forward=forward)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: loads with ``weights_only=True``, goes on mid-run bitwise."""
        return {
            "method": self.method,
            "decay": self.decay,
            "start": self.start,
            "every": self.every,
            "buffers": self.buffers,
            "seen": self.seen,
            "count": self.count,
            "tensors": {name: mean.clone() for name, mean in self._mean.tensors.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where a state was taken; its settings replace those given to the constructor.

        Raises:
            InputError: If it is no such state, or that of another model.
        """
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise InputError(
                f"this is no state of a WeightAverage: it lacks {', '.join(missing)}; load what "
                "its state_dict() returned"
            )
        mean = RunningMean(state["method"], decay=state["decay"])
        live = self._live() | dict(self.model.named_buffers())
        _check_alike(state["tensors"], live)
        check_times(start=state["start"], every=state["every"])
        mean.count = int(state["count"])
        mean.tensors = {
            name: _wide(tensor, copy=True).to(live[name].device)
            for name, tensor in state["tensors"].items()
        }
        self._mean = mean
        self.start, self.every = int(state["start"]), int(state["every"])
        self.buffers = state["buffers"]
        self.seen = int(state["seen"])


def counts_in(seen: int, *, start: int, every: int) -> bool:
    """Whether the weights after this many steps are counted in.

    >>> [n for n in range(1, 11) if counts_in(n, start=4, every=3)]
    [7, 10]
    """
    return seen > start and (seen - start) % every == 0


def check_times(*, start: int, every: int) -> None:
    """Raise `InputError` unless start >= 0 and every >= 1 are whole numbers."""
    times: tuple[tuple[str, object, int], ...] = (("start", start, 0), ("every", every, 1))
    for name, value, least in times:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")


def _check_alike(tensors: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if name not in model:
            raise unknown_name("parameter of this model", name, model)
        if tensor.shape != model[name].shape:
            raise InputError(
                f"'{name}' has shape {tuple(tensor.shape)} in the average and "
                f"{tuple(model[name].shape)} in the model; an average belongs to models of one kind"
            )
