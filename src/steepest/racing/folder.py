"""A race's folder: what lies in it, starting it, and finding it again.

DIR/ledger.sqlite    everything that was planned, measured and decided
DIR/checkpoints/     where unfinished runs go on
DIR/weights/         start weights of every seed, final weights of every run
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steepest import tasks
from steepest.errors import LedgerError
from steepest.racing.arm import check_source
from steepest.racing.database import FILE, JOURNAL, locked, now
from steepest.racing.environment import environment
from steepest.racing.ledger import Ledger
from steepest.racing.plan import plan_again
from steepest.racing.records import PlannedRun
from steepest.racing.spec import Plan
from steepest.train.precision import FLOAT32
from steepest.train.task import Task

__all__ = ["CHECKPOINTS", "WEIGHTS", "delete_race", "open_race", "reopen", "sweep"]

CHECKPOINTS = "checkpoints"
WEIGHTS = "weights"


def open_race(folder: str | Path, plan: Plan, *, fresh: bool = False, command: str = "") -> Ledger:
    """The ledger for a plan: a new one, or the one that lies there if it holds the same race.

    Args:
        folder: Made if it does not exist.
        plan: What is to be done.
        fresh: Delete a race that lies there and begin again.
        command: What reproduces the race, for its protocol.

    Raises:
        LedgerError: If another race lies there, the folder cannot be written, or another process
            is writing it.
    """
    folder = Path(folder)
    if (folder / JOURNAL).exists():
        raise LedgerError(
            f"{folder} is the folder of a study or a sweep; use another --out for a race"
        )
    if fresh and folder.is_dir():
        delete_race(folder)
    if (folder / FILE).exists():
        ledger = Ledger.write(folder)
        try:
            _check_same(ledger, plan)
        except BaseException:
            ledger.close()
            raise
        return ledger
    return Ledger.create(
        folder,
        meta={
            "spec": plan.spec.to_dict(),
            "fingerprint": dict(plan.fingerprint),
            "task_spec": plan.task_spec,
            "command": command,
            "created": now(),
            "environment": environment(plan.spec.device),
            **plan.facts,
        },
        arms=[arm.settings() for arm in plan.spec.arms],
        trials=plan.trials,
        runs=[
            PlannedRun(r.run_id, r.trial_id, r.stage, r.seed, r.steps, r.rung, r.wave)
            for r in plan.runs
        ],
    )


def reopen(folder: str | Path, task: Task | None = None) -> tuple[Ledger, Plan, Task]:
    """A race that was begun, ready to go on.

    Args:
        folder: Its folder.
        task: The task, if it is at hand; otherwise it is found by the name that was raced.

    Raises:
        LedgerError: If there is no race, another process is writing it, or the task or an arm's
            code has changed since it began.
    """
    ledger = Ledger.write(folder)
    try:
        meta = ledger.meta()
        if "driver" in meta:
            raise LedgerError(  # noqa: TRY301
                f"the run in {folder} belongs to {meta['driver']}: go on with it there, from its "
                "last checkpoint"
            )
        if task is None:
            if meta["task_spec"] is None:
                raise LedgerError(  # noqa: TRY301
                    f"the task '{meta['spec']['task']}' was given as a Python object, so it cannot "
                    "be found by name; go on from Python: call steepest.race with the same "
                    "arguments and the same out"
                )
            task = tasks.load(meta["task_spec"], train_on=meta["spec"]["train_on"])
        return ledger, plan_again(task, ledger), task
    except BaseException:
        ledger.close()
        raise


def sweep(ledger: Ledger) -> None:
    """Make the subfolders, and delete files that a killed process left and nothing refers to."""
    known = {stored.path for stored in ledger.stored()}
    for name in (CHECKPOINTS, WEIGHTS):
        inside = ledger.folder / name
        inside.mkdir(exist_ok=True)
        for path in inside.iterdir():
            if path.is_file() and f"{name}/{path.name}" not in known:
                path.unlink()


def delete_race(folder: Path) -> None:
    """Delete the race in a folder, and nothing else that lies there."""
    with locked(folder):
        if (folder / FILE).exists():
            Ledger.read(folder).close()  # never delete a file that is not ours
        for name in (CHECKPOINTS, WEIGHTS):
            shutil.rmtree(folder / name, ignore_errors=True)
        for suffix in ("-wal", "-shm", ""):
            (folder / f"{FILE}{suffix}").unlink(missing_ok=True)


def _check_same(ledger: Ledger, plan: Plan) -> None:
    meta = ledger.meta()
    there = {"precision": FLOAT32, **meta["spec"]}  # older ledgers do not say
    differences = _differences(there, plan.spec.to_dict())
    differences += _differences(meta["fingerprint"], plan.fingerprint, hashes="the task's ")
    if differences:
        raise LedgerError(
            f"{ledger.folder} holds another race: {'; '.join(differences)}. Use another --out, "
            "or --fresh to delete that race and begin again"
        )
    found = {arm["label"]: arm for arm in ledger.arms()}
    for arm in plan.spec.arms:
        check_source(arm, found[arm.label])


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any], *, hashes: str = ""
) -> list[str]:
    found = []
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key), here.get(key)
        if old == new:
            continue
        if hashes:
            found.append(f"{hashes}{key.replace('_', ' ')} differs")
        else:
            found.append(f"{key} is {_shown(old)} there and {_shown(new)} here")
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}" if k == v else f"{k}: {v}" for k, v in value.items()) + "}"
    return f"{value}"
