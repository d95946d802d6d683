"""Tables from files: xlsx, csv, tsv, jsonl, parquet, with the row numbers that a person sees."""

from __future__ import annotations

import csv
import json
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steepest.errors import DataError, InputError, unknown_name
from steepest.extras import need
from steepest.numbers import amount
from steepest.tasks.text.encodings import find_encoding

__all__ = ["Formula", "Table", "read_table"]

# "=A1&B1", "=SUM(A1:A9)", "=1+2": what a spreadsheet would compute; "=?big5?Q?" is a text
_FORMULA = re.compile(r"=[+@(\s-]*(?:['\"{\d]|[A-Za-z_$][\w.:$!]*\s*(?:[-+*/&^<>=(]|$))")


@dataclass(frozen=True)
class Formula:
    """A cell whose value nobody has computed yet."""

    text: str


@dataclass(frozen=True)
class Table:
    """What stands in a file.

    Attributes:
        file: Its name.
        columns: Their names, as the first row has them.
        rows: Of each row its cells; empty ones are None.
        numbers: Of each row its number in the file: the spreadsheet's row, the line of a text.
        notes: What had to be guessed.
    """

    file: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    numbers: list[int]
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """How messages call a row: ``ads.xlsx, row 17``."""
        return f"{self.file}, row {self.numbers[row]}"


def read_table(
    path: Path, *, encoding: str | None = None, sheet: str | None = None, limit_mb: int = 100
) -> Table:
    """Read a table whose first row (of jsonl: whose keys) names the columns.

    Args:
        path: A file that ends in .xlsx, .csv, .tsv, .txt (tabs), .jsonl, .ndjson or .parquet.
        encoding: Of a text file; None: found out.
        sheet: Of a workbook; None: the first one.
        limit_mb: The largest file that is read; of a workbook and a parquet file, unpacked.

    Raises:
        DataError: If the file cannot be read; with row or line.
        InputError: If it is none of these, is too large, or there is no such sheet.
        UnsupportedError: If the package that reads it is not installed.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in _READERS)[:8]
        hint = f"; tables there: {', '.join(near)}" if near else ""
        raise InputError(f"there is no file {path}{hint}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        what = "; save it as .xlsx" if path.suffix.lower() in (".xls", ".ods") else ""
        raise InputError(
            f"{path.name} is none of the tables that can be read: {', '.join(_READERS)}{what}"
        )
    if sheet is not None and path.suffix.lower() != ".xlsx":
        raise InputError(f"sheet={sheet} is for workbooks (.xlsx), and {path.name} is none")
    limit = _Limit(path, limit_mb)
    limit.check(path.stat().st_size)
    notes: list[str] = []
    try:
        if reader is _xlsx:
            head, rows, numbers = _xlsx(path, sheet, limit, notes)
        elif reader is _parquet:
            head, rows, numbers = _parquet(path, limit)
        else:
            name, note = find_encoding(path, encoding)
            notes += [note] if note else []
            head, rows, numbers = reader(path, name)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    columns = _named(path, head)
    keep = [i for i, row in enumerate(rows) if any(cell is not None for cell in row)]
    if not keep:
        raise DataError(f"{path.name} has no row below its first one; a table needs rows")
    return Table(
        path.name, columns, [rows[i] for i in keep], [numbers[i] for i in keep], tuple(notes)
    )


Found = tuple[Sequence[Any], list[tuple[Any, ...]], list[int]]


@dataclass(frozen=True)
class _Limit:
    path: Path
    megabytes: int

    def check(self, size: int) -> None:
        if size > self.megabytes * 1e6:
            raise InputError(
                f"{self.path.name} holds {size / 1e6:,.0f} MB and limit_mb is {self.megabytes}; "
                f"reading takes up to ten times a file's size in memory. To read it say "
                f"limit_mb={-(-size // 1_000_000)}, or make the file smaller"
            )


def _named(path: Path, head: Sequence[Any]) -> tuple[str, ...]:
    """The names of the columns, without empty ones at the right end."""
    names = ["" if cell is None else str(cell).strip() for cell in head]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{path.name}: its first row is empty; it must name the columns")
    for place, name in enumerate(names):
        if not name:
            raise DataError(f"{path.name}, row 1: column {place + 1} has no name; give it one")
        if name in names[:place]:
            raise DataError(f"{path.name}, row 1: two columns are called '{name}'; rename one")
    return tuple(names)


def _cell(value: Any) -> Any:
    """None for what looks empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  NaN


