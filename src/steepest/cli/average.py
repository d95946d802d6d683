"""``steepest average``: are averaged weights better than those that training ends with?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from steepest import studying
from steepest.cli.race import TrainOn
from steepest.cli.studies import FRESH, JSON, QUIET, StudyProgress, show_study, typed
from steepest.cli.task_options import takes_task_options

__all__ = ["average"]


class MethodName(StrEnum):
    """How weights are averaged."""

    ema = "ema"
    swa = "swa"
    polyak = "polyak"


@takes_task_options
def average(
    task: Annotated[
        str, typer.Argument(help="A ready-made task (steepest tasks), or my_task.py:task.")
    ],
    arm: Annotated[
        str, typer.Option("--arm", help="What trains it, quoted: 'sgd(lr=0.1) + cosine()'.")
    ],
    method: Annotated[
        list[MethodName] | None,
        typer.Option(help="ema, swa or polyak; may be repeated. Default: all three."),
    ] = None,
    decay: Annotated[float, typer.Option(help="Of the EMA, per step.")] = 0.999,
    start: Annotated[
        float, typer.Option(help="The part of the run before polyak and swa begin.")
    ] = 0.5,
    every: Annotated[
        int | None,
        typer.Option(help="Steps between what swa counts in. Default: an epoch, or less."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 10,
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
    """Average the weights that training passes through, and compare with its last ones.

    Repeating the command goes on where it stopped; a finished study is only shown.

    Example: steepest average mnist-mlp --arm 'sgd(lr=0.1)' --method polyak --seeds 10
    """
    with StudyProgress(quiet=quiet or as_json) as progress:
        study = studying.average(
            task,
            arm,
            method=[m.value for m in method] if method else ("ema", "polyak", "swa"),
            decay=decay,
            start=start,
            every=every,
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
            command=typed(),
        )
    show_study(study, as_json=as_json)
