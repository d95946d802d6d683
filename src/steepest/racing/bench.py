"""How long does a step of a run take? The plain loop beside every engine, interleaved in one run.

The yardstick is the machine's own matrix product: a step of a run has to do the multiplications of
its forward and backward pass, counted with `torch.utils.flop_counter`, and cannot be faster than
the machine multiplies.
"""

from __future__ import annotations

import functools
import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from steepest import optim
from steepest.errors import InputError, UnsupportedError, unknown_name
from steepest.racing.apart import RemoteRun, Worker
from steepest.racing.arm import Arm, parse
from steepest.racing.herd import RemotePopulation
from steepest.racing.objects import Kit
from steepest.racing.spec import Conditions
from steepest.tasks import mnist
from steepest.train.memory import is_out_of_memory
from steepest.train.population import WARM_UP, Member, Population
from steepest.train.precision import FLOAT32, Precision
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["MODELS", "WAYS", "Timing", "gemm_rate", "measure_population"]

WAYS = ("plain loop", "solo", "population", "in turns", "recorded", "as written", "compiled")
"""A user's own loop, the same made repeatable, many runs at once, populations of `TURNS` runs that
take turns (what a race does with more runs than are the fastest at once), many runs at once whose
recorded operations are carried out by torch (see `steepest.train.recorded`), whose model's code is
run in every step, and many runs through `torch.compile`.
"""

TURNS = 16
ARMS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop, "nadam": torch.optim.NAdam}  # fmt: skip
"""Rules, and what the plain loop uses for them."""

_BLOCK = 0.25  # seconds of training per measurement, about
_BATCH = 32
_STEPS = 20  # of a run, or of a population before it is another's turn
_ENDLESS = 10**9  # steps of a run


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """A block with a skip."""
        inside = F.relu(self.norm1(self.conv1(x)))
        out: Tensor = F.relu(x + self.norm2(self.conv2(inside)))
        return out


