"""Pictures of schedules: the multiplier over the steps of a run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steepest import schedules
from steepest.errors import InputError
from steepest.numbers import amount, significant
from steepest.reporting.braille import braille
from steepest.reporting.chart import Chart, Line
from steepest.reporting.drawing import shorten
from steepest.reporting.palette import COLORS
from steepest.reporting.save import save_charts
from steepest.schedules import Schedule

__all__ = ["braille", "draw_schedules", "listed", "rates", "resolve", "terminal_lines"]

POINTS = 600
SEVERAL = 4  # so many or fewer are laid over one another in one chart


def resolve(given: Iterable[Schedule | str] | Schedule | str, steps: int) -> list[Schedule]:
    """Schedules by text or as they are, each of which fits a run of so many steps."""
    if steps < 1:
        raise InputError(f"steps must be a whole number >= 1, got {steps}")
    each = [given] if isinstance(given, str | Schedule) else list(given)
    if not each:
        raise InputError("no schedule was given; 'steepest schedules' lists what there is")
    found = [schedules.parse(one) if isinstance(one, str) else one for one in each]
    for schedule in found:
        schedule.check(steps)
    return found


def rates(schedule: Schedule, steps: int, *, lr: float = 1.0, most: int | None = None) -> Any:
    """The steps (from 0 to the last) and the rates there.

    Args:
        schedule: Which one.
        steps: Of the run.
        lr: The base learning rate.
        most: At most so many points, evenly spread; None: every step.

    Returns:
        Two arrays.
    """
    places = np.arange(steps)
    if most is not None and steps > most:
        places = np.unique(np.linspace(0, steps - 1, most).round().astype(np.int64))
    return places, np.array([lr * schedule(int(step), steps) for step in places])


def draw_schedules(
    given: Iterable[Schedule | str] | Schedule | str | None,
    out: str | Path,
    *,
    steps: int = 1000,
    lr: float = 1.0,
) -> Path:
    """Draw schedules as an HTML page, an SVG or a PNG, by the name of the file.

    Args:
        given: Schedules or their texts; None: all there are, with their defaults.
        out: The file.
        steps: Of the run.
        lr: The base learning rate; 1 shows the multipliers.

    Returns:
        Where it was written.

    Raises:
        InputError: If a schedule cannot be read or does not fit the run, or the file's ending is
            none of ``.html``, ``.svg``, ``.png``.

    >>> import steepest, tempfile
    >>> file = steepest.draw_schedules("cosine(warmup=0.05)", tempfile.mkdtemp() + "/cosine.svg")
    >>> file.read_text()[:4]
    '<svg'
    """
    if not 0 < lr < float("inf"):
        raise InputError(f"lr must be a number > 0, got {lr}")
    found = resolve(schedules.names() if given is None else given, steps)
    together = 1 < len(found) <= SEVERAL
    charts = [_chart(found, steps, lr)] if together else [_chart([s], steps, lr) for s in found]
    names = ", ".join(schedule.name for schedule in found)
    title = found[0].text if len(found) == 1 else "Learning-rate schedules"
    return save_charts(
        charts,
        out,
        title=title,
        under=f"{'Learning rate' if lr != 1 else 'Multiplier of the learning rate'} over "
        f"{amount(steps, 'step')}",
        columns=1 if len(charts) == 1 else 3,
        height=280 if len(charts) == 1 else 110,
        key="schedules",
        question=f"Schedules: {names}" if len(found) > 1 else "The schedule",
        says="The first step is step 0; a schedule multiplies the arm's learning rate, which is "
        "the highest of the run.",
    )


def _chart(found: Sequence[Schedule], steps: int, lr: float) -> Chart:
    lines = []
    for number, schedule in enumerate(found):
        x, y = rates(schedule, steps, lr=lr, most=POINTS)
        lines.append(Line(x=x, y=y, name=schedule.text, color=COLORS[number % len(COLORS)]))
    top = max(float(line.y.max()) for line in lines)
    alone = len(found) == 1
    return Chart(
        title=shorten(found[0].text, 34) if alone else "",
        legend=not alone,
        lines=lines,
        x_title="step",
        y_title="" if alone else ("learning rate" if lr != 1 else "multiplier"),
        x_range=(0.0, float(steps)),
        y_range=(0.0, 1.04 * top),
        alt=f"{'; '.join(s.text for s in found)} over {steps} steps",
    )


def listed() -> list[dict[str, Any]]:
    """Every schedule there is: name, arguments with their defaults, what it does in one line."""
    rows = []
    for name in schedules.names():
        make = getattr(schedules, name)
        arguments = {p.name: p.default for p in inspect.signature(make).parameters.values()}
        summary = (inspect.getdoc(make) or "").partition("\n")[0].replace("``", "")
        rows.append({"name": name, "arguments": arguments, "summary": summary})
    return rows


def terminal_lines(
    schedule: Schedule, steps: int, *, lr: float = 1.0, width: int = 64, height: int = 8
) -> list[str]:
    """A schedule as lines of text, with its axes."""
    _, y = rates(schedule, steps, lr=lr, most=4 * width)
    top = float(y.max()) or 1.0
    drawn = braille(y, low=0.0, high=top, width=width, height=height)
    high, low = significant(top), "0"
    gutter = max(len(high), len(low))
    lines = [f"{high if n == 0 else '':>{gutter}} ┤{line}" for n, line in enumerate(drawn)]
    lines[-1] = f"{low:>{gutter}} ┤{drawn[-1]}"
    last = f"{steps - 1:,}"
    foot = f"{'':>{gutter}}  0{last:>{width - 1}}"
    return [*lines, foot]
