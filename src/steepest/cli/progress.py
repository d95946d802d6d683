"""How a person sees a race run: one bar for all of it, one line for what is running now."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from steepest.numbers import amount
from steepest.racing.spec import Plan

__all__ = ["Drawn", "RaceProgress"]

_STAGES = {"tuning": "tuning", "final": "racing"}


class Drawn:
    """Something that is on the terminal while its ``with`` lasts."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


class RaceProgress(Drawn):
    """An observer that draws on a terminal, and prints one line per finished run elsewhere.

    Time left is the steps that are left at the speed of the last minutes, so it is right also for
    a race that is resumed half-way. Where several tasks are raced it is that of the task whose
    turn it is, and the bar says which one of how many that is.
    """

    def __init__(self, console: Console, *, quiet: bool = False, races: int = 1) -> None:
        self.console = console
        self.races = races
        self._tasks: list[str] = []
        self.quiet = quiet
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("run {task.fields[run]}"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=console,
            transient=True,
            speed_estimate_period=180.0,
            disable=quiet or not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._labels: dict[str, str] = {}
        self._stages: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        """Say what will run, and what is done already."""
        self._steps = dict(done)
        total = self._learn(plan)
        if not self.quiet:
            for note in plan.notes:
                self.console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
            spec = plan.spec
            if spec.tuning is not None:
                tuning = spec.tuning
                self.console.print(
                    f"{escape(spec.task)}: {len(spec.tuned)} arms × {tuning.trials} trials "
                    f"({escape(tuning.method)}) × {amount(len(tuning.seeds), 'tuning seed')}, then",
                    highlight=False,
                )
            self.console.print(
                f"{escape(spec.task)}: {amount(len(spec.arms), 'arm')} × "
                f"{amount(len(spec.seeds), 'seed')} × "
                f"{spec.steps} steps of {spec.batch_size} examples "
                f"({spec.epochs:.3g} {'epoch' if spec.epochs == 1 else 'epochs'} each)",
                highlight=False,
            )
            finished = sum(done.values())
            if finished >= total:
                self.console.print("all runs are finished already", highlight=False)
            elif finished:
                self.console.print(
                    f"going on: {finished / total:.0%} is done already", highlight=False
                )
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        if plan.spec.task not in self._tasks:
            self._tasks.append(plan.spec.task)
        place = f"{plan.spec.task} ({len(self._tasks)} of {self.races})"
        self._bar = self._progress.add_task(
            "racing" if self.races == 1 else escape(place),
            total=total,
            completed=sum(self._steps.values()),
            now="",
            run="…",
        )

    def added(self, plan: Plan) -> None:
        """Make room for the runs that were added; their steps were in the total already."""
        total = self._learn(plan)
        if self._bar is not None:
            self._progress.update(self._bar, total=total)

    def _learn(self, plan: Plan) -> int:
        """What the runs are called; the steps of both stages."""
        self._labels = {run.run_id: run.name for run in plan.runs}
        self._stages = {run.run_id: _STAGES[run.stage] for run in plan.runs}
        self._numbers = {run.run_id: number for number, run in enumerate(plan.runs, start=1)}
        return sum(run.steps for run in plan.runs) + plan.later

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        """Move the bar."""
        self._steps[run_id] = step
        if self._bar is not None:
            self._progress.update(
                self._bar,
                description=self._stages[run_id],
                completed=sum(self._steps.values()),
                run=f"{self._numbers[run_id]}/{len(self._numbers)}",
                now=escape(f"{self._labels[run_id]}: step {step}/{total}, loss {loss:.3g}"),
            )

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        """Print the run's last numbers where there is no bar, or where something went wrong."""
        if self.quiet or (self.console.is_terminal and status == "done"):
            return
        numbers = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.items())
        color = {"done": "green", "diverged": "yellow"}.get(status, "red")
        self.console.print(
            f"[{color}]{status}[/] {escape(self._labels[run_id])}  {escape(numbers)}",
            highlight=False,
        )

    def note(self, text: str) -> None:
        """Say something that a person should know now."""
        if not self.quiet:
            self.console.print(f"[dim]{escape(text)}[/]", highlight=False)
