"""A race over several tasks as a page, in a terminal and as plain values."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from steepest.numbers import amount, fixed, p_text, significant, time_text
from steepest.reporting.facts import Flag, headline, metric_words, result_unit
from steepest.reporting.html import marks_of
from steepest.reporting.page import fill, write_whole
from steepest.reporting.protocol import Group, protocol_groups, reproduce
from steepest.reporting.several_figures import several_pictures
from steepest.reporting.spending import race_flags
from steepest.reporting.tables import DECISIONS, TURNED, Cell, Table, aligned
from steepest.reporting.terminal import plain_values, print_flags, print_tables, result_json

if TYPE_CHECKING:
    from rich.console import Console

    from steepest.racing.several import Several

__all__ = ["print_several", "several_json", "write_several_html"]

NOTE = (
    "A score is a run's final metric on a scale on which 0 is the mean of the worst arm of that "
    "task and 1 the mean of the best one, so that tasks can be put together; a run that diverged "
    "is worse than any score. IQM, the interquartile mean: the mean of the middle half of all "
    "runs of all tasks (Agarwal et al., NeurIPS 2021), with a {level} % bootstrap interval in "
    "which runs are drawn anew within every task and the tasks are fixed. With other arms beside "
    "them the same runs would get other scores. All of this describes; what is decided, is decided "
    "task by task."
)


def write_several_html(several: Several, path: str | Path) -> Path:
    """Write the report over all tasks; it leads to the reports of the single ones.

    Args:
        several: The races, finished or not.
        path: The file, or a folder that gets a ``report.html``.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.html"
    page = fill(
        "several.html.j2",
        several_pictures(several),
        title=f"{several_headline(several)} – {', '.join(several.tasks)}",
        eyebrow=" · ".join(
            [
                amount(len(several.tasks), "task"),
                amount(len(several.arms), "arm"),
                f"{amount(len(several.seeds), 'seed')} that all have finished",
            ]
        ),
        headline=several_headline(several),
        sentences=[f"{task}: {headline(result)}" for task, result in several.results.items()],
        flags=several_flags(several),
        marks=marks_of({a.label: a.text for a in next(iter(several.results.values())).arms}),
        tables=several_tables(several, beside=path.parent),
        command=_command(several),
        protocol=_protocol(several),
        folder=several.folder,
    )
    return write_whole(path, page.encode("utf-8"), what="the report")


def several_headline(several: Several) -> str:
    """What all tasks say together, in one plain sentence; it describes and decides nothing."""
    rows = several.aggregate
    if len(several.arms) < 2:
        return "There is one arm, so there is nothing to compare it with."
    if not rows:
        return "No seed is finished by every arm on every task yet."
    best, *others = rows
    apart = [row for row in others if row.high < best.low]
    head = f"Over {amount(len(several.tasks), 'task')} {best.label} has the best score"
    if len(apart) == len(others):
        return f"{head}; its interval meets no other arm's."
    close = [row.label for row in others if row not in apart]
    if len(close) == 1:
        return f"{head}, but its interval overlaps with that of {close[0]}."
    which = "all" if len(close) == len(others) else f"{len(close)} of the {len(others)}"
    return f"{head}, but its interval overlaps with those of {which} others."


def several_flags(several: Several) -> list[Flag]:
    """What weakens it, worst first: unfinished races, too few tasks, what each task has to say."""
    found = []
    unfinished = [task for task, result in several.results.items() if not result.complete]
    if unfinished:
        found.append(
            Flag(
                "stop",
                f"The races on {', '.join(unfinished)} are not finished. "
                f"steepest resume {several.folder} goes on where they stopped.",
            )
        )
    if len(several.tasks) < several.tasks_needed and len(several.arms) > 1:
        found.append(Flag("warn", several.claim))
    for task, result in several.results.items():
        found += [
            Flag(flag.kind, f"{task}: {flag.text}")
            for flag in race_flags(result)
            if flag.kind != "note" and not (flag.kind == "stop" and task in unfinished)
        ]
    order = {"stop": 0, "warn": 1, "note": 2}
    return sorted(found, key=lambda flag: order[flag.kind])


def several_tables(several: Several, *, beside: Path | None = None) -> list[Table]:
    """The arms over all tasks, task by task, and the pairs."""
    tables = [
        _aggregate_table(several),
        _task_table(several, beside),
        _pair_table(several),
        _target_table(several),
    ]
    return [table for table in tables if table is not None and table.rows]


