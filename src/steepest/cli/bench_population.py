"""``steepest bench population``: a step of a run by every engine, beside the plain loop."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from steepest.cli.race import Precision
from steepest.racing import bench as populations

__all__ = ["population"]


def population(
    models: Annotated[
        list[str] | None,
        typer.Argument(help=f"Which: {', '.join(populations.MODELS)}. Default: all."),
    ] = None,
    members: Annotated[
        list[int] | None,
        typer.Option(help="Size of a population; may be repeated. Default: 1, 8, 64, 256."),
    ] = None,
    arm: Annotated[
        str,
        typer.Option(
            help=f"The optimizer: {', '.join(populations.ARMS)}; torch's in the plain loop."
        ),
    ] = "sgd",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are taken over so many.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="What all ways compute in, the plain loop too.")
    ] = Precision.float32,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: torch's.")] = None,
    processes: Annotated[int, typer.Option(help="Solo processes at once; 0: none.")] = 2,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compiled populations too; takes minutes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a step of a run: plain loop, solo, processes and populations, taking turns.

    Example: steepest bench population mnist-mlp --members 8 --members 64
    """
    if threads is not None:
        torch.set_num_threads(threads)
    rows = populations.measure_population(
        models or list(populations.MODELS),
        members=members or (1, 8, 64, 256),
        rounds=rounds,
        device=device,
        compiled=compiled,
        processes=processes,
        precision=precision.value,
        arm=arm,
    )
    if as_json:
        json.dump([dataclasses.asdict(row) for row in rows], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console()
    table = Table(
        title=f"A step of a run with {arm}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {device}, {precision.value}, "
        f"medians of {rounds} rounds",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for head in ("model", "way"):
        table.add_column(head, no_wrap=True)
    for head in ("runs", "µs", "× plain", "GFLOP/s", "of GEMM", "MiB"):
        table.add_column(head, justify="right", no_wrap=True)
    with console.status("measuring"):
        for row in rows:
            if row.reason:
                table.add_row(row.model, row.way, str(row.members), row.reason)
                continue
            table.add_row(
                row.model,
                row.way,
                str(row.members),
                f"{1e6 * row.step:,.1f}",
                f"{row.speedup:.2f}",
                f"{row.flops / 1e9:,.1f}",
                f"{row.share:.0%}",
                f"{row.memory / 2**20:,.0f}",
            )
    console.print(table)
