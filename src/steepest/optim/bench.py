"""How long does a step take? Ours beside every way torch.optim has, interleaved in one run.

The yardstick is the machine's own memory: a step has to read parameter, gradient and slots and to
write parameter and slots once (`Layout.ideal_bytes`), and cannot be faster than that on layouts
that do not fit into a cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest import rules
from steepest.errors import UnsupportedError, unknown_name
from steepest.optim.build import build

__all__ = ["LAYOUTS", "WAYS", "Bandwidth", "Layout", "Timing", "bandwidth", "measure_steps"]

WAYS = ("kernel", "eager", "torch for-loop", "torch foreach", "torch fused", "torch compiled")
"""All ways to do a step; torch has not all of them for all rules."""

_EVICTING = 2**28  # several times the largest caches of today's processors

_FUSED = ("adagrad", "adam", "adamw", "sgd")  # what torch has a fused CPU kernel for
_TORCH = {
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "asgd": "ASGD",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "sgd": "SGD",
}


@dataclass(frozen=True)
class Layout:
    """The shapes of a model's parameters."""

    name: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def elements(self) -> int:
        """All parameters together."""
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    def ideal_bytes(self, slots: int, itemsize: int = 4) -> int:
        """What a step must move: parameter and slots read and written, gradient read."""
        return self.elements * itemsize * (3 + 2 * slots)


def _gpt2() -> Iterator[tuple[int, ...]]:
    width = 768
    yield from ((50_257, width), (1_024, width))
    for _ in range(12):
        yield from ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,))
        yield from ((width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width))
        yield (width,)
    yield from ((width,), (width,))


def _convnet() -> Iterator[tuple[int, ...]]:
    yield from ((16, 1, 3, 3), (16,), (32, 16, 3, 3), (32,), (64, 1_152), (64,), (10, 64), (10,))


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("one tensor of 32M", ((32_000_000,),)),
        Layout("GPT-2 small", tuple(_gpt2())),
        Layout("ConvNet", tuple(_convnet())),
        Layout("2000 tensors of 300", ((300,),) * 2_000),
    )
}
"""The layouts that every table shows."""


@dataclass(frozen=True)
class Bandwidth:
    """What the machine's memory does, in GB/s of useful bytes.

    Attributes:
        copy: ``a = b``, 2 arrays.
        triad: ``a = b + s * c``, 3 arrays.
    """

    copy: float
    triad: float


@dataclass(frozen=True)
class Timing:
    """One way of doing a step.

    Attributes:
        rule: The rule's name.
        layout: The layout's name.
        way: One of `WAYS`; the first two are ours.
        milliseconds: The median.
        fastest: The shortest.
        gigabytes_per_second: At the ideal number of bytes.
        ratio: How many times as long as ``kernel`` it takes: the median over the rounds of the
            ratio within a round.
        repeats: How many rounds.
    """

    rule: str
    layout: str
    way: str
    milliseconds: float
    fastest: float
    gigabytes_per_second: float
    ratio: float
    repeats: int


def bandwidth(*, elements: int = 32_000_000, repeats: int = 9, device: str = "cpu") -> Bandwidth:
    """Measure copy and triad with torch's own operations."""
    a, b, c = (torch.ones(elements, device=device) for _ in range(3))
    times = _interleaved(
        {"copy": lambda: a.copy_(b), "triad": lambda: torch.add(b, c, alpha=0.5, out=a)},
        repeats,
        device=device,
    )
    size = 4 * elements / 1e9
    return Bandwidth(
        copy=2 * size / statistics.median(times["copy"]),
        triad=3 * size / statistics.median(times["triad"]),
    )


