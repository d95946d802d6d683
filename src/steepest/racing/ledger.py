"""The race's own file: everything that was planned, measured and decided.

One SQLite file in WAL mode. One process writes, any number read at the same time without making
it wait. A piece of a curve, the evaluations that fell into it and the name of the checkpoint that
belongs to it commit in one transaction, so a process that is killed at any moment leaves a state
that was true.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from steepest.errors import LedgerError
from steepest.racing.database import (
    FILE,
    Lock,
    damaged,
    explained,
    locked,
    made,
    now,
    opened_to_read,
    opened_to_write,
    writable,
)
from steepest.racing.digest import content_digest
from steepest.racing.records import (
    Addition,
    Evaluation,
    Floats,
    PlannedRun,
    PlannedTrial,
    Progress,
    Selection,
    Stored,
    Timing,
)

__all__ = ["Ledger", "Timing"]


class Ledger:
    """The open file; make one with `create`, `write` or `read`, and use it in a ``with``."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: Lock | None) -> None:
        self.folder = folder
        self._connection = connection
        self._lock = lock
        self._turn = threading.RLock()

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        meta: Mapping[str, Any],
        arms: Iterable[Mapping[str, Any]],
        runs: Iterable[PlannedRun],
        trials: Iterable[PlannedTrial] | None = None,
    ) -> Ledger:
        """A new ledger with its whole plan; either all of it is there afterwards, or nothing.

        Args:
            folder: Made if it does not exist.
            meta: Facts about the race as a whole.
            arms: Settings of each arm, at least ``label`` and ``values``.
            runs: In the order of their execution.
            trials: The settings that are known; None: every arm has the one that was written.

        Raises:
            LedgerError: If a ledger lies there, or the folder cannot be written.
        """
        folder = Path(folder)
        path = folder / FILE
        with locked(writable(folder)):
            if path.exists():
                raise LedgerError(f"{folder} holds a race already; resume it, or use another --out")
            unborn = path.with_name(f"{FILE}.new")
            unborn.unlink(missing_ok=True)
            with (
                explained(path),
                cls(folder, made(unborn), None) as ledger,
                ledger.transaction(),
            ):
                ledger.put_meta(meta)
                written = ledger._put_arms(arms)
                known = written if trials is None else trials
                ledger.add(Addition(trials=tuple(known), runs=tuple(runs)))
            unborn.replace(path)
        return cls.write(folder)

    @classmethod
    def write(cls, folder: str | Path) -> Ledger:
        """An existing ledger, to go on with it; only one process at a time can.

        Raises:
            LedgerError: If there is none, it is damaged, or another process is writing it.
        """
        return cls(Path(folder), *opened_to_write(Path(folder)))

    @classmethod
    def read(cls, folder: str | Path) -> Ledger:
        """An existing ledger, to look at it, also while it is being written.

        Raises:
            LedgerError: If there is none, or it is damaged.
        """
        return cls(Path(folder), opened_to_read(Path(folder)), None)

    def close(self) -> None:
        """Close the file and let others write it."""
        try:
            self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside becomes visible all at once, or not at all.

        A transaction inside another one is part of it. Threads take turns.
        """
        with self._turn:
            if self._connection.in_transaction:
                yield
                return
            with explained(self.folder / FILE):
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")

    def put_meta(self, values: Mapping[str, Any]) -> None:
        """Set facts about the race as a whole; inside a `transaction`."""
        self._connection.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, _json(value)) for key, value in values.items()],
        )

    def _put_arms(self, arms: Iterable[Mapping[str, Any]]) -> list[PlannedTrial]:
        """The arms; returns the settings that were written, one each."""
        written = []
        for arm_id, settings in enumerate(arms):
            self._connection.execute(
                "INSERT INTO arms VALUES (?, ?, ?)", (arm_id, settings["label"], _json(settings))
            )
            values = settings["values"]
            written.append(PlannedTrial(arm_id, arm_id, 0, "fixed", 0, None, values))
        return written

    def add(self, addition: Addition) -> None:
        """Let the plan grow: all of it is there afterwards, or nothing."""
        with self.transaction():
            self._connection.executemany(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (*t[:5], None if t.point is None else _json(t.point), _json(t.values))
                    for t in addition.trials
                ],
            )
            first = self.rows("SELECT COUNT(*) AS n FROM runs")[0]["n"]
            self._connection.executemany(
                "INSERT INTO runs (run_id, position, trial_id, stage, seed, steps, rung, wave) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(run[0], number, *run[1:]) for number, run in enumerate(addition.runs, first)],
            )
            self._connection.executemany(
                "INSERT INTO selections VALUES (?, ?, ?, ?)",
                [(*s[:3], _json(s.edges)) for s in addition.selections],
            )
            self.put_meta(addition.meta)
            for kind, text in addition.events:
                self.put_event(kind, text)

    def put_look(self, seeds: Sequence[int]) -> None:
        """A verdict was made on these seeds."""
        with self.transaction():
            self._connection.execute("INSERT INTO looks (seeds) VALUES (?)", (_json(list(seeds)),))

    def begin_run(self, run_id: str, *, start_hash: str) -> None:
        """The run's model exists; what it starts from is on record before its first step."""
        with self.transaction():
            self._connection.execute(
                "UPDATE runs SET status = 'running', start_hash = ?, message = NULL "
                "WHERE run_id = ?",
                (start_hash, run_id),
            )

    def rewind(self, run_id: str, *, step: int) -> None:
        """Forget what a run did after a step: it goes on from there."""
        with self.transaction():
            across = self.rows(
                "SELECT name, first_step, data FROM curves "
                "WHERE run_id = ? AND first_step <= ? AND first_step + count > ? + 1",
                run_id,
                step,
                step,
            )
            for row in across:
                kept = _unpack(row["data"])[: step + 1 - row["first_step"]]
                self._connection.execute(
                    "UPDATE curves SET count = ?, data = ? "
                    "WHERE run_id = ? AND name = ? AND first_step = ?",
                    (len(kept), _pack(kept), run_id, row["name"], row["first_step"]),
                )
            for statement in (
                "DELETE FROM curves WHERE run_id = ? AND first_step > ?",
                "DELETE FROM evaluations WHERE run_id = ? AND step > ?",
                "DELETE FROM clock WHERE run_id = ? AND step > ?",
                "DELETE FROM checkpoints WHERE run_id = ? AND step > ?",
            ):
                self._connection.execute(statement, (run_id, step))
            self._connection.execute(
                "UPDATE runs SET steps_done = ?, status = 'running', diverged_at = NULL, "
                "best_step = NULL, message = NULL, order_hash = NULL WHERE run_id = ?",
                (step, run_id),
            )

    def commit(self, progress: Progress) -> list[str]:
        """Write what a run has done, in one transaction.

        Returns:
            Paths of files that this made obsolete; they can be deleted now, and not before.
        """
        run = progress.run_id
        with self.transaction():
            for name, values in progress.curves.items():
                if len(values):
                    self._connection.execute(
                        "INSERT INTO curves VALUES (?, ?, ?, ?, ?)",
                        (run, name, progress.first_step, len(values), _pack(values)),
                    )
            self._connection.executemany(
                "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?)",
                [(run, *row) for row in progress.evaluations],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO clock VALUES (?, ?, ?)",
                [(run, step, seconds) for step, seconds in progress.seconds.items()],
            )
            self._connection.execute(
                "UPDATE runs SET status = ?, steps_done = ?, order_hash = ?, diverged_at = ?, "
                "best_step = ?, message = ? WHERE run_id = ?",
                (
                    progress.status,
                    progress.steps_done,
                    progress.order_hash,
                    progress.diverged_at,
                    progress.best_step,
                    progress.message,
                    run,
                ),
            )
            obsolete: list[str] = []
            if progress.stored is not None or progress.status in ("done", "diverged"):
                rows = self._connection.execute(
                    "SELECT path FROM checkpoints WHERE run_id = ?", (run,)
                )
                kept = progress.stored.path if progress.stored else None
                obsolete = [path for (path,) in rows if path != kept]
                self._connection.execute("DELETE FROM checkpoints WHERE run_id = ?", (run,))
                if progress.stored is not None:
                    self._put_stored(progress.stored)
        return obsolete

    def fail(self, run_id: str, message: str) -> None:
        """The run's own code raised; what it had committed stays."""
        with self.transaction():
            self._connection.execute(
                "UPDATE runs SET status = 'failed', message = ? WHERE run_id = ?",
                (message, run_id),
            )

    def put_start(self, stored: Stored) -> None:
        """Where the start weights of a seed lie."""
        with self.transaction():
            self._put_stored(stored)

    def put_event(self, kind: str, text: str, *, run_id: str | None = None) -> None:
        """Something that a reader of the result should know."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO events (at, kind, run_id, text) VALUES (?, ?, ?, ?)",
                (now(), kind, run_id, text),
            )

    def put_timings(self, arm_id: int, rows: Iterable[Timing]) -> None:
        """The timing pass of an arm."""
        with self.transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO timings VALUES (?, ?, ?, ?, ?, ?)",
                [(arm_id, *row) for row in rows],
            )

    def put_verdict(self, body: Mapping[str, Any]) -> bool:
        """What was decided, if it is new; an earlier verdict is kept beside it."""
        text = _json(body)
        last = self.rows("SELECT body FROM verdicts ORDER BY verdict_id DESC LIMIT 1")
        if last and last[0]["body"] == text:
            return False
        with self.transaction():
            self._connection.execute("INSERT INTO verdicts (body) VALUES (?)", (text,))
        return True

    def _put_stored(self, stored: Stored) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", stored
        )

    # ------------------------------------------------------------------ reading

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside belongs to one moment, whatever is written meanwhile."""
        with explained(self.folder / FILE):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """The rows of any query, by column name."""
        with self._turn, explained(self.folder / FILE):
            cursor = self._connection.execute(query, arguments)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def meta(self) -> dict[str, Any]:
        """The facts about the race as a whole."""
        return {row["key"]: json.loads(row["value"]) for row in self.rows("SELECT * FROM meta")}

    def arms(self) -> list[dict[str, Any]]:
        """The settings of the arms, in their order."""
        rows = self.rows("SELECT * FROM arms ORDER BY arm_id")
        return [{"arm_id": row["arm_id"], **json.loads(row["settings"])} for row in rows]

    def runs(self) -> list[dict[str, Any]]:
        """The runs in the order of their execution, with the arm that each belongs to."""
        return self.rows(
            "SELECT runs.*, trials.role, arms.arm_id, arms.label FROM runs "
            "JOIN trials USING (trial_id) JOIN arms USING (arm_id) ORDER BY position"
        )

    def trials(self) -> list[PlannedTrial]:
        """The settings of the arms, in the order in which they were planned."""
        return [
            PlannedTrial(
                **{
                    **row,
                    "point": None if row["point"] is None else tuple(json.loads(row["point"])),
                    "values": _tuples(json.loads(row["values"])),
                }
            )
            for row in self.rows("SELECT * FROM trials ORDER BY trial_id")
        ]

    def selections(self) -> list[Selection]:
        """The settings that went into the final stage, by arm; empty before it."""
        rows = self.rows("SELECT * FROM selections ORDER BY arm_id")
        return [Selection(**{**row, "edges": tuple(json.loads(row["edges"]))}) for row in rows]

    def looks(self) -> list[list[int]]:
        """The seeds of every verdict that was made on more seeds than the one before."""
        return [json.loads(row["seeds"]) for row in self.rows("SELECT * FROM looks ORDER BY look")]

    def run(self, run_id: str) -> dict[str, Any]:
        """One run."""
        return self.rows("SELECT * FROM runs WHERE run_id = ?", run_id)[0]

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """The evaluations of a run, in the order of steps."""
        rows = self.rows(
            "SELECT step, split, metric, value FROM evaluations WHERE run_id = ? "
            "ORDER BY step, split, metric",
            run_id,
        )
        return [Evaluation(**{**r, "value": _number(r["value"])}) for r in rows]

    def curve(self, run_id: str, name: str) -> Floats:
        """A curve of a run from its first step, however it was cut into pieces."""
        rows = self.rows(
            "SELECT first_step, count, data FROM curves WHERE run_id = ? AND name = ? "
            "ORDER BY first_step",
            run_id,
            name,
        )
        try:
            pieces = [_unpack(row["data"]) for row in rows]
        except zlib.error as error:
            what = f"the {name} of {run_id}: {error}"
            raise LedgerError(damaged(self.folder / FILE, what)) from error
        expected = 1
        for row, piece in zip(rows, pieces, strict=True):
            if row["first_step"] != expected or row["count"] != len(piece):
                raise LedgerError(
                    damaged(self.folder / FILE, f"the {name} of {run_id} has a hole at {expected}")
                )
            expected += len(piece)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def clock(self, run_id: str) -> dict[int, float]:
        """Seconds spent in training, by step."""
        rows = self.rows("SELECT step, seconds FROM clock WHERE run_id = ? ORDER BY step", run_id)
        return {row["step"]: row["seconds"] for row in rows}

    def stored(self) -> list[Stored]:
        """The files of tensors that the ledger knows."""
        return [Stored(**row) for row in self.rows("SELECT * FROM checkpoints ORDER BY path")]

    def timings(self) -> dict[int, list[Timing]]:
        """The timing pass, by arm."""
        found: dict[int, list[Timing]] = {}
        for row in self.rows("SELECT * FROM timings ORDER BY arm_id, quantity"):
            found.setdefault(row.pop("arm_id"), []).append(Timing(**row))
        return found

    def events(self) -> list[dict[str, Any]]:
        """What happened on the way, oldest first."""
        return self.rows("SELECT at, kind, run_id, text FROM events ORDER BY event_id")

    def verdict(self) -> dict[str, Any] | None:
        """The last verdict; None before the race is finished."""
        rows = self.rows("SELECT body FROM verdicts ORDER BY verdict_id DESC LIMIT 1")
        return json.loads(rows[0]["body"]) if rows else None

    def content_digest(self) -> str:
        """A hash of everything that was measured and decided, and of nothing that a clock said.

        Two executions of one race on one machine agree; see `steepest.racing.digest`.
        """
        return content_digest(self)


def _pack(values: Floats) -> bytes:
    return zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 6)


def _unpack(data: bytes) -> Floats:
    return np.frombuffer(zlib.decompress(data), "<f4").astype(np.float32)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and optimizers want no lists."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
