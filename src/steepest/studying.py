"""The verbs that make more of an optimizer's runs: average, ensemble, transfer.

>>> import steepest, tempfile
>>> study = steepest.average("mnist-logreg", "sgd(lr=0.5)", method="polyak", seeds=2, steps=40,
...                          out=tempfile.mkdtemp())
>>> [variant.label for variant in study.variants]
['the raw weights', 'the Polyak mean']
>>> study.contrasts[0].decision        # two seeds decide nothing
'undecided'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from steepest import tasks
from steepest.errors import InputError
from steepest.racing.arm import resolve
from steepest.racing.database import writable
from steepest.racing.folder import open_race
from steepest.racing.journal import forget
from steepest.racing.observer import Observer, Pace
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.reporting.studies import write_study_html
from steepest.studies.averaged import average_runs, read_methods
from steepest.studies.independent import (
    check_keeps_no_secrets,
    independent_ensembles,
    read_members,
    seeds_of_runs,
)
from steepest.studies.judging import check_is_classifier
from steepest.studies.setting import Setting, Watcher, settle
from steepest.studies.snapshots import snapshot_runs
from steepest.studies.study import Study
from steepest.studies.transferred import train_source, transfer_runs
from steepest.train import checkpoint
from steepest.train.averaging import Method
from steepest.train.checkpoint import RunState
from steepest.train.solo import model_state
from steepest.train.task import Task, build_model
from steepest.train.transfer import find_head, read_weights

__all__ = ["StudyResult", "average", "ensemble", "transfer"]

TrainOn = Literal["train", "all"]


class StudyResult(Study):
    """What came out of a study, read from its folder; with the way to look at it."""

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page: one HTML file that needs no network.

        Args:
            path: Where to; default: ``report.html`` in the study's folder.

        Returns:
            The file that was written.
        """
        return write_study_html(self, self.folder / "report.html" if path is None else path)


def average(
    task: str | Task,
    arm: Any,
    *,
    method: Method | Sequence[Method] = ("ema", "polyak", "swa"),
    decay: float = 0.999,
    start: float = 0.5,
    every: int | None = None,
    seeds: int | Sequence[int] = 10,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    train_on: TrainOn = "train",
    level: float = 0.95,
    fresh: bool = False,
    watcher: Watcher | None = None,
    command: str = "",
) -> StudyResult:
    """Average the weights that training passes through, and compare with those that it ends with.

    Every seed is trained once; all averages are kept beside it, so each has its own control. An
    interrupted study goes on when it is asked for again.

    Args:
        task: A `Task`, or the name of one as `race` takes it.
        arm: One arm, as `race` takes it; with fixed values.
        method: One or several of ``ema``, ``polyak``, ``swa``; see
            `steepest.train.averaging.WeightAverage` for what they are.
        decay: Of the EMA, per step.
        start: The part of the run that passes before ``polyak`` and ``swa`` begin.
        every: Steps between what ``swa`` counts in; default: an epoch, or a tenth of what is
            averaged over if that is less.
        seeds: How many, or which.
        epochs: Length of every run in passes over the training data; default 1.
        steps: The same in steps.
        batch_size: Default: the task's.
        out: The study's folder; default: one under ``runs/`` that is named by what was asked for.
        device: ``"cpu"`` or ``"cuda"``.
        train_on: ``"all"`` trains on the validation data too.
        level: Confidence of all comparisons together.
        fresh: Delete a study that lies in ``out`` and begin again.
        watcher: Who wants to see how far it is.
        command: What the page names as what repeats it.

    Raises:
        InputError: Before anything is trained, for everything that can be known by then.
        LedgerError: If ``out`` holds another study or cannot be written.
    """
    setting = _settled(
        task, arm, seeds=seeds, epochs=epochs, steps=steps, batch_size=batch_size, device=device,
        train_on=train_on, level=level,
    )  # fmt: skip
    methods = read_methods(method)
    asked = {"methods": methods, "decay": decay, "start": start, "every": every}
    folder = _folder(out, setting, "average", asked)
    average_runs(
        setting,
        folder,
        methods=methods,
        decay=decay,
        start=start,
        every=every,
        fresh=fresh,
        command=command,
        watcher=watcher,
    )
    return StudyResult(folder)


