"""The SQLite file under a ledger: finding it, opening it, locking it, and its errors in words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from steepest.errors import LedgerError

__all__ = [
    "FILE",
    "JOURNAL",
    "Lock",
    "damaged",
    "explained",
    "leave_writing_to",
    "locked",
    "made",
    "now",
    "opened_to_read",
    "opened_to_write",
    "writable",
]

FILE = "ledger.sqlite"
JOURNAL = "study.jsonl"  # what a study or a sweep has instead; see `steepest.racing.journal`
LOCK = "ledger.lock"
_SCHEMA_VERSION = 4
_APPLICATION_ID = 0x73747073  # "stps"
_WRITER = ""


def leave_writing_to(whom: str) -> None:
    """From now on this process writes no folder, whatever the modules that it loads begin."""
    global _WRITER  # noqa: PLW0603  a fact about this process
    _WRITER = whom


class Lock:
    """Held by the one process that writes a folder.

    SQLite's own lock on an empty file of its own: the system lets go of it however the process
    ends, it works on every system that SQLite works on, and, unlike flock, a forked data worker
    that outlives its parent does not keep it.
    """

    def __init__(self, folder: Path) -> None:
        if _WRITER:
            raise LedgerError(
                f"something is to be written in {folder} by a process that leaves that to "
                f"{_WRITER}; start races, studies and sweeps under \"if __name__ == '__main__':\""
            )
        path = folder / LOCK
        try:
            self._connection = sqlite3.connect(path, timeout=0.2, isolation_level=None)
            try:
                self._connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise LedgerError(
                    f"another process is writing in {folder}; wait until it is done, "
                    "or stop it first (reading and reporting work meanwhile)"
                ) from error
            raise LedgerError(
                f"cannot write in {folder} ({error}); check the folder's permissions, "
                "or choose another --out"
            ) from error

    def release(self) -> None:
        """Let others write."""
        self._connection.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes the folder meanwhile; `LedgerError` if somebody does."""
    lock = Lock(folder)
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """The time, as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def made(path: Path) -> sqlite3.Connection:
    """A new file with empty tables."""
    connection = _connect(path, "rwc")
    try:
        connection.executescript(files(__package__).joinpath("schema.sql").read_text())
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def opened_to_write(folder: Path) -> tuple[sqlite3.Connection, Lock]:
    """The ledger in a folder, whole, and the lock that nobody else has meanwhile."""
    path = _existing(folder)
    lock = Lock(folder)
    try:
        with explained(path):
            connection = _connect(path, "rw")
            try:
                _check_is_ours(connection, path)
                _check_is_whole(connection, path)
                connection.execute("PRAGMA journal_mode = WAL")
                # a file system that is read-only fails here, not at the first commit
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
    except BaseException:
        lock.release()
        raise
    return connection, lock


def opened_to_read(folder: Path) -> sqlite3.Connection:
    """The ledger in a folder, also while another process is writing it."""
    path = _existing(folder)
    with explained(path):
        connection = _connect(path, "ro")
        try:
            try:
                _check_is_ours(connection, path)
            except sqlite3.OperationalError:
                # A reader needs a -shm file beside the ledger, which it cannot make in a folder
                # that it may not write. Without a -wal file the ledger is complete as it lies.
                connection.close()
                if path.with_name(f"{FILE}-wal").exists():
                    raise
                connection = _connect(path, "ro&immutable=1")
                _check_is_ours(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection without transactions of its own: they are begun and ended by hand.

    Threads may share it, if they take turns; the `Ledger` sees to that.
    """
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    if not mode.startswith("ro"):  # asking for it looks into the file, which a reader may not yet
        # The obsolete checkpoint is deleted after the commit, so the commit must be on the disk.
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def writable(folder: Path) -> Path:
    """The folder, made if it does not exist; `LedgerError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"cannot make the folder {folder}: {error.strerror}; choose another --out"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LedgerError(f"the folder {folder} is not writable; choose another --out")
    return folder


def _existing(folder: Path) -> Path:
    """The ledger in a folder; `LedgerError` if there is none."""
    path = folder / FILE
    if not path.is_file():
        if (folder / JOURNAL).is_file():
            raise LedgerError(
                f"{folder} is the folder of a study or a sweep, not of a race: steepest report "
                "shows it, and the command that began it, given again, goes on with it"
            )
        what = "has no ledger.sqlite" if folder.is_dir() else "does not exist"
        raise LedgerError(f"{folder} is not the folder of a race: it {what}; give the --out folder")
    return path


def _check_is_ours(connection: sqlite3.Connection, path: Path) -> None:
    """`LedgerError` for a database of something else, or of another version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION_ID:
        raise LedgerError(f"{path} was not written by steepest; give the folder of a race")
    if version > _SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has format {version} and this steepest reads up to {_SCHEMA_VERSION}; "
            "install a newer steepest"
        )
    if 0 < version < _SCHEMA_VERSION:
        raise LedgerError(
            f"{path} has format {version}, of an earlier steepest, and this one reads "
            f"format {_SCHEMA_VERSION}; read it with the version that wrote it, or race again with "
            "another --out"
        )


def _check_is_whole(connection: sqlite3.Connection, path: Path) -> None:
    """`LedgerError` if SQLite finds damage."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(damaged(path, found))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LedgerError(
            f"cannot use {path}: {error}; check the permissions and the free space there"
        ) from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(damaged(path, str(error))) from error


def damaged(path: Path, why: str) -> str:
    """The words for a ledger that cannot be trusted."""
    return f"{path} is damaged ({why}); restore it from a copy, or race again with another --out"
