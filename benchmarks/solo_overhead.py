"""What the solo engine costs on top of the loop that a user would write.

    python benchmarks/solo_overhead.py [--blocks 30] [--steps 40] [--task mnist]

The engine and two plain loops take turns in one process, block by block, so that a slow moment
of the machine hits all of them; ratios are taken within a round and their median is printed with
its interquartile range. The first plain loop slices a shuffled index, the second uses torch's
DataLoader. Both read the loss of every step, as whoever plots it does; both use torch's dropout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import steepest.tasks
from steepest.train.solo import SoloRun
from steepest.train.task import Task

Block = Callable[[int], float]


def _adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)  # type: ignore[arg-type]


def _slices(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        order = torch.randperm(len(x))
        for start in range(0, len(x) - size + 1, size):
            index = order[start : start + size]
            yield x[index], y[index]


def _loader(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def plain(task: Task, batches: Iterator[tuple[Tensor, Tensor]]) -> Block:
    """The loop of every tutorial."""
    torch.manual_seed(0)
    model = task.model().train()
    optimizer = _adam(model.parameters())
    losses = []

    def block(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = task.loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return (time.perf_counter() - begin) / steps

    return block


def engine(task: Task) -> Block:
    """The same through `SoloRun`."""
    run = SoloRun(task, optimizer=_adam, schedule=None, seed=0, steps=10**9)

    def block(steps: int) -> float:
        begin = time.perf_counter()
        run.advance(steps)
        return (time.perf_counter() - begin) / steps

    return block


def measure(task: Task, *, blocks: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step of each contestant in each round; the order turns from round to round."""
    x, y = task.train  # type: ignore[misc]
    size = task.batch_size
    contestants = {
        "solo engine": engine(task),
        "plain loop, index slices": plain(task, _slices(x, y, size)),
        "plain loop, DataLoader": plain(task, _loader(x, y, size)),
    }
    for block in contestants.values():
        block(steps)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(blocks):
        for name in names[turn % 3 :] + names[: turn % 3]:
            times[name].append(contestants[name](steps))
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="mnist", choices=steepest.tasks.names())
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=40, help="steps per block")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times = measure(
        steepest.tasks.load(arguments.task), blocks=arguments.blocks, steps=arguments.steps
    )
    solo = times["solo engine"]
    rows = []
    for name, values in times.items():
        ratios = sorted(s / v for s, v in zip(solo, values, strict=True))
        low, mid, high = statistics.quantiles(ratios, n=4) if name != "solo engine" else [1, 1, 1]
        rows.append(
            {
                "loop": name,
                "microseconds_per_step": round(statistics.median(values) * 1e6, 1),
                "engine_over_it": round(mid, 4),
                "quartiles": [round(low, 4), round(high, 4)],
            }
        )
    facts = {
        "task": arguments.task,
        "blocks": arguments.blocks,
        "steps_per_block": arguments.steps,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "processor": _processor(),
    }
    if arguments.json:
        print(json.dumps({"rows": rows, **facts}))
        return
    for row in rows:
        print(
            f"{row['loop']:<26} {row['microseconds_per_step']:>9} µs/step   engine / it = "
            f"{row['engine_over_it']:.4f}  (quartiles {row['quartiles'][0]:.4f} … "
            f"{row['quartiles'][1]:.4f})"
        )
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