def ensemble(
    task: str | Task,
    arm: Any,
    *,
    members: int | None = None,
    snapshots: int | None = None,
    last: int | None = None,
    seeds: int = 10,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    train_on: TrainOn = "train",
    level: float = 0.95,
    fresh: bool = False,
    watcher: Watcher | None = None,
    observer: Observer | None = None,
    command: str = "",
) -> StudyResult:
    """Let several models answer together, and compare with the best of them.

    With ``members``: independent runs, raced over ``members`` x ``seeds`` seeds so that no run is
    in two ensembles. With ``snapshots``: the ends of the cycles of one run whose learning rate
    restarts, beside a run of the same length whose rate falls only once.

    Args:
        task: A `Task`, or the name of one as `race` takes it; its model must give scores of
            classes.
        arm: One arm, as `race` takes it; with fixed values.
        members: Runs in every ensemble.
        snapshots: Cycles of every run; give one of the two.
        last: How many of the last snapshots the ensemble has; default: all.
        seeds: How many ensembles.
        epochs: Length of every run in passes over the training data; default 1.
        steps: The same in steps.
        batch_size: Default: the task's.
        out: The study's folder; default: one under ``runs/`` that is named by what was asked for.
        device: ``"cpu"`` or ``"cuda"``.
        train_on: ``"all"`` trains on the validation data too.
        level: Confidence of all comparisons together.
        fresh: Delete a study that lies in ``out`` and begin again.
        watcher: Who wants to see how far it is.
        observer: Who wants to see how far the race of independent members is.
        command: What the page names as what repeats it.

    Raises:
        InputError: Before anything is trained, for everything that can be known by then.
        LedgerError: If ``out`` holds another study or cannot be written.
    """
    if (members is None) == (snapshots is None):
        raise InputError(
            "an ensemble is made of independent runs (members=5) or of one cyclic run "
            "(snapshots=5); give one of the two"
        )
    if last is not None and snapshots is None:
        raise InputError("last chooses among snapshots; with members, all are in the ensemble")
    setting = _settled(
        task, arm, seeds=seeds, epochs=epochs, steps=steps, batch_size=batch_size, device=device,
        train_on=train_on, level=level,
    )  # fmt: skip
    asked = {"members": members, "snapshots": snapshots, "last": last}
    folder = _folder(out, setting, "ensemble", asked)
    if snapshots is not None:
        snapshot_runs(
            setting,
            folder,
            snapshots=snapshots,
            last=last,
            fresh=fresh,
            command=command,
            watcher=watcher,
        )
        return StudyResult(folder)
    number = read_members(members)  # type: ignore[arg-type]
    if fresh:
        forget(folder)
    result = _race_members(
        setting, folder / "race", members=number, fresh=fresh, observer=observer, train_on=train_on,
        command=command,
    )  # fmt: skip
    independent_ensembles(setting, result, folder, members=number, command=command, watcher=watcher)
    return StudyResult(folder)


