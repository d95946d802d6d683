"""A ledger of one run that somebody else's loop drives, read like that of a race.

A loop of another library calls `Logbook.took` after every step, `Logbook.lost` when it knows the
loss, `Logbook.measured` after every evaluation and `Logbook.commit` before it writes a checkpoint
of its own; ``steepest report`` and ``steepest diagnose`` then read its folder as they read a
race's. What the loop keeps (weights, the optimizer's state) stays with the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steepest.errors import LedgerError
from steepest.racing.database import FILE, now
from steepest.racing.environment import environment
from steepest.racing.folder import delete_race
from steepest.racing.ledger import Ledger
from steepest.racing.records import Evaluation, PlannedRun, Progress, Status
from steepest.racing.result import Result
from steepest.racing.spec import Measure
from steepest.values import write_value

__all__ = ["Logbook", "Outline", "arm_of"]

_RUN = "a0-s0"
_COMMIT_SECONDS = 5.0
_NOT_VALUES = frozenset({"params", "param_names", "initial_lr", "foreach", "fused", "capturable"})


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What is known of a run before its first step.

    Attributes:
        by: Who drives it, for messages: ``transformers' Trainer``.
        task: What it is called.
        steps: Its length.
        steps_per_epoch: Steps in a pass over the training data.
        batch_size: Examples per step.
        eval_every: Steps between two evaluations.
        decides: The number that says how good it is.
        seed: Of the loop.
        device: Where it is trained.
    """

    by: str
    task: str
    steps: int
    steps_per_epoch: int
    batch_size: int
    eval_every: int
    decides: Measure
    seed: int = 0
    device: str = "cpu"


class Logbook:
    """The open ledger of one run; make one with `begin`, and `end` it."""

    def __init__(self, ledger: Ledger, *, at: int) -> None:
        self._ledger = ledger
        self._at = at
        self._written = len(ledger.curve(_RUN, "train_loss"))
        self._losses: list[float] = []
        # The rates of steps whose loss was not known before the loop went on are not known either.
        self._rates: list[float] = [math.nan] * (at - self._written)
        self._evaluations: dict[tuple[int, str, str], Evaluation] = {}
        self._seconds = max(ledger.clock(_RUN).values(), default=0.0)
        self._last_commit = time.monotonic()
        self._diverged_at: int | None = None
        self._loss = math.nan

    @property
    def at(self) -> int:
        """Steps done."""
        return self._at

    @classmethod
    def begin(
        cls,
        folder: str | Path,
        outline: Outline,
        arm: Mapping[str, Any],
        *,
        at: int = 0,
        fresh: bool = False,
        start_hash: str = "",
    ) -> Logbook:
        """A new ledger, or the one that lies there, for a run that goes on from a checkpoint.

        Args:
            folder: Made if it does not exist.
            outline: What is known of the run.
            arm: Of `arm_of`.
            at: Steps that are done already; what the ledger has after them is forgotten.
            fresh: Delete a ledger that lies there; only for a run that begins.
            start_hash: Of the weights before the first step.

        Raises:
            LedgerError: If something else lies in the folder, or a run that begins finds one, or
                the ledger has not come as far as the checkpoint.
        """
        folder = Path(folder)
        if fresh and at == 0 and (folder / FILE).exists():
            delete_race(folder)
        if (folder / FILE).exists():
            ledger = Ledger.write(folder)
            try:
                _check_goes_on(ledger, outline, arm, at=at)
                ledger.rewind(_RUN, step=at)
            except BaseException:
                ledger.close()
                raise
            ledger.put_event("opened", f"resumed by {outline.by} at step {at}")
            return cls(ledger, at=at)
        if at:
            raise LedgerError(
                f"the run goes on from step {at}, and {folder} has no ledger of the steps before; "
                "give the folder in which it was begun, or begin again"
            )
        ledger = Ledger.create(
            folder,
            meta=_facts(outline, arm),
            arms=[arm],
            runs=[PlannedRun(_RUN, 0, "final", outline.seed, outline.steps)],
        )
        ledger.begin_run(_RUN, start_hash=start_hash)
        ledger.put_event("opened", f"begun by {outline.by}")
        return cls(ledger, at=0)

    def took(self, *, lr: float, seconds: float = 0.0) -> None:
        """One step was done.

        Args:
            lr: The learning rate of the first parameter group in it.
            seconds: What it took.
        """
        self._rates.append(lr)
        self._at += 1
        self._seconds += seconds

    def lost(self, loss: float) -> None:
        """The loss of the last step, or the mean loss of all steps since it was told before."""
        since = len(self._rates) - len(self._losses)
        if since and not math.isfinite(loss) and self._diverged_at is None:
            self._diverged_at = self._at - since + 1
        self._losses += [loss] * since
        self._loss = loss
        if time.monotonic() - self._last_commit > _COMMIT_SECONDS:
            self.commit()

    def measured(self, split: str, numbers: Mapping[str, float]) -> None:
        """An evaluation after the steps so far; the same one again takes the earlier one's place.

        Args:
            split: ``train``, ``val`` or ``test``.
            numbers: By name of the metric; the loss is called ``loss``.
        """
        for name, value in numbers.items():
            self._evaluations[self._at, split, name] = Evaluation(
                self._at, split, name, float(value)
            )

    def commit(self) -> None:
        """Write what was done; before each checkpoint of the loop, so that none is ahead."""
        self._commit("running")

    def end(self, *, message: str | None = None) -> None:
        """The run is over, and the file is closed.

        Args:
            message: Why it failed; None: it came to its end.
        """
        with self._ledger:
            if message is not None:
                self._commit("failed", message=message)
                return
            decides = self._ledger.meta()["spec"]["decides"]
            if decides["split"] == "train":
                self.measured("train", {"loss": self._loss})
            self._commit("done" if self._diverged_at is None else "diverged")
            verdict = Result(self._ledger.folder).judge().to_dict()
            with self._ledger.transaction():
                self._ledger.put_verdict(verdict)
                self._ledger.put_meta({"finished": now()})

    def interrupt(self) -> None:
        """The loop stopped on the way; what was done is kept, and the file is closed."""
        with self._ledger:
            self.commit()

    def _commit(self, status: Status, *, message: str | None = None) -> None:
        known = len(self._losses)
        held = {(e.step, e.split, e.metric) for e in self._ledger.evaluations(_RUN)}
        self._ledger.commit(
            Progress(
                run_id=_RUN,
                status=status,
                steps_done=self._at,
                first_step=self._written + 1,
                curves={
                    "train_loss": np.array(self._losses, np.float32),
                    "lr": np.array(self._rates[:known], np.float32),
                },
                evaluations=[e for key, e in self._evaluations.items() if key not in held],
                seconds={self._at: self._seconds} if self._at else {},
                diverged_at=self._diverged_at,
                message=message,
            )
        )
        self._written += known
        self._losses, self._rates, self._evaluations = [], self._rates[known:], {}
        self._last_commit = time.monotonic()


