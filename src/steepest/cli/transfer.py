"""``steepest transfer``: is what a model learnt elsewhere worth anything here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steepest import studying
from steepest.cli.studies import FRESH, JSON, QUIET, StudyProgress, show_study, typed
from steepest.cli.task_options import takes_task_options
from steepest.errors import InputError

__all__ = ["transfer"]


@takes_task_options
def transfer(
    task: Annotated[
        str, typer.Argument(help="A ready-made task (steepest tasks), or my_task.py:task.")
    ],
    arm: Annotated[str, typer.Option("--arm", help="What trains it, quoted: 'adam(lr=1e-3)'.")],
    weights: Annotated[
        Path | None, typer.Option(help="Of the backbone: .safetensors, or written by torch.save.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Or a task with the same backbone, to train on first.")
    ] = None,
    source_epochs: Annotated[float, typer.Option(help="For how long.")] = 1.0,
    head: Annotated[
        str | None, typer.Option(help="Name of the head. Default: the last linear layer.")
    ] = None,
    amounts: Annotated[
        str, typer.Option(help="How many labelled examples, separated by commas.")
    ] = "100,1000",
    least: Annotated[
        float, typer.Option(help="The part of the learning rate that the first layers have.")
    ] = 0.1,
    train_norm: Annotated[
        bool, typer.Option("--train-norm", help="Let fine-tuning change batch norm.")
    ] = False,
    scratch_arm: Annotated[
        str | None, typer.Option(help="Another arm for training from scratch.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 10,
    steps: Annotated[int, typer.Option(help="Of every training.")] = 300,
    batch_size: Annotated[int | None, typer.Option(help="Default: the task's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder. Default: named by task and settings.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    level: Annotated[float, typer.Option(help="Confidence of all comparisons together.")] = 0.95,
    fresh: Annotated[bool, FRESH] = False,
    as_json: Annotated[bool, JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Train from scratch, on frozen features, and fine-tuned, with little and with more data.

    Repeating the command goes on where it stopped; a finished study is only shown.

    Example: steepest transfer my_task.py:task --weights net.pth --head fc --arm 'adam(lr=1e-3)'
    """
    with StudyProgress(quiet=quiet or as_json) as progress:
        study = studying.transfer(
            task,
            arm,
            weights=weights,
            source=source,
            source_epochs=source_epochs,
            head=head,
            amounts=_amounts(amounts),
            least=least,
            freeze_norm=not train_norm,
            scratch_arm=scratch_arm,
            seeds=seeds,
            steps=steps,
            batch_size=batch_size,
            out=out,
            device=device,
            level=level,
            fresh=fresh,
            watcher=progress,
            command=typed(),
        )
    show_study(study, as_json=as_json)


def _amounts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(" ", "").split(",") if part]
    except ValueError:
        raise InputError(
            f"--amounts takes numbers of examples separated by commas, such as 100,1000; got "
            f"'{text}'"
        ) from None
