"""``steepest bench``: measure this machine, everything side by side in one run."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from steepest.cli import bench_population
from steepest.errors import UnsupportedError, unknown_name
from steepest.optim import bench as steps
from steepest.racing.environment import environment

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Measure this machine, everything side by side in one run."
)

_RULES = (
    *("sgd", "adam", "adamw", "adagrad", "rmsprop", "adadelta"),
    *("nadam", "radam", "adamax", "asgd", "rprop", "lamb"),
)


@app.callback()
def _bench() -> None:
    """Measure this machine, everything side by side in one run."""


app.command("population")(bench_population.population)


@app.command("step")
def step(
    rules: Annotated[
        list[str] | None,
        typer.Argument(help=f"Rules, as 'steepest rules' lists them. Default: {' '.join(_RULES)}."),
    ] = None,
    layouts: Annotated[
        list[str] | None,
        typer.Option(
            "--layout", help=f"May be repeated. Default: all of {', '.join(steps.LAYOUTS)}."
        ),
    ] = None,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--way", help=f"Beside 'kernel'; may be repeated. Default: {', '.join(steps.WAYS[1:])}."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are taken over so many.")] = 15,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Default: torch's.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="torch.compile too; takes minutes.")
    ] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Empty the caches before every step that is timed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time an optimizer's step: ours beside every way of torch.optim's, taking turns.

    GB/s are those of the bytes that a step has to move at least; "of triad" is their share of
    what this machine's memory was measured to do. A ratio is the median over the rounds of how
    many times as long as our kernel a way took within a round.

    Example: steepest bench step adamw nadam --layout ConvNet --rounds 25
    """
    chosen = [_layout(name) for name in layouts or steps.LAYOUTS]
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnsupportedError(
            f"--device {device}: this torch ({torch.__version__}) finds no CUDA device; "
            "leave it out to measure on the CPU"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    facts, load = environment(device), os.getloadavg()[0]
    console = Console(stderr=True)
    rows = []
    with console.status("measuring the memory") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile's own
        memory = steps.bandwidth(device=device)
        for layout in chosen:
            for rule in rules or _RULES:
                status.update(f"measuring {rule}, {layout.name}")
                rows += steps.measure_steps(
                    rule,
                    layout,
                    repeats=rounds,
                    ways=ways,
                    compiled=compiled,
                    cold=cold,
                    device=device,
                )
    if as_json:
        machine = {**facts, "load": load, "cold": cold, "bandwidth": dataclasses.asdict(memory)}
        timings = [dataclasses.asdict(row) for row in rows]
        json.dump({"machine": machine, "timings": timings}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    out = Console(soft_wrap=True)
    machine_name = facts["device_name"] or facts["processor"]
    out.print(
        f"{machine_name}, {facts['threads']} threads, load {load:.1f}; "
        f"torch {torch.__version__}; float32, {device}, medians of {rounds} interleaved rounds, "
        f"caches {'emptied before every step' if cold else 'warm'}\n"
        f"memory: copy {memory.copy:,.1f} GB/s, triad {memory.triad:,.1f} GB/s",
        highlight=False,
    )
    for layout in chosen:
        own = [row for row in rows if row.layout == layout.name]
        out.print(_table(layout, own, memory))


def _layout(name: str) -> steps.Layout:
    if name not in steps.LAYOUTS:
        raise unknown_name("layout", name, steps.LAYOUTS)
    return steps.LAYOUTS[name]


def _table(layout: steps.Layout, rows: list[steps.Timing], memory: steps.Bandwidth) -> Table:
    table = Table(
        title=f"{layout.name}: {len(layout.shapes)} tensors, {layout.elements:,} elements",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for head in ("rule", "way"):
        table.add_column(head, no_wrap=True)
    for head in ("ms", "GB/s", "of triad", "× kernel"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        rate = row.gigabytes_per_second
        table.add_row(
            row.rule,
            row.way,
            f"{row.milliseconds:,.{2 if row.milliseconds > 1 else 4}f}",
            f"{rate:,.1f}",
            f"{rate / memory.triad:.0%}",
            f"{row.ratio:.2f}",
        )
    return table