def transfer(
    task: str | Task,
    arm: Any,
    *,
    weights: str | Path | Mapping[str, Tensor] | nn.Module | None = None,
    source: str | Task | None = None,
    source_epochs: float = 1.0,
    head: str | None = None,
    amounts: Sequence[int] = (100, 1000),
    least: float = 0.1,
    freeze_norm: bool = True,
    scratch_arm: Any = None,
    seeds: int | Sequence[int] = 10,
    steps: int = 300,
    batch_size: int | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    level: float = 0.95,
    fresh: bool = False,
    watcher: Watcher | None = None,
    command: str = "",
) -> StudyResult:
    """Use what a model learnt elsewhere: from scratch, frozen and fine-tuned, side by side.

    The model of the task gets a fresh head. From scratch, all of it is trained from a random start;
    frozen, only the head is, on features that are computed once and kept; fine-tuned, it goes on
    from there with all layers, slower towards the input. The three ways of a seed see the same
    labelled examples in the same batches, and every seed has examples of its own.

    Args:
        task: A `Task`, or the name of one as `race` takes it; one class per example.
        arm: One arm, as `race` takes it; with fixed values.
        weights: Of the backbone: a ``.safetensors`` file or one of ``torch.save``, a state_dict, or
            a model.
        source: In place of weights: a task with the same backbone, on which they are trained first.
        source_epochs: For how long.
        head: Name of the head; default: the model's last linear layer.
        amounts: How many labelled examples.
        least: The part of the arm's rate that the first layers have; see
            `steepest.train.transfer.layer_rates`.
        freeze_norm: Keep batch norm as it is while fine-tuning.
        scratch_arm: Another arm for training from scratch, which may want another rate.
        seeds: How many, or which.
        steps: Of every training; fine-tuning follows as many of the head alone.
        batch_size: Default: the task's, or the amount of data if that is less.
        out: The study's folder; default: one under ``runs/`` that is named by what was asked for.
        device: ``"cpu"`` or ``"cuda"``.
        level: Confidence of all comparisons together.
        fresh: Delete a study that lies in ``out`` and begin again.
        watcher: Who wants to see how far it is.
        command: What the page names as what repeats it.

    Raises:
        InputError: Before anything is trained, for everything that can be known by then.
        LedgerError: If ``out`` holds another study or cannot be written.
    """
    if (weights is None) == (source is None):
        raise InputError(
            "transfer needs what another model learnt: weights=... (a file, a state_dict, a model) "
            "or source=... (a task to train on first); give one of the two"
        )
    setting = _settled(
        task, arm, seeds=seeds, epochs=None, steps=steps, batch_size=batch_size, device=device,
        train_on="train", level=level,
    )  # fmt: skip
    other = None if scratch_arm is None else resolve([scratch_arm])[0]
    asked = {
        "weights": str(weights) if isinstance(weights, (str, Path)) else None,
        "source": str(source), "head": head, "amounts": list(amounts), "least": least,
        "freeze_norm": freeze_norm, "scratch": other.text if other else None,
    }  # fmt: skip
    folder = _folder(out, setting, "transfer", asked)
    find_head(build_model(setting.task, setting.seeds[0]), head)
    if source is not None:
        given = _from_source(setting, source, folder, epochs=source_epochs, fresh=fresh)
    elif isinstance(weights, nn.Module):
        given = {name: tensor.detach() for name, tensor in model_state(weights)}
    elif isinstance(weights, Mapping):
        given = dict(weights)
    else:
        given = read_weights(weights)  # type: ignore[arg-type]
    transfer_runs(
        setting,
        folder,
        weights=given,
        head=head,
        amounts=amounts,
        least=least,
        freeze_norm=freeze_norm,
        scratch=other,
        fresh=fresh,
        command=command,
        watcher=watcher,
    )
    return StudyResult(folder)


def _from_source(
    setting: Setting, source: str | Task, folder: Path, *, epochs: float, fresh: bool
) -> dict[str, Tensor]:
    """The weights that a run on another task ends with, kept in the folder."""
    if not 0 < epochs < float("inf"):
        raise InputError(f"source_epochs must be a number > 0, got {epochs!r}")
    task = tasks.load(source)
    asked = [task.fingerprint(), setting.arm.text, setting.arm.source, epochs]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    path = writable(folder) / f"source-{digest}.safetensors"
    if fresh or not path.exists():
        found = train_source(task, setting.arm, epochs=epochs, device=setting.device)
        checkpoint.save(path, RunState(found, {}))
    return checkpoint.load(path).tensors


def _race_members(
    setting: Setting,
    folder: Path,
    *,
    members: int,
    fresh: bool,
    observer: Observer | None,
    train_on: TrainOn,
    command: str,
) -> Result:
    """All runs of all ensembles, as a race of one arm."""
    check_is_classifier(setting, build_model(setting.task, setting.seeds[0]).to(setting.device))
    check_keeps_no_secrets(setting)
    planned = plan(
        setting.task,
        [setting.arm],
        seeds=[seed for of in seeds_of_runs(len(setting.seeds), members) for seed in of],
        steps=setting.steps,
        batch_size=setting.batch_size,
        eval_every=setting.steps,
        device=setting.device,
        train_on=train_on,
        level=setting.level,
        task_spec=setting.task_spec,
    )
    with open_race(folder, planned, fresh=fresh, command=command) as ledger:
        pace = Pace(timing=0.0)
        execute(ledger, planned, setting.task, observer=observer, pace=pace, engine="auto")
    return Result(folder)


def _settled(task: str | Task, arm: Any, *, train_on: TrainOn, **settings: Any) -> Setting:
    loaded = tasks.load(task, train_on=train_on)
    named = task if isinstance(task, str) else None
    found = settle(loaded, arm, task_spec=named, **settings)
    return found if train_on == "train" else replace(found, watch=None)


def _folder(out: str | Path | None, setting: Setting, verb: str, asked: dict[str, Any]) -> Path:
    """The folder asked for, or one that is named by everything that was asked for."""
    if out is not None:
        return Path(out)
    text = json.dumps([setting.spec(verb), asked], sort_keys=True)
    name = f"{setting.task.name}-{verb}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return Path("runs") / name
