"""Which column is the text, which one the label, and what their cells say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from steepest.errors import DataError, InputError, unknown_name
from steepest.tasks.text.reading import Formula, Table

__all__ = ["Labelled", "choose_columns", "labelled"]

EmptyCells = Literal["refuse", "skip"]

_TEXT = ("text", "sentence", "content", "review", "message", "document", "body", "comment", "본문",
         "내용", "텍스트", "문장", "리뷰", "메시지", "댓글")  # fmt: skip
_LABEL = ("label", "class", "category", "target", "sentiment", "labels", "라벨", "레이블", "분류",
          "정답", "감정", "카테고리")  # fmt: skip
_MOST_CLASSES = 1000
_LEAST_ROWS = 3  # of a class: one in each split


@dataclass(frozen=True)
class Labelled:
    """Texts with their labels.

    Attributes:
        texts: As they stand in the file, without white space at both ends.
        labels: Numbers of classes.
        classes: Their names, in order.
        rows: Of each text its row in the table.
        notes: What was left out.
    """

    texts: list[str]
    labels: list[int]
    classes: tuple[str, ...]
    rows: list[int]
    notes: tuple[str, ...]


def choose_columns(
    table: Table, text: str | None, label: str | None
) -> tuple[str, str, tuple[str, ...]]:
    """The names of the two columns, and a note on what was guessed.

    A column that was not named is guessed where that is plain: by its name, or because it is the
    only one with long and different texts, or with a few values that repeat.

    Raises:
        InputError: For a column that there is not (with the nearest one), or if it is not plain.
    """
    for name in (text, label):
        if name is not None and name not in table.columns:
            raise unknown_name(f"column of {table.file}", name, table.columns)
    if text is not None and text == label:
        raise InputError(f"text_column and label_column are both '{text}'; they must differ")
    guessed = []
    if text is None:
        text = _guess(table, "text", _TEXT, taken=label)
        guessed.append(f"'{text}' as the text")
    if label is None:
        label = _guess(table, "label", _LABEL, taken=text)
        guessed.append(f"'{label}' as the label")
    note = f"{table.file}: column {' and '.join(guessed)}, by its looks" if guessed else ""
    return text, label, (note,) if note else ()


def _guess(table: Table, what: str, names: Sequence[str], *, taken: str | None) -> str:
    free = [column for column in table.columns if column != taken]
    by_name = [column for column in free if column.lower() in names]
    if len(by_name) == 1:
        return by_name[0]
    looks = _looks_like_text if what == "text" else _looks_like_label
    by_look = [column for column in by_name or free if looks(table, column)]
    if len(by_look) == 1:
        return by_look[0]
    found = (
        f"{len(by_look)} could be it ({', '.join(by_look)})" if by_look else "none looks like it"
    )
    raise InputError(
        f"{table.file}: which column is the {what} is not plain, {found}; say {what}_column=..., "
        f"or --{what}-column. Its columns: {', '.join(table.columns)}"
    )


def _cells(table: Table, column: str) -> list[Any]:
    place = table.columns.index(column)
    return [row[place] for row in table.rows if row[place] is not None]


def _looks_like_text(table: Table, column: str) -> bool:
    cells = _cells(table, column)
    if not cells or not all(isinstance(cell, str) for cell in cells):
        return False
    return median(map(len, cells)) >= 12 and len(set(cells)) > len(cells) / 2


def _looks_like_label(table: Table, column: str) -> bool:
    cells = _cells(table, column)
    return 1 < len(set(map(str, cells))) <= max(2, min(50, len(cells) // 5))


def labelled(
    table: Table, text: str, label: str, *, empty_cells: EmptyCells = "refuse"
) -> Labelled:
    """The texts and the numbers of their classes.

    Args:
        table: The file.
        text: Column of the texts.
        label: Column of the labels; numbers are labels too.
        empty_cells: What to do with rows that lack one of the two.

    Raises:
        DataError: With row and column, for an empty cell, a cell of another kind, one class only,
            a class with fewer than three rows, or labels that are no classes.
    """
    columns = {"text": table.columns.index(text), "label": table.columns.index(label)}
    empty = [
        (i, name)
        for i, row in enumerate(table.rows)
        for name, place in ((text, columns["text"]), (label, columns["label"]))
        if row[place] is None
    ]
    left_out = {i for i, _ in empty}
    if empty and empty_cells == "refuse":
        i, name = empty[0]
        others = "".join(f"; row {table.numbers[j]}, '{n}'" for j, n in empty[1:6])
        more = f" ({len(empty)} empty cells{others})" if len(empty) > 1 else ""
        raise DataError(
            f"{table.where(i)}: column '{name}' is empty{more}. Fill them in, or leave such rows "
            "out with empty_cells=skip"
        )
    rows = [i for i in range(len(table.rows)) if i not in left_out]
    texts = [_text(table, i, text, table.rows[i][columns["text"]]) for i in rows]
    names = [_label(table, i, label, table.rows[i][columns["label"]]) for i in rows]
    classes = _classes(table, label, names, rows)
    number = {name: k for k, name in enumerate(classes)}
    notes = (
        (f"{table.file}: {len(left_out)} of {len(table.rows)} rows are left out: empty cells",)
        if left_out
        else ()
    )
    return Labelled(texts, [number[name] for name in names], classes, rows, notes)


def _text(table: Table, row: int, column: str, cell: Any) -> str:
    if isinstance(cell, (str, int, float)) and not isinstance(cell, bool):
        return str(cell).strip()
    raise _wrong(table, row, column, cell, wanted="a text")


def _wrong(table: Table, row: int, column: str, cell: Any, *, wanted: str) -> DataError:
    where = f"{table.where(row)}: column '{column}' holds"
    if isinstance(cell, Formula):
        return DataError(
            f"{where} a formula without its result ({cell.text:.40}); open the workbook in a "
            "spreadsheet program, save it, and its results are in it"
        )
    return DataError(f"{where} a {type(cell).__name__} ({cell!s:.40}), expected {wanted}")


def _label(table: Table, row: int, column: str, cell: Any) -> str:
    """1.0 and 1 are one class: a spreadsheet knows no whole numbers."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, (str, int, float)):
        return str(cell).strip()
    raise _wrong(table, row, column, cell, wanted="a label: a text or a number")


def _classes(table: Table, column: str, names: list[str], rows: list[int]) -> tuple[str, ...]:
    counts = Counter(names)
    if not counts:
        raise DataError(f"{table.file}: no row has both a text and a label")
    if len(counts) == 1:
        raise DataError(
            f"{table.file}: column '{column}' holds one class only, '{names[0]}', in all "
            f"{len(names)} rows; there is nothing to tell apart"
        )
    if len(counts) > _MOST_CLASSES or len(counts) > max(2, len(names) / 2):
        raise DataError(
            f"{table.file}: column '{column}' holds {len(counts):,} different values in "
            f"{len(names):,} rows, for example {table.where(rows[0]).rpartition(', ')[2]}: "
            f"'{names[0]:.40}'; that is no label of a class. Columns: {', '.join(table.columns)}"
        )
    for name, count in counts.items():
        if count < _LEAST_ROWS:
            at = table.where(rows[names.index(name)])
            raise DataError(
                f"{at}: column '{column}': class '{name}' has {count} row{'s' * (count > 1)}; a "
                f"class needs {_LEAST_ROWS}, one each to train, to choose and to test. Is it a "
                f"slip of the pen? Classes: {', '.join(sorted(counts)[:12])}"
            )
    return tuple(sorted(counts, key=_natural))


def _natural(name: str) -> tuple[int, float, str]:
    """Numbers by their value, before words."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
