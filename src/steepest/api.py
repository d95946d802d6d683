"""The verbs in Python: race, resume, load.

>>> import steepest, tempfile
>>> from steepest import tasks
>>> result = steepest.race(
...     "mnist-logreg", ["sgd(lr=0.1)", "sgd(lr=0.0001)"], seeds=2, steps=20,
...     out=tempfile.mkdtemp(), timing=0,
... )
>>> result.ranking[0].label
'sgd(lr=0.1)'
>>> result.verdict.pairs[0].decision        # two seeds decide nothing
'undecided'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from steepest import tasks
from steepest.errors import InputError, LedgerError
from steepest.racing.engine import EngineName, check_engine
from steepest.racing.extend import extend
from steepest.racing.folder import open_race, reopen
from steepest.racing.observer import stopped
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import Observer, Outcome, Pace, StoppedError, execute
from steepest.racing.several import Several, is_several, open_several, places
from steepest.racing.spec import Plan
from steepest.reporting.html import write_html
from steepest.reporting.several import write_several_html
from steepest.train.guard import GuardRule
from steepest.train.precision import FLOAT32, PrecisionName
from steepest.train.stopping import StopRule
from steepest.train.task import Task

__all__ = [
    "MultiResult",
    "RaceResult",
    "load",
    "prepare",
    "race",
    "resume",
]


class RaceResult(Result):
    """What came out of a race, read from its folder; with the way to look at it.

    Everything of `steepest.racing.result.Result`, and `report`, which that layer cannot have:
    a result knows nothing of the pages that show it.
    """

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report: one HTML file that needs no network.

        Args:
            path: Where to; default: ``report.html`` in the race's folder.

        Returns:
            The file that was written.
        """
        return write_html(self, self.folder / "report.html" if path is None else path)


