"""Ensembles of independent runs: the ends of a race's runs over seeds, some at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steepest.errors import InputError, UnsupportedError
from steepest.racing.journal import opened
from steepest.racing.ledger import Ledger
from steepest.racing.result import Result
from steepest.studies.judging import check_is_classifier, judge_members
from steepest.studies.measuring import fill, remeasure_batch_norm
from steepest.studies.setting import Setting, Silent, Watcher
from steepest.studies.study import Study, Variant, Wish, as_spec
from steepest.train import checkpoint
from steepest.train.batchnorm import batch_norms
from steepest.train.data import sample
from steepest.train.randomness import isolated
from steepest.train.task import build_model, call_model

__all__ = ["check_keeps_no_secrets", "independent_ensembles", "read_members", "seeds_of_runs"]


def read_members(members: int) -> int:
    """A number of members, if they make an ensemble."""
    given: object = members
    if isinstance(given, bool) or not isinstance(given, int) or given < 2:
        raise InputError(f"an ensemble needs at least 2 members, got {members!r}")
    return members


def seeds_of_runs(ensembles: int, members: int) -> list[tuple[int, ...]]:
    """The seeds of the members of every ensemble; no run is in two of them.

    >>> seeds_of_runs(2, 3)
    [(0, 1, 2), (3, 4, 5)]
    """
    return [tuple(range(i * members, (i + 1) * members)) for i in range(ensembles)]


def check_keeps_no_secrets(setting: Setting) -> None:
    """Raise `UnsupportedError` for a model whose training changes what a race does not keep.

    A race keeps the final parameters. Batch norm's statistics can be measured again; what else
    a model writes into its buffers cannot.
    """
    model = build_model(setting.task, setting.seeds[0])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    normed = tuple(f"{name}." if name else "" for name in batch_norms(model))
    with isolated(torch.device("cpu")), torch.no_grad():
        where = f"task '{setting.task.name}': train"
        call_model(model, sample(setting.task.train, 8, where=where)[0])
    for name, buffer in model.named_buffers():
        if not name.startswith(normed) and not torch.equal(buffer, before[name]):
            raise UnsupportedError(
                f"the model of task '{setting.task.name}' changes its buffer '{name}' while it is "
                "trained; a race keeps the parameters of its runs and measures batch norm again, "
                "but no other buffer, so its members cannot be put together again. Use --snapshots"
            )


def independent_ensembles(
    setting: Setting,
    result: Result,
    folder: str | Path,
    *,
    members: int,
    command: str = "",
    watcher: Watcher | None = None,
) -> Study:
    """Put the runs of a finished race together, ``members`` at a time.

    Args:
        setting: The task and the arm; its seeds count the ensembles.
        result: The race of this arm over the seeds of `seeds_of_runs`.
        folder: The study's folder.
        members: Of every ensemble.
        command: What repeats it.
        watcher: Who wants to see how far it is.
    """
    watcher = watcher or Silent()
    chosen = "validation data" if setting.watch else f"{setting.decides} data, in hindsight"
    variants = [
        Variant("ensemble", f"the ensemble of {members}", "mean of the members' probabilities"),
        Variant("best", "its best member", f"chosen on the {chosen}"),
        Variant("mean", "a single member", "mean over the members"),
        Variant("hindsight", "the best in hindsight", f"the member with the best {setting.decides}"
                " result, which nobody could have chosen"),
    ]  # fmt: skip
    wishes = [Wish("ensemble", other) for other in ("best", "mean", "hindsight")]
    spec = setting.spec("members", members=members, **as_spec(variants, wishes))
    runs = {run.seed: run for run in result.final_runs}
    groups = seeds_of_runs(len(setting.seeds), members)
    with opened(folder, spec, meta=setting.meta(command)) as journal:
        if batch_norms(build_model(setting.task, setting.seeds[0])):
            journal.tell(
                "batch_norm",
                "Batch norm's running statistics were measured again from the training data, since "
                "a race keeps the parameters of its runs: single members may differ from the "
                "race's own numbers in the last digits",
            )
        done = {row["seed"] for row in journal.rows}
        for number, seeds in zip(setting.seeds, groups, strict=True):
            if number in done:
                continue
            lost = [f"{s} ({runs[s].status})" for s in seeds if runs[s].status != "done"]
            if lost:
                row = {"seed": number, "status": "diverged", "values": {}, "lost": lost}
                journal.tell("lost", f"Ensemble {number} lacks the runs of seeds {', '.join(lost)}")
                journal.add(row)
                continue
            models = [_model(setting, result, seed) for seed in seeds]
            if number == setting.seeds[0]:
                check_is_classifier(setting, models[0])
            journal.add({"seed": number, "runs": list(seeds), **_row(setting, models)})
            watcher.advanced(len(journal.rows), len(groups), f"ensemble {number}")
    return Study(folder)


def _row(setting: Setting, models: list[nn.Module]) -> dict[str, Any]:
    found = judge_members(setting, models, last=len(models))
    best, single = found.pop("chosen"), found["single"]
    metric, higher = setting.task.primary
    decisive = single[f"{setting.decides}_{metric}"]
    hindsight = decisive.index(max(decisive) if higher else min(decisive))
    values: Mapping[str, Mapping[str, float]] = {
        "ensemble": found.pop("ensemble"),
        "best": {name: of[best] for name, of in single.items()},
        "mean": {name: sum(of) / len(of) for name, of in single.items()},
        "hindsight": {name: of[hindsight] for name, of in single.items()},
    }
    return {"status": "done", "values": values, "best": best, **found}


def _model(setting: Setting, result: Result, seed: int) -> nn.Module:
    """The model that a run ended with."""
    with Ledger.read(result.folder) as ledger:
        paths = [s.path for s in ledger.stored() if s.kind == "final" and s.seed == seed]
    saved = checkpoint.load(result.folder / paths[0])
    model = build_model(setting.task, seed).to(setting.device)
    fill(model, saved.tensors)
    if batch_norms(model):
        remeasure_batch_norm(
            setting.task, model, seed=seed, batch_size=setting.batch_size, device=setting.device
        )
    return model.eval()
