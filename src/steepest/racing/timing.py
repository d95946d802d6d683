"""What a step costs: a pass of its own, in which the arms take turns.

Times are never read off the race, where one arm may have run while the machine was busy. Here
every arm trains for a moment, in an order drawn anew for every round, and medians are reported.
Arms are compared round by round: what the machine did in a round, it did to all of them.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from steepest.racing.arm import Arm
from steepest.racing.records import Timing
from steepest.racing.spec import RaceSpec
from steepest.stats import median_interval
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["QUANTITIES", "Timings", "measure"]

QUANTITIES = (
    "step_ms",  # a whole training step: batch, forward, backward, update
    "optimizer_ms",  # the update alone
    "step_ratio",  # a step over the first arm's in the same round; low and high are a 95 % interval
    "optimizer_ratio",  # the same for the update
    "epoch_seconds",  # a whole step times the steps of an epoch
    "state_bytes",  # the optimizer's memory
    "state_bytes_per_parameter",
    "peak_bytes",  # most memory on the device in a step, the model included; CUDA only
)
_WARM_UP = 3  # steps; the first ones allocate
_BLOCK = 0.08  # seconds of training per turn
_LEAST, _MOST = 7, 40  # rounds; fewer than six have no 95 % interval of a median
_RATE = 1e-10  # so small that no arm diverges while it is timed; the arithmetic is the same


@dataclass(frozen=True)
class Timings:
    """What the pass found.

    Attributes:
        rows: By the arm's place in the race.
        left_out: Why an arm could not be timed.
    """

    rows: Mapping[int, list[Timing]]
    left_out: Mapping[int, str]


@dataclass
class _Clocked:
    """An arm in training, and how long its turns took."""

    run: SoloRun
    peak: int | None
    steps: int
    updates: int
    step_ms: list[float] = field(default_factory=list)
    update_ms: list[float] = field(default_factory=list)

    def turn(self) -> None:
        chunk = self.run.advance(self.steps)
        self.step_ms.append(1e3 * chunk.seconds / len(chunk.loss))
        if self.updates:
            self.update_ms.append(1e3 * _update_seconds(self.run, self.updates) / self.updates)


def measure(task: Task, spec: RaceSpec, *, arms: Sequence[Arm], seconds: float) -> Timings:
    """Time every arm of a race on its task.

    Args:
        task: What is trained.
        spec: The race.
        arms: With the settings of its final stage.
        seconds: About how long to take; seven rounds are made in any case.
    """
    begin = time.perf_counter()
    clocks: dict[int, _Clocked] = {}
    left_out: dict[int, str] = {}
    for number, arm in enumerate(arms):
        try:
            clocks[number] = _warmed_up(task, arm, spec)
        except Exception as error:  # noqa: BLE001  the arm's own code, recorded by the race
            left_out[number] = f"{type(error).__name__}: {error}"
    order = list(clocks)
    dice = random.Random(0)  # noqa: S311  an order, not a secret
    for done in range(_MOST):
        if done >= _LEAST and time.perf_counter() - begin > seconds:
            break
        dice.shuffle(order)
        for number in order:
            clocks[number].turn()
    first = next(iter(clocks.values()), None)
    return Timings(
        {number: _rows(clocked, first) for number, clocked in clocks.items() if first}, left_out
    )


def _warmed_up(task: Task, arm: Arm, spec: RaceSpec) -> _Clocked:
    device = torch.device(spec.device)
    cuda = device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    run = SoloRun(
        task,
        optimizer=arm.factory(),
        schedule=None,
        seed=spec.seeds[0],
        steps=10**9,
        batch_size=spec.batch_size,
        device=spec.device,
        precision=spec.precision,
    )
    for group in run.optimizer.param_groups:
        if isinstance(group.get("lr"), torch.Tensor):
            group["lr"].fill_(_RATE)
        elif "lr" in group:
            group["lr"] = _RATE
    run.advance(_WARM_UP)
    peak = torch.cuda.max_memory_allocated(device) - before if cuda else None
    chunk = run.advance(_WARM_UP)
    if not len(chunk.loss) or chunk.diverged_at is not None:
        raise ArithmeticError("its loss is not finite even with a tiny learning rate")
    steps = max(1, min(10_000, int(_BLOCK * len(chunk.loss) / chunk.seconds)))
    updates = 0  # where it asks for the loss again, there is no update without the model
    if not run.asks_again:
        one = _update_seconds(run, 2) / 2
        updates = max(2, min(10_000, int(_BLOCK / 4 / one)))
    return _Clocked(run, peak, steps, updates)


def _update_seconds(run: SoloRun, times: int) -> float:
    """Seconds of some updates with the gradients that the last step left."""
    step, cuda = run.optimizer.step, run.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(run.device)
    with run.precision.held():
        begin = time.perf_counter()
        for _ in range(times):
            step()
        if cuda:
            torch.cuda.synchronize(run.device)
        return time.perf_counter() - begin


def _rows(clocked: _Clocked, first: _Clocked) -> list[Timing]:
    run = clocked.run
    rows = [_median("step_ms", clocked.step_ms)]
    rows.append(_ratio("step_ratio", clocked.step_ms, first.step_ms))
    if clocked.update_ms:
        rows.append(_median("optimizer_ms", clocked.update_ms))
        if first.update_ms:
            rows.append(_ratio("optimizer_ratio", clocked.update_ms, first.update_ms))
    epoch = [ms * run.steps_per_epoch / 1e3 for ms in clocked.step_ms]
    rows.append(_median("epoch_seconds", epoch))
    state = _state_bytes(run.optimizer)
    parameters = sum(p.numel() for g in run.optimizer.param_groups for p in g["params"])
    rows.append(Timing("state_bytes", float(state), None, None, 1))
    rows.append(Timing("state_bytes_per_parameter", state / parameters, None, None, 1))
    if clocked.peak is not None:
        rows.append(Timing("peak_bytes", float(clocked.peak), None, None, 1))
    return rows


def _median(quantity: str, values: list[float]) -> Timing:
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return Timing(quantity, middle, low, high, len(values))


def _ratio(quantity: str, ours: list[float], theirs: list[float]) -> Timing:
    """How many times as long, by the median over rounds, with its 95 % interval."""
    middle, low, high = median_interval(np.array(ours) / np.array(theirs))
    bounded = math.isfinite(low)
    return Timing(quantity, middle, low if bounded else None, high if bounded else None, len(ours))


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
