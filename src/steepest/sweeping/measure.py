"""The runs of a range test: many rates and seeds as populations, or one growing rate.

R  learning rates      N  steps
"""

from __future__ import annotations

import functools
import gc
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from steepest import rules
from steepest.errors import InputError
from steepest.racing.arm import Arm, resolve
from steepest.sweeping.analysis import Floats
from steepest.sweeping.classical import BLOWN
from steepest.train.agreement import why_not_together
from steepest.train.memory import fitting, is_out_of_memory, member_bytes
from steepest.train.population import Member, Population
from steepest.train.solo import OptimizerFactory, SoloRun, find_device, rate_of
from steepest.train.task import Task
from steepest.values import Range, write_value

__all__ = ["Progress", "arm_of", "at_rate", "grow", "hold", "why_not_batched"]

Progress = Callable[[int, int], None]
"""Told how many run-steps are done, of how many."""

_LOOK = 10  # steps between two reports of progress


def arm_of(arm: str | Arm | Any) -> tuple[Arm, tuple[float, float] | None]:
    """The arm of a sweep, and the range of rates where it says one.

    A bare name is the optimizer with its defaults; ``adam(lr=1e-4..1e-1)`` has the range.

    Raises:
        InputError: If anything but the learning rate is to be searched.
    """
    if isinstance(arm, str) and re.fullmatch(r"\s*[\w.:/]+\s*", arm):
        arm = f"{arm.strip()}()"
    (found,) = resolve([arm])
    if found.space is None:
        return found, None
    dimension = found.space.dimensions.get("lr")
    others = [name for name in found.space.dimensions if name != "lr"]
    if others or not isinstance(dimension, Range):
        raise InputError(
            f"a sweep varies the learning rate alone, over one range; fix "
            f"{', '.join(others) or 'lr'} in '{found.text}'"
        )
    plain = replace(found, space=None, text="", label="")
    values = ", ".join(f"{k}={write_value(v)}" for k, v in plain.values.items())
    text = f"{plain.name}({values})"
    return replace(plain, text=text, label=text), (dimension.low, dimension.high)


def at_rate(arm: Arm, lr: float) -> OptimizerFactory:
    """The arm's optimizer at another learning rate; groups keep their rates' ratios."""
    if arm.kind != "factory" and "lr" in _accepted(arm):
        return replace(arm, values={**arm.values, "lr": lr}).factory()
    return functools.partial(_scaled, arm.factory(), lr)


def _accepted(arm: Arm) -> Iterable[str]:
    if arm.kind == "rule":
        return rules.get(arm.name).hyperparameters
    return ["lr"] if _takes_lr(arm.target) else []


def _takes_lr(cls: Any) -> bool:
    return "lr" in inspect.signature(cls).parameters


def _scaled(
    make: OptimizerFactory, lr: float, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    optimizer = make(parameters)
    first = rate_of(optimizer.param_groups[0])
    if not first > 0:
        raise InputError(
            f"{type(optimizer).__name__} has no learning rate above 0 in its first parameter "
            "group, so there is nothing to sweep"
        )
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * (lr / first)
    return optimizer


def why_not_batched(task: Task, arm: Arm, *, batch_size: int | None, device: str) -> str | None:
    """Why runs of this arm cannot train as one population; None if they can."""
    lr = 1e-4  # a rate that surely is stable, or two equal runs would blow up differently
    members = [Member(at_rate(arm, lr), None, seed) for seed in (0, 1)]
    return why_not_together(task, members, steps=10, batch_size=batch_size, device=device)


def hold(
    task: Task,
    arm: Arm,
    rates: Floats,
    seed: int,
    *,
    steps: int,
    batch_size: int | None,
    device: str,
    progress: Callable[[int], None],
    note: Callable[[str], None],
) -> npt.NDArray[np.float64]:
    """Train every rate, held constant, with one seed, from the same start.

    Args:
        task: What is trained.
        arm: What trains it, at the rates in place of its own.
        rates: ``[R]``.
        seed: Of all runs.
        steps: Of every run.
        batch_size: Default: the task's.
        device: Where.
        progress: Told how many run-steps are done.
        note: Told what a reader should know.

    Returns:
        Losses ``[R, N]``; not-a-number after the step at which a run diverged.
    """
    members = [Member(at_rate(arm, float(lr)), None, seed) for lr in rates]
    losses = np.full((len(members), steps), np.nan)
    each = member_bytes(task, members[0], batch_size=batch_size or task.batch_size, device=device)
    most = fitting(each, find_device(device)) or len(members)
    waiting = [
        list(range(first, min(first + most, len(members))))
        for first in range(0, len(members), most)
    ]
    before = 0
    while waiting:
        places = waiting.pop(0)
        try:
            _train(
                task,
                [members[i] for i in places],
                losses[places[0] : places[-1] + 1],
                batch_size=batch_size,
                device=device,
                progress=lambda done, before=before: progress(before + done),  # type: ignore[misc]
            )
        except Exception as error:
            if not is_out_of_memory(error) or len(places) == 1:
                raise
            note(f"{len(places)} runs at a time do not fit into memory; halved")
            half = len(places) // 2
            waiting = [places[:half], places[half:], *waiting]
            gc.collect()
            continue
        before += len(places) * steps
    return losses


def _train(
    task: Task,
    members: Sequence[Member],
    losses: npt.NDArray[np.float64],
    *,
    batch_size: int | None,
    device: str,
    progress: Callable[[int], None],
) -> None:
    steps = losses.shape[1]
    population = Population(task, members, steps=steps, batch_size=batch_size, device=device)
    places = list(range(len(members)))
    while population.position < steps and population.alive:
        first = population.position
        for place, chunk in zip(places, population.advance(_LOOK), strict=True):
            losses[place, first : first + len(chunk.loss)] = chunk.loss
        progress(population.position * len(members))
        # whoever diverged has no say any more and costs as much as before
        if population.alive and 2 * len(population.left()) >= len(population):
            population, kept = population.compacted()
            places = [places[i] for i in kept]
    progress(steps * len(members))


def grow(
    task: Task,
    arm: Arm,
    rates: Floats,
    seed: int,
    *,
    batch_size: int | None,
    device: str,
    progress: Callable[[int], None],
) -> npt.NDArray[np.float64]:
    """Train one run whose rate grows from step to step.

    Returns:
        Losses ``[N]``; not-a-number after its blow-up.
    """
    losses = np.full(len(rates), np.nan)
    high = float(rates[-1])
    run = SoloRun(
        task,
        optimizer=at_rate(arm, high),
        schedule=lambda step, total: float(rates[step]) / high,
        seed=seed,
        steps=len(rates),
        batch_size=batch_size,
        device=device,
    )
    while run.position < len(rates) and run.diverged_at is None:
        first = run.position
        chunk = run.advance(_LOOK)
        losses[first : first + len(chunk.loss)] = chunk.loss
        progress(run.position)
        if has_blown(losses[: run.position]):
            break
    return losses


def has_blown(losses: npt.NDArray[np.float64]) -> bool:
    """Whether the last loss of a growing run is far above its first ones."""
    if not len(losses):
        return False
    start = float(np.median(losses[:5]))
    return bool(losses[-1] > start + (BLOWN - 1) * abs(start))
