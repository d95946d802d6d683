"""The verb `search` in Python: a race with one arm, looked at as a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from steepest.api import RaceResult, default_folder, prepare, run
from steepest.errors import InputError
from steepest.racing.arm import resolve
from steepest.racing.engine import EngineName
from steepest.racing.observer import Observer
from steepest.racing.searched import Searched, searched
from steepest.racing.spec import Plan
from steepest.train.precision import PrecisionName
from steepest.train.task import Task

__all__ = ["SearchResult", "prepare_search", "search"]


class SearchResult(RaceResult):
    """What came out of a search: the result of a race with one arm, looked at as a search.

    ``trials`` are the settings that were tried, ``ranking[0]`` has the final metric of the best
    one with its interval over fresh seeds.
    """

    @property
    def best(self) -> dict[str, Any]:
        """The values of the setting that was chosen; empty as long as none is."""
        return dict(self.arms[0].setting)

    @property
    def best_text(self) -> str:
        """The arm at that setting, as `race` and the command line take it."""
        return self.arms[0].written(self.best)

    @cached_property
    def search(self) -> Searched:
        """Which hyperparameters matter, and what other methods would have seen of them."""
        return searched(self)


def prepare_search(
    task: str | Task,
    arm: Any,
    *,
    seeds: int | Sequence[int] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    device: str = "cpu",
    precision: PrecisionName = "float32",
    level: float = 0.95,
    budget: Literal["quick", "standard", "thorough"] | None = None,
    trials: int | None = None,
    tuning_seeds: int | None = None,
    method: str | None = None,
    widen: int | None = None,
) -> tuple[Task, Plan]:
    """Settle what a search will do, without doing any of it; the arguments are those of `search`.

    Raises:
        InputError: If it is not one arm, or there is nothing to search in it.
    """
    if isinstance(arm, Mapping | list | tuple):
        raise InputError(
            f"a search is about one arm, got {len(arm)}; steepest.race tunes several and compares "
            "them"
        )
    chosen = resolve([arm])
    if chosen[0].space is None:
        raise InputError(
            f"there is nothing to search: '{chosen[0].label}' is one setting; write a bare name "
            "(adamw), which has a preset space, or ranges (adamw(lr=1e-4..1e-1))"
        )
    return prepare(
        task,
        chosen,
        seeds=seeds,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        eval_every=eval_every,
        device=device,
        precision=precision,
        level=level,
        budget=budget,
        trials=trials,
        tuning_seeds=tuning_seeds,
        method=method,
        widen=widen,
    )


def search(
    task: str | Task,
    arm: Any,
    *,
    method: str | None = None,
    trials: int | None = None,
    budget: Literal["quick", "standard", "thorough"] | None = None,
    seeds: int | Sequence[int] | None = None,
    tuning_seeds: int | None = None,
    widen: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    device: str = "cpu",
    precision: PrecisionName = "float32",
    level: float = 0.95,
    out: str | Path | None = None,
    fresh: bool = False,
    engine: EngineName = "auto",
    observer: Observer | None = None,
) -> SearchResult:
    """Search an optimizer's hyperparameters on a task, and run the best setting on fresh seeds.

    It is a race with one arm: settings are compared on the validation data and tuning seeds, the
    best one is then trained on the seeds of the final stage, and only there is test data read.
    The same call goes on where it stopped, and finds a finished search again.

    Args:
        task: A `Task`; the name of a ready-made one; or ``"my_task.py:task"``.
        arm: ``"adamw"`` for the preset space of a rule (see `steepest.tune.preset`), or ranges and
            choices: ``"adamw(lr=1e-4..1e-1, amsgrad={true, false}) + cosine()"``.
        method: ``"sobol"`` (the default), ``"random"``, ``"grid"``, ``"halving"``, or a sampler of
            Optuna such as ``"optuna:tpe"``.
        trials: Settings that are tried; default: the budget's.
        budget: ``"quick"``, ``"standard"`` (the default) or ``"thorough"``.
        seeds: Of the best setting: how many, or which; default: the budget's.
        tuning_seeds: Runs of each setting; default: the budget's.
        widen: How often the space may be widened and searched again, where the best setting lies
            at an end of it; default: never.
        epochs: Length of every run in passes over the training data; default 1.
        steps: The same in steps; give one of the two.
        batch_size: Default: the task's.
        eval_every: Steps between two evaluations; default: one epoch.
        device: ``"cpu"`` or ``"cuda"``.
        precision: What the runs compute in, as in `steepest.race`.
        level: Of all intervals.
        out: The folder; default: one under ``runs/`` that is named by what was asked for.
        fresh: Delete a race that lies in ``out`` and begin again.
        engine: How the runs are carried out, as in `steepest.race`.
        observer: Who wants to see how far it is.

    Raises:
        InputError: If there is nothing to search, the task has no validation data to choose by,
            or a number or name is wrong.
        LedgerError: If ``out`` holds another race or cannot be written.

    >>> import steepest, tempfile
    >>> found = steepest.search(
    ...     "mnist-logreg", "sgd(lr=1e-4..1.0)", trials=8, seeds=2, steps=20,
    ...     out=tempfile.mkdtemp(),
    ... )
    >>> len(found.trials), 0.01 < found.best["lr"] <= 1.0, found.search.focus
    (8, True, 'lr')
    """
    loaded, planned = prepare_search(
        task,
        arm,
        seeds=seeds,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        eval_every=eval_every,
        device=device,
        precision=precision,
        level=level,
        budget=budget,
        trials=trials,
        tuning_seeds=tuning_seeds,
        method=method,
        widen=widen,
    )
    folder = default_folder(planned) if out is None else Path(out)
    run(loaded, planned, folder, fresh=fresh, observer=observer, timing=0.0, engine=engine)
    return SearchResult(folder)
