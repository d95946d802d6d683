"""What a recipe was asked to do, and what each of its steps found: plain values, kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steepest.errors import LedgerError

__all__ = ["TITLES", "Chart", "Line", "Record", "Settings", "State"]

TITLES: dict[int, str] = {
    1: "Is the loss at the start what theory says?",
    2: "Can it learn a tiny sample by heart?",
    3: "At which rates does the loss fall?",
    4: "Rate and weight decay, coarsely",
    5: "The best few, for longer",
    6: "What the curves say",
    7: "Refined, until nothing improves beyond the noise of seeds",
}
FILE = "recipe.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What was asked for.

    Attributes:
        task: The task's name.
        arm: The arm as it was written.
        minutes: Time for all seven steps together.
        seeds: Fresh seeds of the last measurement.
        batch_size: Examples per step.
        device: ``cpu`` or ``cuda``.
        command: What repeats it.
    """

    task: str
    arm: str
    minutes: float
    seeds: int
    batch_size: int
    device: str
    command: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: What it shows.
        x: Positions.
        y: Values; None where there is none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """The picture of a step, before it is drawn.

    Attributes:
        x: What the horizontal axis counts.
        y: What the vertical axis shows.
        lines: What is drawn.
        level: A value to compare with, and its name.
        log_x: A logarithmic horizontal axis.
        log_y: A logarithmic vertical axis.
        dots: Points that are not joined.
    """

    x: str
    y: str
    lines: tuple[Line, ...]
    level: tuple[float, str] | None = None
    log_x: bool = False
    log_y: bool = False
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a step found.

    Attributes:
        step: Its number, from 1.
        passed: Whether its gate is open.
        sentence: What was found.
        advice: What to check, where the gate is shut; what follows, where it is open.
        numbers: What later steps go on with.
        chart: What is drawn; None where the curves themselves are the picture.
        seconds: How long it took.
        forced: The gate was shut, and a person went on all the same.
    """

    step: int
    passed: bool
    sentence: str
    advice: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    chart: Chart | None = None
    seconds: float = 0.0
    forced: bool = False

    @property
    def title(self) -> str:
        """The question of the step."""
        return TITLES[self.step]


@dataclass(frozen=True)
class State:
    """A recipe's folder.

    Attributes:
        folder: Where it lies.
        settings: What was asked for.
        records: What is done, by the number of the step.
    """

    folder: Path
    settings: Settings
    records: Mapping[int, Record]

    def with_record(self, record: Record) -> State:
        """The state after a step; written at once, whole or not at all."""
        later = {n: r for n, r in self.records.items() if n < record.step}
        state = State(self.folder, self.settings, {**later, record.step: record})
        state.write()
        return state

    def write(self) -> None:
        """Keep it in the folder."""
        held = {
            "settings": asdict(self.settings),
            "records": [asdict(record) for record in self.records.values()],
        }
        path = self.folder / FILE
        unborn = path.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unborn.write_text(json.dumps(held, indent=1), encoding="utf-8")
            unborn.replace(path)
        except OSError as error:
            raise LedgerError(
                f"the recipe cannot be kept in {self.folder} ({error.strerror}); name another "
                "folder"
            ) from error

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """What lies in a folder; None if no recipe does.

        Raises:
            LedgerError: If it is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            records = {r["step"]: _record(r) for r in held["records"]}
            return cls(folder, Settings(**held["settings"]), records)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{path} cannot be read as a recipe ({error}); begin again with --fresh"
            ) from error


def _record(held: Mapping[str, Any]) -> Record:
    chart = held["chart"]
    drawn = chart and Chart(
        **{
            **chart,
            "lines": tuple(Line(**line) for line in chart["lines"]),
            "level": tuple(chart["level"]) if chart["level"] else None,
        }
    )
    return Record(**{**held, "chart": drawn or None, "advice": tuple(held["advice"])})