def measure_steps(
    rule: str,
    layout: Layout,
    *,
    repeats: int = 15,
    ways: Sequence[str] | None = None,
    compiled: bool = False,
    cold: bool = False,
    device: str = "cpu",
) -> list[Timing]:
    """Time a step of a rule in all ways, one after the other in every round.

    Args:
        rule: The rule's name.
        layout: The shapes.
        repeats: How many rounds.
        ways: Only these, where the rule has them, beside ``kernel``; default: all.
        compiled: Also torch's for-loop under ``torch.compile`` (takes a minute to compile).
        cold: Empty the caches before every step, as a large model's backward pass does; otherwise
            a way finds there what fits of its own, as between the steps of a small model.
        device: Where the parameters are.

    Raises:
        InputError: For an unknown way.
        UnsupportedError: If no kernel can be generated here.
    """
    known = _ways(rule, compiled=compiled, device=device)
    for way in ways or ():
        if way not in WAYS:
            raise unknown_name("way to do a step", way, WAYS)
    chosen = [way for way in known if ways is None or way in ways or way == "kernel"]
    grads = [torch.randn(shape, device=device) for shape in layout.shapes]
    steps = {way: _prepared(known[way], grads) for way in chosen}
    times = _interleaved(steps, repeats, device=device, cold=cold)
    formula = rules.get(rule)
    active = formula.active_slots(_values(rule), ndim=2)
    slots = sum(formula.slots[name].per == "element" for name in active)
    moved = layout.ideal_bytes(slots) / 1e9
    return [
        Timing(
            rule=rule,
            layout=layout.name,
            way=way,
            milliseconds=1e3 * statistics.median(own),
            fastest=1e3 * min(own),
            gigabytes_per_second=moved / statistics.median(own),
            ratio=statistics.median(x / y for x, y in zip(own, times["kernel"], strict=True)),
            repeats=repeats,
        )
        for way, own in times.items()
    ]


def _values(rule: str) -> dict[str, float]:
    return {"momentum": 0.9} if rule == "sgd" else {}


_Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def _ways(rule: str, *, compiled: bool, device: str) -> dict[str, _Make]:
    values = _values(rule)
    ways: dict[str, _Make] = {
        "kernel": lambda params: build(rule, params, engine="kernel", **values),
        "eager": lambda params: build(rule, params, engine="eager", **values),
    }
    if rule in _TORCH:
        theirs = getattr(torch.optim, _TORCH[rule])
        ways["torch for-loop"] = lambda params: theirs(params, foreach=False, **values)
        ways["torch foreach"] = lambda params: theirs(params, foreach=True, **values)
        if rule in _FUSED and (rule, device) != ("adagrad", "cuda"):
            ways["torch fused"] = lambda params: theirs(params, fused=True, **values)
        if compiled:
            ways["torch compiled"] = lambda params: _compiled(theirs(params, **values))
    return ways


def _compiled(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    optimizer.step = torch.compile(optimizer.step)  # type: ignore[method-assign, assignment]
    return optimizer


def _prepared(make: _Make, grads: Sequence[Tensor]) -> Callable[[], object]:
    """A step that has been done twice already: state is there, kernels are compiled."""
    params = [torch.nn.Parameter(torch.randn_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    optimizer = make(params)
    for _ in range(2):
        optimizer.step()
    prepared = getattr(optimizer, "refusals", None)
    if prepared:
        raise UnsupportedError(f"no kernel here: {next(iter(prepared))}")
    return optimizer.step


def _interleaved(
    work: dict[str, Callable[[], object]], repeats: int, *, device: str, cold: bool = False
) -> dict[str, list[float]]:
    """Seconds per call, one way after the other in every round.

    Warm: after one call that is not counted, each for ten milliseconds, so that everybody
    finds in the caches what fits into them. Cold: one call, after memory of `_EVICTING` bytes
    has been written, which leaves nothing in them.
    """

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    other = torch.zeros(_EVICTING if cold else 0, dtype=torch.uint8, device=device)
    calls = {}
    for name, do in work.items():
        do()
        start = time.perf_counter()
        do()
        wait()
        longest = 1 if cold else 100
        calls[name] = max(1, min(longest, int(1e-2 / (time.perf_counter() - start))))
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, do in work.items():
            other.add_(1) if cold else do()
            wait()
            start = time.perf_counter()
            for _ in range(calls[name]):
                do()
            wait()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times
