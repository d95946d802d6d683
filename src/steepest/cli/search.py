"""``steepest search``: the best setting of one optimizer, and how good it is on fresh seeds."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest import api
from steepest.cli.progress import RaceProgress
from steepest.cli.race import Budget, Engine, Precision
from steepest.cli.show import show
from steepest.cli.task_options import takes_task_options
from steepest.searching import prepare_search

__all__ = ["search"]


@takes_task_options
def search(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A ready-made task (steepest tasks) with its flags, or my_task.py:task.",
        ),
    ],
    arm: Annotated[
        str,
        typer.Option(
            "--arm",
            help="What is searched, quoted: adamw (its published space), "
            "'adamw(lr=1e-4..1e-1, beta1={0.9, 0.95}) + cosine()'.",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(help="sobol (the default), random, grid, halving, optuna:tpe …"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Settings that are tried. Default: the budget's.")
    ] = None,
    budget: Annotated[
        Budget | None,
        typer.Option(help="Trials and seeds by name. Default: standard (16 trials, 10 seeds)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Fresh seeds for the best setting. Default: the budget's."),
    ] = None,
    tuning_seeds: Annotated[
        int | None, typer.Option(help="Runs of each setting. Default: the budget's.")
    ] = None,
    widen: Annotated[
        int | None,
        typer.Option(
            help="How often the space may be widened and searched again, where the best setting "
            "lies at an end of it. Default: 0."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Length of every run in epochs. Default: 1.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The same in steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations. Default: one epoch.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder. Default: named by task and settings, under runs/."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        Precision,
        typer.Option(help="What the runs compute in; bf16 is autocast, tf32 needs CUDA."),
    ] = Precision.float32,
    level: Annotated[float, typer.Option(help="Of all intervals.")] = 0.95,
    engine: Annotated[
        Engine,
        typer.Option(help="How the runs are carried out. auto: the fastest by measurement."),
    ] = Engine.auto,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what lies in the folder and begin again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Search the hyperparameters of one optimizer, then run the best setting on fresh seeds.

    Settings are compared on validation data; test data is read for the best one only. The report
    says which hyperparameters matter, and what other methods would have seen of them.
    Repeating the command goes on where it stopped.

    Example: steepest search mnist-mlp --arm adamw --method grid --trials 27

    Example: steepest search my_task.py:task --arm 'sgd(lr=1e-3..1, momentum={0, 0.9})'
    """
    loaded, planned = prepare_search(
        task,
        arm,
        method=method,
        trials=trials,
        budget=budget.value if budget else None,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        widen=widen,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        eval_every=eval_every,
        device=device,
        precision=precision.value,
        level=level,
    )
    folder = out or api.default_folder(planned)
    with RaceProgress(Console(stderr=True), quiet=quiet or as_json) as progress:
        api.run(
            loaded,
            planned,
            folder,
            fresh=fresh,
            observer=progress,
            timing=0.0,
            engine=engine.value,
            command=shlex.join(["steepest", *sys.argv[1:]]),
        )
    show(api.load(folder), as_json=as_json)
