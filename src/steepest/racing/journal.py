"""What a study or a sweep has found so far: lines of JSON, each on the disk before the next.

DIR/study.jsonl               first what is asked for, then what came out; no line is ever changed
DIR/checkpoint.safetensors    where the runs of a study that are under way can go on
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from steepest.errors import LedgerError
from steepest.racing.database import FILE as RACE
from steepest.racing.database import JOURNAL, locked, now, writable
from steepest.racing.observer import StoppedError

__all__ = ["CHECKPOINT", "FILE", "Journal", "forget", "kind", "opened", "read"]

FILE = JOURNAL
CHECKPOINT = "checkpoint.safetensors"
PARTS = ("race", "snapshots", "features")  # subfolders that a study may make
_FORMAT = 1


class Journal:
    """The file, open for writing; see `opened`.

    Attributes:
        folder: Where it lies.
        spec: What is asked for, as plain values; ``kind`` says of what kind it is.
        rows: What came out, in the order in which it was written.
        events: What a reader should know.
    """

    def __init__(self, folder: Path, spec: Mapping[str, Any], file: IO[str]) -> None:
        self.folder = folder
        self.spec = dict(spec)
        self.rows: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._file = file

    def add(self, row: Mapping[str, Any]) -> None:
        """Write down what came out."""
        self.rows.append(dict(row))
        self._write({"row": row})

    def tell(self, kind: str, text: str) -> None:
        """Write down something that a reader should know, once."""
        if any(event["text"] == text for event in self.events):
            return
        event = {"at": now(), "kind": kind, "text": text}
        self.events.append(event)
        self._write({"event": event})

    def stopped(self, kept: str, lost: str = "") -> StoppedError:
        """What is said when it was stopped: what is kept, what is not, and how it goes on."""
        return StoppedError(
            f"stopped; {kept} in {self.folder}{lost}. Give the same command again to go on"
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise LedgerError(
                f"cannot write {self.folder / FILE}: {error.strerror}; free space and repeat the "
                "command, it goes on from the last line"
            ) from error


@contextmanager
def opened(
    folder: str | Path,
    spec: Mapping[str, Any],
    *,
    meta: Mapping[str, Any],
    fresh: bool = False,
) -> Iterator[Journal]:
    """A new journal, or the one that lies there if the same was asked for.

    Args:
        folder: Made if it does not exist.
        spec: What is asked for; what lies there goes on only if it is equal.
        meta: What is worth knowing about how it was done, such as versions and the command.
        fresh: Delete what lies there and begin again.

    Raises:
        LedgerError: If something else or a race lies there, another process writes it, or it
            cannot be written.
    """
    folder = writable(Path(folder))
    if (folder / RACE).exists():
        raise LedgerError(
            f"{folder} is the folder of a race; use another --out for a {_called(spec)}"
        )
    spec = json.loads(json.dumps(spec))
    with locked(folder):
        if fresh:
            _delete(folder)
        path = folder / FILE
        header: dict[str, Any] | None = None
        lines: list[dict[str, Any]] = []
        if path.exists():
            header, lines, whole = _lines(path)
            _check_same(folder, header["spec"], spec)
            if whole < path.stat().st_size:  # a line that a killed process did not finish
                os.truncate(path, whole)
        with path.open("a", encoding="utf-8") as file:
            journal = Journal(folder, spec, file)
            if header is None:
                journal._write({"steepest": _FORMAT, "spec": spec, "meta": {**meta, "at": now()}})
            journal.rows = [line["row"] for line in lines if "row" in line]
            journal.events = [line["event"] for line in lines if "event" in line]
            yield journal


def read(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The header, the rows and the events, of a finished journal or not.

    Raises:
        LedgerError: If there is none, or it is not readable.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise LedgerError(f"{folder} is not the folder of a study or a sweep: it has no {FILE}")
    header, lines, _ = _lines(path)
    return (
        header,
        [line["row"] for line in lines if "row" in line],
        [line["event"] for line in lines if "event" in line],
    )


def kind(folder: str | Path) -> str | None:
    """What the journal in a folder is about; None if there is none.

    Raises:
        LedgerError: If it is not readable.
    """
    path = Path(folder) / FILE
    return str(_lines(path)[0]["spec"]["kind"]) if path.is_file() else None


def _lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """All whole lines, and how many bytes they are."""
    found, whole = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            value = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            break
        found.append(value)
        whole += len(line)
    if not found or found[0].get("steepest") != _FORMAT or "spec" not in found[0]:
        raise LedgerError(
            f"{path} was not written by this version of steepest; use another --out, "
            "or --fresh to delete it"
        )
    return found[0], found[1:], whole


def _check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    different = [key for key in dict.fromkeys([*there, *here]) if there.get(key) != here.get(key)]
    if "kind" in different:
        raise LedgerError(
            f"{folder} holds a {_called(there)} of another kind: {there.get('kind')} there and "
            f"{here.get('kind')} here. Use another --out, or --fresh to delete that and begin again"
        )
    if different:
        shown = [
            f"{key} is {there.get(key)} there and {here.get(key)} here"
            if key != "fingerprint"
            else "the task has changed"
            for key in different
        ]
        raise LedgerError(
            f"{folder} holds another {_called(there)}: {'; '.join(shown)}. Use another --out, or "
            f"--fresh to delete that {_called(there)} and begin again"
        )


def _called(spec: Mapping[str, Any]) -> str:
    """What messages call it: averages, ensembles and transfers are studies."""
    return "sweep" if spec.get("kind") == "sweep" else "study"


def forget(folder: str | Path) -> None:
    """Delete what a journal in a folder is about, with all that belongs to it; nothing without one.

    Raises:
        LedgerError: If another process writes it.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        with locked(folder):
            _delete(folder)


def _delete(folder: Path) -> None:
    if not (folder / FILE).exists():
        return
    for name in PARTS:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / FILE).unlink()
