"""The result of a race in a terminal, and as plain values for ``--json``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from steepest.numbers import significant, time_text
from steepest.racing.searched import searched
from steepest.reporting.bought import bought_table, settings_table
from steepest.reporting.facts import (
    Flag,
    headline,
    sentences,
    single_seed,
    single_seed_words,
    target_words,
    to_target,
)
from steepest.reporting.palette import look_of
from steepest.reporting.searched import (
    coverage_says,
    importance_says,
    importance_table,
    search_json,
)
from steepest.reporting.spending import budget_says, cost_table, race_flags
from steepest.reporting.tables import Cell, Table, pair_table, ranking_table, timing_table
from steepest.reporting.tuning_json import tuning_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from steepest.racing.result import Result

__all__ = ["plain_values", "print_flags", "print_result", "print_tables", "result_json"]

TONES = {"good": "green", "bad": "red", "quiet": "dim", "": ""}
KINDS = {"stop": "bold red", "warn": "yellow", "note": "dim"}
# Left out first to last where the terminal is too narrow; the report has them all.
DROPPED = (
    *("P(A better)", "P(tuned better)", "p", "Worst seed", "Best seed", "Seeds needed", "Interval"),
    *("Epoch", "Tuning steps done", "Time of final runs", "Final steps", "Peak memory", "Lost"),
)
LONGEST = 26  # of an arm's name; longer ones are folded
SENTENCE = 30  # a column of text that is wider is one of sentences, and is folded too
MOST_SENTENCES = 6
MOST_PAIRS = 15  # printed; the report has them all


def print_result(result: Result, console: Console) -> None:
    """Print verdict, ranking, pairs, time to target and cost.

    Args:
        result: The race, finished or not.
        console: Colours are left out by rich where it is no terminal.
    """
    from rich.text import Text

    console.print(Text(headline(result), style="bold"))
    said = sentences(result)[:MOST_SENTENCES]
    if len(result.arms) > 2:  # the verdict on two arms says it in its own sentence
        said.append(single_seed_words(result))
    if result.tuning is not None:
        said.append(budget_says(result, result.tuning))
    for sentence in filter(None, said):
        console.print(Text(wrapped(sentence, console.width)))
    print_flags(race_flags(result), console)
    for line in _search_lines(result):
        console.print(Text(wrapped(line, console.width)))
    print_tables(_tables(result), console)


def wrapped(text: str, width: int) -> str:
    r"""The text in lines of at most ``width`` cells, no number torn from its per cent sign.

    Rich itself breaks lines at no-break spaces too.

    >>> wrapped("mean and 95 % interval", 12).replace("\N{NO-BREAK SPACE}", "_")
    'mean and\n95_%\ninterval'
    """
    from rich.cells import cell_len

    lines = [""]
    for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _search_lines(result: Result) -> list[str]:
    """What there is to say of a search of one arm: there are no pairs to speak of."""
    if len(result.arms) != 1 or result.tuning is None:
        return []
    one = searched(result)
    chosen = result.chosen(one.arm)
    lines = [] if chosen is None else [f"Its setting: {result.arms[0].written(chosen.values)}"]
    return [*lines, importance_says(one), *([coverage_says(one)] if one.coverage else [])]


def print_flags(found: Iterable[Flag], console: Console) -> None:
    """Print what a reader must know before believing it."""
    from rich.text import Text

    for flag in found:
        name = {"stop": "Stop: ", "warn": "Careful: ", "note": "Note: "}[flag.kind]
        text = Text(wrapped(name + flag.text, console.width))
        text.stylize(KINDS[flag.kind], 0, len(name))
        console.print(text)


def print_tables(tables: Iterable[Table], console: Console) -> None:
    """Print tables as wide as the terminal has room for."""
    from rich.text import Text

    for table in tables:
        console.print()
        console.print(Text(wrapped(table.caption, console.width), style="dim"))
        console.print(_rich_table(_fitted(table, console.width)))


def _tables(result: Result) -> list[Table]:
    pairs = pair_table(result)
    if len(pairs.rows) > MOST_PAIRS:
        decided = tuple(row for row in pairs.rows if row[7].tone != "quiet")[:MOST_PAIRS]
        caption = f"{len(decided)} decided pairs of {len(pairs.rows)}; the report has all of them"
        pairs = Table(caption, pairs.columns, decided, pairs.align, spare=pairs.spare)
    tables = [
        ranking_table(result),
        pairs,
        settings_table(result),
        bought_table(result),
        importance_table(result),
        _target_table(result),
        cost_table(result),
        timing_table(result),
    ]
    return [table for table in tables if table is not None and table.rows]


def _fitted(table: Table, width: int) -> Table:
    """The table without the columns that a narrow terminal has no room for."""
    from rich.cells import cell_len

    needed = {
        head: 3
        + max(
            min(cell_len(row[place].text) + 2 * (row[place].arm is not None), LONGEST)
            for row in (tuple(map(Cell, table.columns)), *table.rows)
        )
        for place, head in enumerate(table.columns)
    }
    for head in (*DROPPED, *table.spare):
        if sum(needed.values()) > width:
            needed.pop(head, None)
    keep = [place for place, head in enumerate(table.columns) if head in needed]
    return Table(
        table.caption,
        tuple(table.columns[place] for place in keep),
        tuple(tuple(row[place] for place in keep) for row in table.rows),
        tuple(table.align[place] for place in keep),
    )


def _target_table(result: Result) -> Table | None:
    words = target_words(result)
    if words is None:
        return None
    rows = []
    for number, arm in enumerate(result.arms):
        runs = to_target(result, arm.label)
        if not runs:
            continue
        hits = sum(math.isfinite(run["steps"]) for run in runs)
        rows.append(
            (
                Cell(arm.label, arm=number),
                Cell(_median([run["steps"] for run in runs], seconds=False)),
                Cell(_median([run["seconds"] for run in runs], seconds=True)),
                Cell(f"{hits} of {len(runs)}"),
            )
        )
    return Table(
        f"To {words}: medians over seeds, misses counted as infinite",
        ("Arm", "Steps", "Time", "Reached by"),
        tuple(rows),
        ("left", "right", "right", "right"),
    )


def _median(values: list[float], *, seconds: bool) -> str:
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if math.isinf(middle):
        return "not reached"
    return time_text(middle) if seconds else significant(middle, 6)


def _rich_table(table: Table) -> RenderableType:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for place, (head, align) in enumerate(zip(table.columns, table.align, strict=True)):
        names = head in ("Arm", "A", "B")
        width = max((cell_len(row[place].text) for row in table.rows), default=0) + 2
        words = align == "left" and width > SENTENCE
        drawn.add_column(
            Text(head),
            justify=align,
            overflow="fold",
            no_wrap=not (names or words),
            min_width=min(width, 16) if names or words else max(width - 2, cell_len(head)),
        )
    for row in table.rows:
        drawn.add_row(*(_rich_cell(cell) for cell in row))
    return drawn


def _rich_cell(cell: Cell) -> RenderableType:
    from rich.text import Text

    if cell.arm is None:
        return Text(cell.text, style=TONES[cell.tone])
    return Text.assemble(("● ", look_of(cell.arm).color), cell.text)


def result_json(result: Result) -> dict[str, Any]:
    """Everything that is decided or measured once per run, as values that JSON knows.

    Numbers that JSON has no word for (NaN, infinity) are None; a miss of the target says so in
    ``reached``. Curves are not in it: ``Result.curves`` has them.
    """
    verdict = result.verdict
    claims, one = single_seed(result), single_seed_words(result)
    values = {
        "folder": str(result.folder),
        "task": result.task,
        "complete": result.complete,
        "metric": result.metric,
        "higher_is_better": result.higher_is_better,
        "spec": result.spec,
        "headline": headline(result),
        "flags": [asdict(flag) for flag in race_flags(result)],
        "verdict": {**verdict.to_dict(), "text": verdict.text},
        "ranking": [asdict(row) for row in result.ranking],
        "arms": [{**vars(arm)} for arm in result.arms],
        "runs": [vars(run) for run in result.runs],
        "targets": _json_targets(result),
        "single_seed": None if claims is None else {**asdict(claims), "text": one},
        "tuning": tuning_json(result),
        "timings": {
            label: {quantity: timing._asdict() for quantity, timing in of.items()}
            for label, of in result.timings.items()
        },
        "searches": [search_json(searched(result, label)) for label in result.tuned],
        "protocol": result.protocol(),
        "events": result.events,
    }
    plain: dict[str, Any] = plain_values(values)
    return plain


def _json_targets(result: Result) -> dict[str, list[dict[str, Any]]] | None:
    if target_words(result) is None:
        return None
    return {
        arm.label: [
            {**run, "reached": math.isfinite(run["steps"])} for run in to_target(result, arm.label)
        ]
        for arm in result.arms
    }


def plain_values(value: Any) -> Any:
    """The value in words that JSON has: what it has none for is None, or text."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): plain_values(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(of) for of in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)