def score_text(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A normalised score with its interval.

    >>> score_text(0.913, 0.88, 0.94), score_text(float("-inf"))
    ('0.91 (0.88 to 0.94)', '−∞')
    """
    text = fixed(value, 2)
    return text if math.isnan(low) else f"{text} ({fixed(low, 2)} to {fixed(high, 2)})"


def _aggregate_table(several: Several) -> Table | None:
    numbers = {label: number for number, label in enumerate(several.arms)}
    heads = ("#", "Arm", "IQM of scores", *(f"Score: {task}" for task in several.tasks), "Diverged")
    rows = tuple(
        (
            Cell(str(place)),
            Cell(row.label, arm=numbers[row.label]),
            Cell(score_text(row.iqm, row.low, row.high)),
            *(Cell(score_text(row.means[task])) for task in several.tasks),
            Cell(str(row.diverged), tone="bad" if row.diverged else "quiet"),
        )
        for place, row in enumerate(several.aggregate, start=1)
    )
    level = significant(100 * several.level)
    return Table(
        f"Arms over all tasks, best first: interquartile mean of the scores with its {level} % "
        "interval, and the mean score on every task",
        heads,
        rows,
        aligned("right", "left", to=heads),
        (NOTE.format(level=level),),
        ("Diverged", *(f"Score: {task}" for task in reversed(several.tasks))),
    )


def _task_table(several: Several, beside: Path | None) -> Table:
    rows = []
    for task, result in several.results.items():
        first = next((row for row in result.ranking if row.n), None)
        unit = result_unit(result)
        link = ""
        if beside is not None:
            link = quote(Path(os.path.relpath(result.folder / "report.html", beside)).as_posix())
        rows.append(
            (
                Cell(task, link=link),
                Cell(metric_words(result.metric)),
                Cell(
                    "–"
                    if first is None
                    else f"{first.label}: {unit.mean(first.mean, first.low, first.high)}"
                ),
                Cell(headline(result)),
            )
        )
    return Table(
        "Task by task; each has a report of its own",
        ("Task", "Decides", "Best mean", "Verdict"),
        tuple(rows),
        ("left", "left", "left", "left"),
    )


def _pair_table(several: Several) -> Table | None:
    """Every pair of arms: the decision on each task, and what they say together."""
    numbers = {label: number for number, label in enumerate(several.arms)}
    rows = []
    over = {frozenset((pair.a, pair.b)): pair for pair in several.over_tasks}
    enough = len(several.tasks) >= several.tasks_needed
    for place, a in enumerate(several.arms):
        for b in several.arms[place + 1 :]:
            cells, probabilities, decisions = [], [], Counter[str]()
            for result in several.results.values():
                pair = next((p for p in result.verdict.pairs if {p.a, p.b} == {a, b}), None)
                if pair is None or result.verdict.problems:
                    cells.append(Cell("–", tone="quiet"))
                    continue
                decision = pair.decision if pair.a == a else TURNED[pair.decision]
                share = pair.comparison.prob_a_better
                probabilities.append(share if pair.a == a else 1 - share)
                decisions[decision] += 1
                sign, tone = DECISIONS[decision]
                words = {"better": "A better", "worse": "B better"}.get(decision, decision)
                cells.append(Cell(f"{sign} {words}", tone=tone))
            if not decisions:
                continue
            mean = sum(probabilities) / len(probabilities)
            row = [Cell(a, arm=numbers[a]), Cell(b, arm=numbers[b]), *cells, Cell(fixed(mean, 2))]
            if enough:
                general = over[frozenset((a, b))]
                decision = general.decision if general.a == a else TURNED[general.decision]
                sign, tone = DECISIONS[decision]
                words = {"better": "A better", "worse": "B better"}.get(decision, decision)
                row.append(Cell(f"{sign} {words}, p = {p_text(general.p_adjusted)}", tone=tone))
            rows.append(tuple(row))
    if not rows:
        return None
    heads = ("A", "B", *several.tasks, "P(A better)", *(["Over tasks"] if enough else []))
    notes = ["P(A better): share of seeds on which A ended better, averaged over the tasks."]
    if enough:
        notes.append(
            "Over tasks: the same test as for seeds, on the mean scores of the tasks, Holm over "
            "all pairs. It speaks for tasks from which these could have been drawn."
        )
    return Table(
        "Every pair on every task, as decided there",
        heads,
        tuple(rows),
        ("left", "left", *aligned(to=heads[2:])),
        tuple(notes),
        tuple(reversed(several.tasks)),
    )


def _target_table(several: Several) -> Table | None:
    steps, seconds = several.target_costs("steps"), several.target_costs("seconds")
    if steps is None or seconds is None:
        return None

    def cell(count: float, time: float) -> Cell:
        if math.isinf(count):
            return Cell("not reached", tone="quiet")
        return Cell(f"{significant(count, 6)} ({time_text(time)})")

    return Table(
        "Steps (and time) to the target: medians over seeds, misses counted as infinite",
        ("Arm", *several.tasks),
        tuple(
            (Cell(label, arm=number), *map(cell, steps[label], seconds[label]))
            for number, label in enumerate(several.arms)
        ),
        aligned("left", to=("", *several.tasks)),
        spare=tuple(reversed(several.tasks)),
    )


def _command(several: Several) -> str:
    """What repeats all of it: the command of the races, which they share, or the calls."""
    commands = list(dict.fromkeys(reproduce(result) for result in several.results.values()))
    return "\n".join(commands)


def _protocol(several: Several) -> list[Group]:
    """Budget and decision of every task; versions and hardware once."""
    groups = []
    for place, (task, result) in enumerate(several.results.items()):
        for group in protocol_groups(result):
            if group.title in ("Budget", "Decision", "Task"):
                groups.append(Group(f"{task}: {group.title.lower()}", group.items))
            elif place == 0:
                groups.append(group)
    return groups


def print_several(several: Several, console: Console) -> None:
    """Print what all tasks say together, the arms, the tasks and the pairs."""
    from rich.text import Text

    console.print(Text(several_headline(several), style="bold"))
    print_flags(several_flags(several), console)
    print_tables(several_tables(several), console)


def several_json(several: Several) -> dict[str, Any]:
    """The aggregates, and under ``races`` the whole JSON of every task."""
    flat: dict[str, Any] = plain_values(
        {
            "folder": str(several.folder),
            "complete": several.complete,
            "headline": several_headline(several),
            "flags": [vars(flag) for flag in several_flags(several)],
            **several.to_dict(),
        }
    )
    races = {task: result_json(result) for task, result in several.results.items()}
    return {**flat, "races": races}