def _resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        _Residual(16),
        _Residual(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


class _Transformer(nn.Module):
    """An image's rows as words: two layers, width 64, four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 64)
        self.place = nn.Parameter(torch.randn(28, 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList([layer])
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.drop(self.embed(x.squeeze(1)) + self.place)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.out(x.mean(1))
        return out


class _Lstm(nn.Module):
    """An image's rows one after the other; what is known after the last of them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.read = nn.LSTM(28, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        outputs, _ = self.read(x.squeeze(1))
        out: Tensor = self.out(outputs[:, -1])
        return out


MODELS: dict[str, Callable[[], Task]] = {
    "mnist": mnist.mnist,
    "mnist-mlp": mnist.mnist_mlp,
    "mnist-logreg": mnist.mnist_logreg,
    "resnet": lambda: _on_mnist("resnet", _resnet),
    "transformer": lambda: _on_mnist("transformer", _Transformer),
    "lstm": lambda: _on_mnist("lstm", lambda: _Lstm(64)),
    "lstm-16": lambda: _on_mnist("lstm-16", lambda: _Lstm(16)),
}
"""What is trained: the three ready-made tasks, and four small models on the same images."""


def _on_mnist(name: str, model: Callable[[], nn.Module]) -> Task:
    base = mnist.mnist_mlp()
    return Task(name=name, model=model, loss=F.cross_entropy, train=base.train, batch_size=_BATCH)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How fast a way was.

    Attributes:
        model: Which model.
        way: One of `WAYS`, or ``N processes``, or ``N processes of M``: a population in each.
        members: Runs at once.
        step: Seconds per step of one run, median over the rounds.
        flops: Multiplications and additions per second.
        share: Of what the machine's matrix product does, measured in the same rounds.
        speedup: Of the plain loop, median over the rounds.
        memory: Bytes: on CUDA the most that was allocated, on the CPU the most that the process
            ever had in memory, so of all ways measured so far.
        reason: Why there is no number.
    """

    model: str
    way: str
    members: int
    step: float = float("nan")
    flops: float = float("nan")
    share: float = float("nan")
    speedup: float = float("nan")
    memory: int = 0
    reason: str = ""


def gemm_rate(device: str = "cpu", *, n: int = 0) -> float:
    """Operations per second of a float32 matrix product, the best of some."""
    n = n or (8192 if device == "cuda" else 1024)
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    best = float("inf")
    for _ in range(6):
        begin = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * n**3 / best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_population(
    models: Sequence[str] = tuple(MODELS),
    *,
    members: Sequence[int] = (1, 8, 64, 256),
    rounds: int = 5,
    device: str = "cpu",
    compiled: bool = False,
    processes: int = 0,
    precision: str = FLOAT32,
    arm: str = "sgd",
) -> Iterator[Timing]:
    """Time a step of a run in every way, the ways taking turns within each round.

    Args:
        models: Of `MODELS`.
        members: Sizes of populations.
        rounds: How often everything is measured; medians are reported.
        device: ``cpu`` or ``cuda``.
        compiled: Try compiled populations too, which takes a while.
        processes: Solo workers at once, with one thread each; 0 leaves them out, as do the four
            models that are no ready-made task.
        precision: What all of them compute in, the plain loop too; the rate of a matrix product is
            that of tensors of float32.
        arm: The optimizer, of `ARMS`: torch's class in the plain loop, the rule elsewhere.

    Yields:
        A row for each model, way and size, as soon as the model is measured.
    """
    if arm not in ARMS:
        raise unknown_name("optimizer", arm, ARMS)
    if min(members, default=1) < 1 or rounds < 1:
        raise InputError(
            f"populations of {', '.join(map(str, members))} in {rounds} rounds cannot be timed; "
            "both numbers start at 1"
        )
    for name in models:
        if name not in MODELS:
            raise unknown_name("model", name, MODELS)
        bench = _Bench(MODELS[name](), device=device, precision=precision, arm=arm)
        yield from _measure(
            name, bench, members, rounds=rounds, compiled=compiled, processes=processes
        )
        gc.collect()


Clocked = Callable[[], float]


def _measure(
    name: str,
    bench: _Bench,
    sizes: Sequence[int],
    *,
    rounds: int,
    compiled: bool,
    processes: int,
) -> Iterator[Timing]:
    device = bench.device
    flops = _count_flops(bench.task)
    ways: dict[tuple[str, int], Clocked] = {
        ("plain loop", 1): bench.plain(),
        ("solo", 1): bench.solo(),
    }
    crew: list[Worker] = []
    left_out: list[Timing] = []
    try:
        if processes and name.startswith("mnist") and device == "cpu":
            ways[f"{processes} processes", processes] = bench.processes(name, processes, crew)
            herds = f"{processes} processes of {TURNS}"
            ways[herds, processes * TURNS] = bench.herds(crew)
        for size in sizes:
            wanted = [way for way in WAYS[2:] if (way != "in turns" or size > TURNS)]
            for way in wanted[: None if compiled else -1]:
                at_once = TURNS if way == "in turns" else size
                try:
                    ways[way, size] = bench.population(
                        size,
                        at_once=at_once,
                        way=way,
                    )
                except Exception as error:  # noqa: BLE001  the row says why there is no number
                    full = "out of memory" if is_out_of_memory(error) else str(error)
                    reason = full.strip().split("\n")[0]
                    left_out.append(Timing(model=name, way=way, members=size, reason=reason))
        found: dict[tuple[str, int], list[float]] = {key: [] for key in ways}
        peaks = []
        with Precision(bench.precision, torch.device(device)).held():
            for _ in range(rounds):
                peaks.append(gemm_rate(device))
                for key, clocked in ways.items():
                    found[key].append(clocked())
    finally:
        for worker in crew:
            worker.close()
    plain = found["plain loop", 1]
    peak = statistics.median(peaks)
    for (way, size), steps in found.items():
        step = statistics.median(steps)
        yield Timing(
            model=name,
            way=way,
            members=size,
            step=step,
            flops=flops / step,
            share=flops / step / peak,
            speedup=statistics.median(p / s for p, s in zip(plain, steps, strict=True)),
            memory=_memory(device),
        )
    yield from left_out


def _memory(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _count_flops(task: Task) -> int:
    """Of one step: forward and backward."""
    # of a member: what torch does in one call of its own, as an LSTM, is not counted
    population = Population(task, [Member(_rule("sgd"), None, 0)], steps=1)
    with FlopCounterMode(display=False) as counter:
        population.advance(1)
    return int(counter.get_total_flops())


def _rule(arm: str) -> Callable[[object], torch.optim.Optimizer]:
    return functools.partial(optim.build, arm, lr=1e-3)


def _repeated(step: Callable[[], object], *, runs: int, device: str) -> Clocked:
    """Seconds per step of one run, measured over about a block."""
    step()
    step()
    _wait(device)

    def clocked() -> float:
        begin, n = time.perf_counter(), 0
        while n < 3 or time.perf_counter() - begin < _BLOCK:
            step()
            n += 1
        _wait(device)
        return (time.perf_counter() - begin) / n / runs

    return clocked


def _side_by_side(
    advances: Sequence[Callable[[int], object]],
    seconds_of_a_step: Callable[[], float],
    *,
    runs: int,
) -> Clocked:
    """Seconds per step of one run where several processes train, each asked for a block."""

    def clocked() -> float:
        n = 2 + int(_BLOCK / seconds_of_a_step())
        begin = time.perf_counter()
        with ThreadPoolExecutor(len(advances)) as pool:
            list(pool.map(lambda advance: advance(n), advances))
        return (time.perf_counter() - begin) / n / runs

    return clocked


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What all ways have in common."""

    task: Task = field(kw_only=False)
    device: str
    precision: str
    arm: str

    @property
    def _parsed(self) -> Arm:
        """The arm, as workers are told it."""
        return parse(f"{self.arm}(lr=0.001)")

    @property
    def _conditions(self) -> Conditions:
        return Conditions(steps=_ENDLESS, batch_size=_BATCH, device="cpu", precision=self.precision)

    def plain(self) -> Clocked:
        """What a tutorial shows, with the data on the device already."""
        task, device = self.task, self.device
        model = task.model().to(device)
        optimizer = ARMS[self.arm](model.parameters(), lr=1e-3)
        if not isinstance(task.train, tuple):
            raise UnsupportedError("the data of a benchmark are tensors")
        x, y = (part.to(device) for part in task.train)
        computed = Precision(self.precision, torch.device(device))

        def step() -> None:
            rows = torch.randint(len(x), (_BATCH,), device=device)
            optimizer.zero_grad()
            loss, _ = computed.compute_loss(task, model, (x[rows], y[rows]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()  # as a loop does that prints it

        return _repeated(step, runs=1, device=device)

    def solo(self) -> Clocked:
        """The same loop as a run of a race."""
        run = SoloRun(
            self.task,
            optimizer=_rule(self.arm),
            schedule=None,
            seed=0,
            steps=_ENDLESS,
            device=self.device,
            precision=self.precision,
        )
        return _repeated(lambda: run.advance(_STEPS), runs=_STEPS, device=self.device)

    def population(self, size: int, *, at_once: int, way: str) -> Clocked:
        """Populations that take turns, many steps each, so that one's weights stay near."""
        waiting = [Member(_rule(self.arm), None, seed) for seed in range(size)]
        populations = [
            Population(
                self.task,
                waiting[i : i + at_once],
                steps=_ENDLESS,
                device=self.device,
                compiled=way == "compiled",
                recorded=way != "as written",
                fused=way not in ("recorded", "as written"),
                precision=self.precision,
            )
            for i in range(0, size, at_once)
        ]
        for population in populations:
            population.advance(WARM_UP)
        steps = max(1, _STEPS // max(1, at_once // TURNS))

        def turn() -> None:
            for population in populations:
                population.advance(steps)

        return _repeated(turn, runs=size * steps, device=self.device)

    def processes(self, name: str, count: int, crew: list[Worker]) -> Clocked:
        """A run in each of several processes, one thread each."""
        crew += [Worker(Kit(task=name), threads=1) for _ in range(count)]
        runs = [
            RemoteRun(worker, self._parsed, seed=seed, under=self._conditions)
            for seed, worker in enumerate(crew)
        ]
        for run in runs:
            run.advance(3)

        def seconds_of_a_step() -> float:
            return runs[0].advance(3).seconds / 3

        return _side_by_side([run.advance for run in runs], seconds_of_a_step, runs=count)

    def herds(self, crew: Sequence[Worker]) -> Clocked:
        """A population in each of these processes."""
        herds = [
            RemotePopulation(
                worker,
                [(self._parsed, TURNS * number + seed) for seed in range(TURNS)],
                under=self._conditions,
            )
            for number, worker in enumerate(crew)
        ]
        for herd in herds:
            herd.advance(WARM_UP)

        def seconds_of_a_step() -> float:
            herds[0].advance(1)
            return max(1e-6, herds[0].advance(1)[0].seconds * TURNS)

        runs = TURNS * len(herds)
        return _side_by_side([herd.advance for herd in herds], seconds_of_a_step, runs=runs)
