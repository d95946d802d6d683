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
from typing import Any, Literal

from steepest import tasks
from steepest.racing.engine import EngineName, check_engine
from steepest.racing.folder import open_race, reopen
from steepest.racing.plan import Plan, plan
from steepest.racing.result import Result
from steepest.racing.run import Observer, Outcome, Pace, execute
from steepest.reporting.html import write_html
from steepest.train.task import Task

__all__ = ["RaceResult", "load", "prepare", "race", "resume"]


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


def default_folder(planned: Plan) -> Path:
    """Where a race lies if nobody says where: named by its task and by what was asked for.

    The same race asked for again finds what is done already; another one never collides with it.
    """
    asked = json.dumps(planned.spec.to_dict(), sort_keys=True)
    if "(" in (planned.task_spec or ""):  # a ready-made task with options
        asked += str(planned.task_spec)
    return Path("runs") / f"{planned.spec.task}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"


def race(
    task: str | Task,
    arms: Iterable[Any] | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] = 6,
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
    timing: float = 6.0,
    engine: EngineName = "auto",
    fresh: bool = False,
    observer: Observer | None = None,
) -> RaceResult:
    """Race optimizers on a task: same start, same batches, same noise, many seeds, one verdict.

    A race that was begun in the same folder goes on where it stopped; a finished one is read.

    Args:
        task: A `Task`; the name of a ready-made one, with its options if it takes some
            (``"text(data=ads.xlsx)"``); or ``"my_task.py:task"``.
        arms: Texts such as ``"adam(lr=1e-3)"``; or a mapping from labels to texts, optimizer
            classes, or functions that take the parameters and return a `torch.optim.Optimizer`.
        seeds: How many, or which.
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
    loaded, planned = prepare(
        task,
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
    )
    folder = default_folder(planned) if out is None else Path(out)
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
    with open_race(folder, planned, fresh=fresh, command=command) as ledger:
        return execute(
            ledger, planned, task, observer=observer, pace=Pace(timing=timing), engine=engine
        )


def resume(
    folder: str | Path, *, task: Task | None = None, observer: Observer | None = None
) -> RaceResult:
    """Go on with a race that was interrupted; the outcome is bitwise that of an uninterrupted one.

    Args:
        folder: The race's folder.
        task: The task, if it was given as an object; otherwise it is found by its name.
        observer: Who wants to see how far it is.

    Raises:
        LedgerError: If there is no race, or its task or an arm's code has changed since.
    """
    ledger, planned, found = reopen(folder, task)
    with ledger:
        execute(ledger, planned, found, observer=observer, engine="auto")
    return RaceResult(folder)


def load(folder: str | Path) -> RaceResult:
    """The result in a race's folder, finished or not; nothing is trained and no task is loaded.

    Raises:
        LedgerError: If there is no race in the folder.
    """
    return RaceResult(folder)