def _xlsx(path: Path, sheet: str | None, limit: _Limit, notes: list[str]) -> Found:
    try:
        with zipfile.ZipFile(path) as packed:
            limit.check(sum(part.file_size for part in packed.infolist()))
        book = _open(path, values=True)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise DataError(
            f"{path.name} is no workbook: {str(error) or type(error).__name__}; save it again as "
            ".xlsx (a file with a password cannot be read)"
        ) from error
    with closing(book):
        if sheet is not None and sheet not in book.sheetnames:
            raise unknown_name(f"sheet of {path.name}", sheet, book.sheetnames)
        name = sheet or book.sheetnames[0]
        if sheet is None and len(book.sheetnames) > 1:
            notes.append(f"{path.name}: the first of {len(book.sheetnames)} sheets, '{name}'")
        rows = _cells_of(book, name)
    if any(None in row for row in rows):
        with closing(_open(path, values=False)) as book:
            rows, texts = _with_formulas(rows, _cells_of(book, name))
        if texts:
            notes.append(
                f"{path.name}: {amount(texts, 'cell')} that begin with '=' hold no formula and "
                "are read as texts"
            )
    if not rows:
        raise DataError(f"{path.name}: the sheet '{name}' is empty")
    width = max(map(len, rows))
    rows = [row + (None,) * (width - len(row)) for row in rows]
    return rows[0], rows[1:], list(range(2, len(rows) + 1))


def _open(path: Path, *, values: bool) -> Any:
    """The workbook: what its formulas came to, or the formulas themselves."""
    openpyxl = need("openpyxl", extra="tables", what=f"reading {path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and extensions, which are not read
        return openpyxl.load_workbook(path, read_only=True, data_only=values)


def _cells_of(book: Any, sheet: str) -> list[tuple[Any, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [tuple(map(_cell, row)) for row in book[sheet].iter_rows(values_only=True)]


def _with_formulas(
    rows: list[tuple[Any, ...]], written: list[tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], int]:
    """Cells without a value as what was written into them, and how many of them are texts.

    Programs that write workbooks take a text that begins with an equals sign for a formula; it
    then has no result, and would be read as an empty cell.
    """
    texts = 0
    found = []
    for row, other in zip(rows, written, strict=True):
        cells = list(row)
        for i, cell in enumerate(other):
            if cells[i] is None and isinstance(cell, str) and cell.startswith("="):
                formula = _FORMULA.match(cell) is not None
                cells[i] = Formula(cell) if formula else cell
                texts += not formula
        found.append(tuple(cells))
    return found, texts


def _parquet(path: Path, limit: _Limit) -> Found:
    arrow = need("pyarrow", extra="tables", what=f"reading {path.name}")
    parquet = need("pyarrow.parquet", extra="tables", what=f"reading {path.name}")
    try:
        table = parquet.read_table(path)
    except arrow.ArrowException as error:
        raise DataError(f"{path.name} is no parquet file: {error}") from error
    limit.check(table.nbytes)
    columns = [list(map(_cell, column.to_pylist())) for column in table.columns]
    rows = list(zip(*columns, strict=True))
    return table.column_names, rows, list(range(1, len(rows) + 1))


@contextmanager
def _long_cells() -> Iterator[None]:
    """A cell may be longer than the 131,072 characters that Python's csv stops at."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separated(path: Path, encoding: str, delimiter: str | None = None) -> Found:
    with path.open(encoding=encoding, newline="") as file, _long_cells():
        delimiter = delimiter or _delimiter(file.readline())
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        head: list[str] = []
        rows: list[tuple[Any, ...]] = []
        numbers: list[int] = []
        begin = 1
        try:
            for cells in reader:
                line, begin = begin, reader.line_num + 1
                if not head:
                    head = cells
                elif len(cells) == len(head):
                    rows.append(tuple(map(_cell, cells)))
                    numbers.append(line)
                elif cells:
                    _fail_uneven(path, line, cells, head, delimiter)
        except csv.Error as error:
            raise DataError(
                f"{path.name}, line {begin}: {error}; a text that holds quotes is written in "
                'quotes, with each of its own doubled: "say ""hello"""'
            ) from error
    if not head:
        raise DataError(f"{path.name} is empty")
    return head, rows, numbers


def _fail_uneven(path: Path, line: int, cells: list[str], head: list[str], delimiter: str) -> None:
    shown = "a tab" if delimiter == "\t" else f"'{delimiter}'"
    extra = (
        f" after column '{head[-1]}'"
        if len(cells) > len(head)
        else (f"; column '{head[len(cells)]}' is missing")
    )
    raise DataError(
        f"{path.name}, line {line}: {len(cells)} cells where the first row has {len(head)}{extra}. "
        f"Cells are separated by {shown}; a text that contains it must be in double quotes"
    )


def _delimiter(line: str) -> str:
    """What the first row separates its cells with."""
    outside = "".join(line.split('"')[::2])
    return max(",;\t|", key=outside.count)


def _tabs(path: Path, encoding: str) -> Found:
    return _separated(path, encoding, "\t")


def _json_lines(path: Path, encoding: str) -> Found:
    head: dict[str, None] = {}
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path.name}, line {number} is not JSON: {error.msg} at its character "
                    f"{error.pos + 1}; every line must be one object"
                ) from error
            if not isinstance(value, dict):
                raise DataError(
                    f"{path.name}, line {number} is a {type(value).__name__}; every line must be "
                    'one object such as {"text": "...", "label": "..."}'
                )
            head |= dict.fromkeys(value)
            objects.append(value)
            numbers.append(number)
    rows = [tuple(_cell(value.get(key)) for key in head) for value in objects]
    return list(head), rows, numbers


_READERS: dict[str, Callable[..., Found]] = {
    ".xlsx": _xlsx,
    ".csv": _separated,
    ".tsv": _tabs,
    ".txt": _tabs,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