def arm_of(optimizer: torch.optim.Optimizer, *, schedule: str | None = None) -> dict[str, Any]:
    """An optimizer as the settings of an arm: its class and the values of its first group.

    Args:
        optimizer: As it was made: before its first step.
        schedule: In words.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> arm_of(torch.optim.SGD([weight], lr=0.1, momentum=0.9))["label"]
    'SGD(lr=0.1)'
    """
    group = optimizer.param_groups[0]
    values = {
        key: value
        for key, value in group.items()
        if key not in _NOT_VALUES and isinstance(value, (bool, int, float, str, tuple))
    }
    values["lr"] = float(group.get("initial_lr", group["lr"]))
    cls = type(optimizer)
    name = f"{cls.__module__}:{cls.__qualname__}"
    inside = ", ".join(f"{key}={write_value(value)}" for key, value in values.items())
    tail = f" + {schedule}" if schedule else ""
    return {
        "label": f"{cls.__qualname__}(lr={write_value(values['lr'])}){tail}",
        "text": f"{name}({inside}){tail}",
        "kind": "class",
        "name": name,
        "values": values,
        "schedule": schedule,
        "source": "",
        "space": None,
    }


def _facts(outline: Outline, arm: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "spec": _spec(outline, arm),
        "driver": outline.by,
        "fingerprint": {},
        "task_spec": None,
        "command": "",
        "created": now(),
        "environment": environment(outline.device),
    }


def _spec(outline: Outline, arm: Mapping[str, Any]) -> dict[str, Any]:
    watched = outline.decides.split
    return {
        "task": outline.task,
        "train_on": "train",
        "arms": {arm["label"]: arm["text"]},
        "seeds": [outline.seed],
        "steps": outline.steps,
        "steps_per_epoch": outline.steps_per_epoch,
        "batch_size": outline.batch_size,
        "eval_every": outline.eval_every,
        "watch": watched,
        "decides": vars(outline.decides),
        "target": None,
        "device": outline.device,
        "level": 0.95,
        "min_effect": 0.0,
        "epochs": outline.steps / outline.steps_per_epoch,
    }


def _check_goes_on(ledger: Ledger, outline: Outline, arm: Mapping[str, Any], *, at: int) -> None:
    meta = ledger.meta()
    folder = ledger.folder
    if "driver" not in meta:
        raise LedgerError(f"{folder} holds a race; give this run a folder of its own")
    if at == 0:
        raise LedgerError(
            f"{folder} holds a run already; give another folder, say fresh=True to delete that "
            "run, or resume it from its last checkpoint"
        )
    there, here = meta["spec"], _spec(outline, arm)
    changed = [
        f"{key} is {_shown(there[key])} there and {_shown(here[key])} here"
        for key in ("task", "arms", "seeds", "steps", "batch_size")
        if _shown(there[key]) != _shown(here[key])
    ]
    if changed:
        raise LedgerError(
            f"{folder} holds another run: {'; '.join(changed)}. Give this one a folder of its own"
        )
    done = ledger.run(_RUN)["steps_done"]
    if done < at:
        raise LedgerError(
            f"the run goes on from step {at}, and the ledger in {folder} has come to step {done} "
            "only; resume from an earlier checkpoint, or give another folder"
        )


def _shown(value: Any) -> str:
    """Of arms their labels: some optimizers count in the entries of their groups."""
    return ", ".join(map(str, value)) if isinstance(value, (dict, list)) else str(value)
