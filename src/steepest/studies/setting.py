"""What every study settles before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from steepest.errors import InputError
from steepest.racing.arm import Arm
from steepest.racing.environment import environment
from steepest.racing.plan import plan
from steepest.train.task import Task

__all__ = ["Setting", "Silent", "Watcher", "settle"]


class Watcher(Protocol):
    """Who wants to see how far a study is."""

    def advanced(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` steps of all runs; what is going on."""

    def note(self, text: str) -> None:
        """Something that a person should know now."""


class Silent:
    """The watcher that looks away."""

    def advanced(self, done: int, total: int, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A task, an arm, and how long and how often it is trained.

    Attributes:
        task: What is trained.
        arm: What trains it.
        seeds: Of the runs.
        steps: Of every run.
        steps_per_epoch: Batches in an epoch.
        batch_size: Examples per step.
        device: Where.
        level: Confidence of all comparisons together.
        decides: The split that decides: ``test`` where there is one.
        watch: The split that choices are made on, ``val``; None without one.
        fingerprint: Of the task.
        task_spec: How the command line finds the task again; None for an object from Python.
    """

    task: Task
    arm: Arm
    seeds: tuple[int, ...]
    steps: int
    steps_per_epoch: int
    batch_size: int
    device: str
    level: float
    decides: str
    watch: str | None
    fingerprint: Mapping[str, str]
    task_spec: str | None

    @property
    def splits(self) -> tuple[str, ...]:
        """What is measured at the end of every run."""
        return tuple(dict.fromkeys([*([self.watch] if self.watch else []), self.decides]))

    def spec(self, kind: str, **more: Any) -> dict[str, Any]:
        """As plain values, for the journal."""
        metric, higher = self.task.primary
        return {
            "kind": kind,
            "task": self.task.name,
            "task_spec": self.task_spec,
            "arm": self.arm.text,
            "arm_source": self.arm.source,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "batch_size": self.batch_size,
            "device": self.device,
            "level": self.level,
            "metric": f"{self.decides}_{metric}",
            "watched": f"{self.watch}_{metric}" if self.watch else None,
            "higher_is_better": higher,
            "fingerprint": dict(self.fingerprint),
            **more,
        }

    def meta(self, command: str) -> dict[str, Any]:
        """How it was done, for the journal."""
        return {"command": command, "environment": environment(self.device)}


def settle(
    task: Task,
    arm: Any,
    *,
    seeds: int | Sequence[int],
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    level: float = 0.95,
    task_spec: str | None = None,
) -> Setting:
    """Check everything that can be checked, and fill in every default, as a race does.

    Args:
        task: What is trained.
        arm: One arm, in any of the ways that a race knows.
        seeds: Their number, or the seeds themselves.
        epochs: How long every run is, in passes over the training data; default 1.
        steps: The same in steps.
        batch_size: Default: the task's.
        device: ``cpu`` or ``cuda``.
        level: Confidence of all comparisons together.
        task_spec: How the command line finds the task again.

    Raises:
        InputError: For anything that cannot be, an arm that asks for tuning among it.
    """
    planned = plan(
        task,
        arm if isinstance(arm, Mapping) else [arm],
        seeds=seeds,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        device=device,
        level=level,
        task_spec=task_spec,
    )
    spec = planned.spec
    if len(spec.arms) != 1:
        raise InputError(f"a study is of one arm, got {len(spec.arms)}; to compare arms, race them")
    if spec.tuning is not None:
        raise InputError(
            f"the arm '{spec.arms[0].label}' asks for tuning; a study needs fixed values: race it "
            "first, and give what the race chose"
        )
    return Setting(
        task=task,
        arm=spec.arms[0],
        seeds=spec.seeds,
        steps=spec.steps,
        steps_per_epoch=spec.steps_per_epoch,
        batch_size=spec.batch_size,
        device=device,
        level=level,
        decides=spec.decides.split,
        watch="val" if task.val is not None and spec.decides.split != "val" else None,
        fingerprint=planned.fingerprint,
        task_spec=planned.task_spec,
    )
