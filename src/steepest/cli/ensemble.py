"""``steepest ensemble``: are several models together better than the best of them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest import studying
from steepest.cli.progress import RaceProgress
from steepest.cli.race import TrainOn
from steepest.cli.studies import FRESH, JSON, QUIET, StudyProgress, show_study, typed
from steepest.cli.task_options import takes_task_options

__all__ = ["ensemble"]


@takes_task_options
def ensemble(
    task: Annotated[
        str, typer.Argument(help="A ready-made task (steepest tasks), or my_task.py:task.")
    ],
    arm: Annotated[str, typer.Option("--arm", help="What trains it, quoted: 'sgd(lr=0.1)'.")],
    members: Annotated[
        int | None, typer.Option(help="Independent runs in every ensemble; or --snapshots.")
    ] = None,
    snapshots: Annotated[
        int | None, typer.Option(help="Cycles of one run, each of which gives a member.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(help="How many of the last snapshots are used. Default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many ensembles.")] = 10,
    epochs: Annotated[float | None, typer.Option(help="Length of a run. Default: 1.")] = None,
    steps: Annotated[int | None, typer.Option(help="The same in steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder. Default: named by task and settings.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    train_on: Annotated[
        TrainOn, typer.Option(help="all: train on the validation data too.")
    ] = TrainOn.train,
    level: Annotated[float, typer.Option(help="Confidence of all comparisons together.")] = 0.95,
    fresh: Annotated[bool, FRESH] = False,
    as_json: Annotated[bool, JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Let several models answer together: the mean of their probabilities.

    Repeating the command goes on where it stopped; a finished study is only shown.

    Example: steepest ensemble mnist-mlp --arm 'sgd(lr=0.1)' --members 5 --seeds 10
    """
    silent = quiet or as_json
    with (
        StudyProgress(quiet=silent or snapshots is None) as progress,
        RaceProgress(Console(stderr=True), quiet=silent or snapshots is not None) as racing,
    ):
        study = studying.ensemble(
            task,
            arm,
            members=members,
            snapshots=snapshots,
            last=last,
            seeds=seeds,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            out=out,
            device=device,
            train_on=train_on.value,
            level=level,
            fresh=fresh,
            watcher=progress,
            observer=racing,
            command=typed(),
        )
    show_study(study, as_json=as_json)