class MultiResult(Several):
    """What came out of a race over several tasks: a `RaceResult` per task, and their aggregates.

    ``results["mnist-mlp"]``, or ``self["mnist-mlp"]``, is one task's result, with everything that
    the result of a race over one task has. See `steepest.racing.several.Several`.
    """

    results: dict[str, RaceResult]  # type: ignore[assignment]  # as `_read` makes them

    def _read(self, path: Path) -> RaceResult:
        return RaceResult(path)

    def __getitem__(self, task: str) -> RaceResult:
        """The result of one task."""
        super().__getitem__(task)  # names the tasks if there is no such one
        return self.results[task]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report over all tasks, and one for each task beside its ledger.

        Args:
            path: Where the one over all tasks goes; default: ``report.html`` in the folder.

        Returns:
            The report over all tasks.
        """
        for result in self.results.values():
            result.report()
        return write_several_html(self, self.folder / "report.html" if path is None else path)


def prepare(
    task: str | Task,
    arms: Iterable[Any] | Mapping[str, Any],
    *,
    train_on: Literal["train", "all"] = "train",
    **settings: Any,
) -> tuple[Task, Plan]:
    """Settle what a race will do, without doing any of it; the arguments are those of `race`."""
    loaded = tasks.load(task, train_on=train_on)
    spec = task if isinstance(task, str) else None
    return loaded, plan(loaded, arms, train_on=train_on, task_spec=spec, **settings)


def default_folder(*planned: Plan) -> Path:
    """Where a race lies if nobody says where: named by its tasks and by what was asked for.

    The same race asked for again finds what is done already; another one never collides with it.
    """
    asked = "\n".join(map(_asked, planned))
    name = "+".join(each.spec.task for each in planned)[:80]
    return Path("runs") / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def _asked(planned: Plan) -> str:
    options = "(" in (planned.task_spec or "")  # a ready-made task with options
    spec = planned.spec.to_dict()
    if spec["precision"] == FLOAT32:  # folders keep the names that they had before one could ask
        del spec["precision"]
    return json.dumps(spec, sort_keys=True) + str(planned.task_spec) * options


class RaceSettings(TypedDict, total=False):
    """The settings of `race`, for type checkers: what it returns depends on the task alone."""

    seeds: int | Sequence[int] | None
    epochs: float | None
    steps: int | None
    batch_size: int | None
    eval_every: int | None
    target: str | float | None
    out: str | Path | None
    device: str
    train_on: Literal["train", "all"]
    level: float
    min_effect: float
    budget: Literal["quick", "standard", "thorough"] | None
    trials: int | None
    tuning_seeds: int | None
    method: str | None
    widen: int | None
    defaults: bool
    early_stopping: StopRule | str | None
    guard: GuardRule | str | None
    precision: PrecisionName
    timing: float
    engine: EngineName
    fresh: bool
    observer: Observer | None


@overload
def race(
    task: str | Task, arms: Iterable[Any] | Mapping[str, Any], **settings: Unpack[RaceSettings]
) -> RaceResult: ...


@overload
def race(
    task: list[Any] | tuple[Any, ...],
    arms: Iterable[Any] | Mapping[str, Any],
    **settings: Unpack[RaceSettings],
) -> MultiResult: ...


def race(
    task: str | Task | list[Any] | tuple[Any, ...],
    arms: Iterable[Any] | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    target: str | float | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    train_on: Literal["train", "all"] = "train",
    level: float = 0.95,
    min_effect: float = 0.0,
    budget: Literal["quick", "standard", "thorough"] | None = None,
    trials: int | None = None,
    tuning_seeds: int | None = None,
    method: str | None = None,
    widen: int | None = None,
    defaults: bool = False,
    early_stopping: StopRule | str | None = None,
    guard: GuardRule | str | None = None,
    precision: PrecisionName = "float32",
    timing: float = 6.0,
    engine: EngineName = "auto",
    fresh: bool = False,
    observer: Observer | None = None,
) -> RaceResult | MultiResult:
    """Race optimizers on a task: same start, same batches, same noise, many seeds, one verdict.

    A race that was begun in the same folder goes on where it stopped; a finished one is read.

    Args:
        task: A `Task`; the name of a ready-made one, with its options if it takes some
            (``"text(data=ads.xlsx)"``); or ``"my_task.py:task"``. A list of them is raced one
            after the other with the same settings, and gives a `MultiResult`.
        arms: Texts such as ``"adam(lr=1e-3)"``; or a mapping from labels to texts, optimizer
            classes, or functions that take the parameters and return a `torch.optim.Optimizer`.
            ``"adam"`` and ``"adam(lr=1e-4..1e-1)"`` are tuned first, all under the same budget.
        seeds: Of the final stage: how many, or which; default: 6, or the budget's, or as many as
            so many arms need for anything to be decided.
        epochs: Length of every run in passes over the training data; default 1.
        steps: The same in steps; give one of the two.
        batch_size: Default: the task's.
        eval_every: Steps between two evaluations; default: one epoch.
        target: For time-to-target on the validation data: ``0.98`` of the task's first metric, or
            ``"accuracy=0.98"``.
        out: The race's folder; default: one under ``runs/`` that is named by what was asked for.
        device: ``"cpu"`` or ``"cuda"``.
        train_on: ``"all"`` trains on the validation data too.
        level: Confidence of all decisions together.
        min_effect: The smallest difference that matters, in the metric's units.
        budget: What each tuned arm may spend: ``"quick"``, ``"standard"`` (the default) or
            ``"thorough"``; see `steepest.tune.BUDGETS`.
        trials: Settings that are tried of each tuned arm, instead of the budget's number.
        tuning_seeds: Runs of each setting, instead of the budget's number.
        method: How settings are proposed: ``"sobol"`` (the default), ``"random"``, ``"grid"``,
            ``"halving"``, or a sampler of Optuna such as ``"optuna:tpe"``.
        widen: How often all spaces may be widened and searched again, where the best setting of
            an arm lies at an end of its space; default: never, but the verdict warns.
        defaults: Run the defaults of the tuned arms beside them, to see what tuning bought.
        early_stopping: ``"val_loss, patience=5"``: a run ends when that has not improved for so
            many evaluations, with the weights of its best one; those are tested. See
            `steepest.EarlyStopping`.
        guard: ``"factor=10, steps=20"`` or ``"threshold=100"``: a run whose loss is that high
            counts as diverged. See `steepest.DivergenceGuard`.
        precision: What the runs compute in, whatever the process has set: ``"float32"``,
            ``"tf32"`` (CUDA's matrix units), or ``"bf16"`` (autocast; weights and the optimizer's
            state stay float32). Another precision is another race.
        timing: Seconds for measuring what a step costs, arms alternating; 0 leaves it out.
        engine: How the runs are carried out: ``"population"`` (many at once, as one batched
            computation), ``"processes"``, ``"solo"`` (one after the other), or ``"auto"``: the
            fastest by measurement. A race that was begun keeps its engine.
        fresh: Delete a race that lies in ``out`` and begin again.
        observer: Who wants to see how far it is.

    Returns:
        The result. Runs that failed are in it, with their messages among its events.

    Raises:
        InputError: Before anything is trained, for everything that can be known by then.
        LedgerError: If ``out`` holds another race or cannot be written.
    """
    settled = [
        prepare(
            each,
            arms,
            seeds=seeds,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            eval_every=eval_every,
            target=target,
            device=device,
            train_on=train_on,
            level=level,
            min_effect=min_effect,
            budget=budget,
            trials=trials,
            tuning_seeds=tuning_seeds,
            method=method,
            widen=widen,
            defaults=defaults,
            early_stopping=early_stopping,
            guard=guard,
            precision=precision,
        )
        for each in (task if isinstance(task, list | tuple) else [task])
    ]
    folder = default_folder(*(planned for _, planned in settled)) if out is None else Path(out)
    if isinstance(task, list | tuple):
        run_several(settled, folder, fresh=fresh, observer=observer, timing=timing, engine=engine)
        return MultiResult(folder)
    loaded, planned = settled[0]
    run(loaded, planned, folder, fresh=fresh, observer=observer, timing=timing, engine=engine)
    return RaceResult(folder)


def run(
    task: Task,
    planned: Plan,
    folder: Path,
    *,
    fresh: bool = False,
    observer: Observer | None = None,
    timing: float = 6.0,
    engine: EngineName = "auto",
    command: str = "",
) -> Outcome:
    """Carry out a settled race in a folder; its protocol names ``command`` as what repeats it."""
    check_engine(engine)
    if is_several(folder):
        raise LedgerError(f"{folder} holds races over several tasks; use another --out")
    with open_race(folder, planned, fresh=fresh, command=command) as ledger:
        return execute(
            ledger, planned, task, observer=observer, pace=Pace(timing=timing), engine=engine
        )


def run_several(
    settled: Sequence[tuple[Task, Plan]],
    folder: Path,
    *,
    fresh: bool = False,
    observer: Observer | None = None,
    timing: float = 6.0,
    engine: EngineName = "auto",
    command: str = "",
) -> None:
    """Carry out settled races over several tasks, one after the other, in one folder.

    All of them are planned in the folder before the first one starts, so that whatever happens,
    all can be resumed.

    Raises:
        InputError: If there is no task, or two have one name.
        StoppedError: After Ctrl-C; it names the folder of all of them.
    """
    check_engine(engine)
    if not settled:
        raise InputError("a race needs at least one task, got none")
    plans = [planned for _, planned in settled]
    inside = open_several(folder, plans, fresh=fresh, command=command)
    try:
        for loaded, planned in settled:
            run(
                loaded,
                planned,
                inside[planned.spec.task],
                observer=observer,
                timing=timing,
                engine=engine,
                command=command,
            )
    except StoppedError as error:
        raise stopped(folder) from error


def resume(
    folder: str | Path,
    *,
    seeds: str | int | None = None,
    task: Task | Sequence[Task] | None = None,
    observer: Observer | None = None,
) -> RaceResult | MultiResult:
    """Go on with a race that was interrupted; the outcome is bitwise that of an uninterrupted one.

    Adding seeds is another look at the race, and the error rate is spent look by look (see
    `steepest.stats.decide_looks`), so that ``level`` holds for all verdicts together, however
    often seeds are added and for whatever reason.

    Args:
        folder: The race's folder, or that of races over several tasks.
        seeds: ``"+10"`` or 10: so many fresh seeds more for the final stage.
        task: The task, or tasks, if given as objects; otherwise they are found by their names.
        observer: Who wants to see how far it is.

    Raises:
        LedgerError: If there is no race, or its task or an arm's code has changed since.
    """
    if is_several(folder):
        given = [task] if isinstance(task, Task) else task or ()
        by_name = {each.name: each for each in given}
        for name, path in places(folder).items() if seeds is not None else ():
            ledger, planned, _ = reopen(path, by_name.get(name))
            with ledger:  # all of them, before anything can be interrupted
                extend(ledger, planned.spec, seeds)
        try:
            for name, path in places(folder).items():
                resume(path, task=by_name.get(name), observer=observer)
        except StoppedError as error:
            raise stopped(Path(folder)) from error
        return MultiResult(folder)
    if task is not None and not isinstance(task, Task):
        raise InputError(f"{folder} holds a race over one task; give that task, not a list")
    ledger, planned, found = reopen(folder, task)
    with ledger:
        if seeds is not None:
            extend(ledger, planned.spec, seeds)
        execute(ledger, planned, found, observer=observer, engine="auto")
    return RaceResult(folder)


def load(folder: str | Path) -> RaceResult | MultiResult:
    """The result in a race's folder, finished or not; nothing is trained and no task is loaded.

    The folder of a race over several tasks gives a `MultiResult`.

    Raises:
        LedgerError: If there is no race in the folder.
    """
    return MultiResult(folder) if is_several(folder) else RaceResult(folder)
