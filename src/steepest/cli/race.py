"""``steepest race``: which of these optimizers, on this task, and how sure."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest import api
from steepest.cli.progress import RaceProgress
from steepest.cli.show import show
from steepest.cli.task_options import takes_task_options
from steepest.cli.words import split_arms

__all__ = ["race"]


class TrainOn(StrEnum):
    """What the models are trained on."""

    train = "train"
    all = "all"


class Budget(StrEnum):
    """How much is spent on each tuned arm."""

    quick = "quick"
    standard = "standard"
    thorough = "thorough"


class Engine(StrEnum):
    """How the runs are carried out."""

    auto = "auto"
    solo = "solo"
    processes = "processes"
    population = "population"


class Precision(StrEnum):
    """What the runs compute in."""

    float32 = "float32"
    tf32 = "tf32"
    bf16 = "bf16"


@takes_task_options
def race(
    task: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...",
            help="A ready-made task (steepest tasks) with its flags, or my_task.py:task; several "
            "are raced one after the other, with one report over all of them.",
        ),
    ],
    arms: Annotated[
        list[str],
        typer.Option(
            "--arms",
            help="What is compared, each quoted: 'adam(lr=1e-3)' "
            "'sgd(lr=0.1) + cosine(warmup=0.05)' 'package.module:Class(lr=0.1)'. Tuned first: "
            "adam, 'adam(lr=1e-4..1e-1)'.",
        ),
    ],
    epochs: Annotated[
        float | None, typer.Option(help="Length of every run in epochs. Default: 1.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The same in steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="How many seeds decide. Default: 6 or the budget's, and never too few for so many "
            "arms."
        ),
    ] = None,
    budget: Annotated[
        Budget | None,
        typer.Option(help="What each tuned arm may spend. Default: standard."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Settings of each tuned arm. Default: the budget's.")
    ] = None,
    tuning_seeds: Annotated[
        int | None, typer.Option(help="Runs of each setting. Default: the budget's.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="sobol (the default), random, grid, halving, optuna:tpe …"),
    ] = None,
    widen: Annotated[
        int | None,
        typer.Option(
            help="How often all spaces may be widened and searched again, where a best setting "
            "lies at an end of its space. Default: 0."
        ),
    ] = None,
    defaults: Annotated[
        bool,
        typer.Option("--defaults", help="Run the defaults of the tuned arms beside them."),
    ] = False,
    early_stopping: Annotated[
        str | None,
        typer.Option(
            help="End a run that does not get better, with its best weights: "
            "'val_loss, patience=5, min_delta=1e-3'."
        ),
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(
            help="Count a run as diverged whose loss is this high: 'factor=10, steps=20', "
            "'threshold=100'."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Time to a validation metric: 0.98, or accuracy=0.98."),
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations. Default: one epoch.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The race's folder. Default: named by task and settings, under runs/."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        Precision,
        typer.Option(help="What the runs compute in; bf16 is autocast, tf32 needs CUDA."),
    ] = Precision.float32,
    train_on: Annotated[
        TrainOn, typer.Option(help="all: train on the validation data too.")
    ] = TrainOn.train,
    level: Annotated[float, typer.Option(help="Confidence of all decisions together.")] = 0.95,
    min_effect: Annotated[float, typer.Option(help="The smallest difference that matters.")] = 0.0,
    timing: Annotated[
        float, typer.Option(help="Seconds for measuring what a step costs; 0: leave it out.")
    ] = 6.0,
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
    """Race optimizers: same start, same batches, same noise, many seeds, one verdict.

    Repeating the command goes on where it stopped; a finished race is only shown.

    Arms without a setting (adam) or with ranges (adam(lr=1e-4..1e-1)) are tuned first, all under
    the same budget, on validation data and seeds of their own.

    Example: steepest race mnist --arms 'adadelta(lr=0.5)' 'adam(lr=1e-3)' --epochs 3 --seeds 6

    Example: steepest race mnist-mlp --arms adam sgd --budget quick
    """
    settled = [
        api.prepare(
            one,
            split_arms(arms),
            train_on=train_on.value,
            seeds=seeds,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            eval_every=eval_every,
            target=target,
            device=device,
            level=level,
            min_effect=min_effect,
            budget=budget.value if budget else None,
            trials=trials,
            tuning_seeds=tuning_seeds,
            method=method,
            widen=widen,
            defaults=defaults,
            early_stopping=early_stopping,
            guard=guard,
            precision=precision.value,
        )
        for one in task
    ]
    folder = out or api.default_folder(*(planned for _, planned in settled))
    with RaceProgress(Console(stderr=True), quiet=quiet or as_json, races=len(task)) as progress:
        carry_out = (
            partial(api.run_several, settled) if len(settled) > 1 else partial(api.run, *settled[0])
        )
        carry_out(
            folder,
            fresh=fresh,
            observer=progress,
            timing=timing,
            engine=engine.value,
            command=shlex.join(["steepest", *sys.argv[1:]]),
        )
    show(api.load(folder), as_json=as_json)
