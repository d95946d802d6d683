from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from steepest.errors import LedgerError
from steepest.racing.database import FILE
from steepest.racing.ledger import Ledger
from steepest.racing.records import Evaluation, PlannedRun, Progress, Stored, Timing

ARM = {"label": "a", "text": "a()", "kind": "rule", "name": "a", "values": {}, "schedule": None}
RUNS = [PlannedRun("a0-s0", 0, "final", 0, 100), PlannedRun("a0-s1", 0, "final", 1, 100)]


def create(folder: Path) -> Ledger:
    return Ledger.create(folder, meta={"spec": {"x": 1}, "fingerprint": {}}, arms=[ARM], runs=RUNS)


def progress(first: int, values: list[float], **more: object) -> Progress:
    curve = np.array(values, np.float32)
    defaults = {"run_id": "a0-s0", "status": "running", "curves": {"train_loss": curve}}
    done = {"first_step": first, "steps_done": first - 1 + len(values)}
    return Progress(**{**defaults, **done, **more})


def test_what_is_written_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([0.1, np.nan, np.inf, -0.0, 1e-45], np.float32)
    stored = Stored("checkpoints/x", "resume", "a0-s0", 0, 5)
    numbers = [Evaluation(5, "val", "loss", 0.1), Evaluation(5, "val", "odd", float("nan"))]
    with create(tmp_path / "r") as ledger:
        ledger.begin_run("a0-s0", start_hash="abc")
        ledger.commit(
            progress(1, list(values), evaluations=numbers, stored=stored, seconds={5: 1.5})
        )
        ledger.put_timings(0, [Timing("step_ms", 1.0, 0.5, 2.0, 7)])
        ledger.put_event("note", "hello", run_id="a0-s0")
    with Ledger.read(tmp_path / "r") as ledger:
        assert ledger.meta()["spec"] == {"x": 1}
        assert ledger.arms()[0]["text"] == "a()"
        assert ledger.curve("a0-s0", "train_loss").tobytes() == values.tobytes()
        assert ledger.curve("a0-s1", "train_loss").size == 0
        read = ledger.evaluations("a0-s0")
        assert read[0] == numbers[0]
        assert np.isnan(read[1].value)
        assert ledger.clock("a0-s0") == {5: 1.5}
        assert ledger.stored() == [stored]
        assert ledger.timings() == {0: [Timing("step_ms", 1.0, 0.5, 2.0, 7)]}
        assert ledger.events()[0]["text"] == "hello"
        run = ledger.run("a0-s0")
        assert (run["status"], run["steps_done"], run["start_hash"]) == ("running", 5, "abc")
        assert ledger.run("a0-s1")["status"] == "pending"


def test_a_commit_that_fails_leaves_no_part_of_itself(tmp_path: Path) -> None:
    with create(tmp_path) as ledger:
        ledger.commit(progress(1, [1.0]))
        before = ledger.content_digest()
        twice = [Evaluation(2, "val", "loss", 1.0), Evaluation(2, "val", "loss", 2.0)]
        with pytest.raises(LedgerError):
            ledger.commit(progress(2, [2.0], evaluations=twice, stored=None))
        assert ledger.content_digest() == before
        assert ledger.run("a0-s0")["steps_done"] == 1
        ledger.commit(progress(2, [2.0]))
        assert ledger.curve("a0-s0", "train_loss").tolist() == [1.0, 2.0]


def test_a_checkpoint_is_obsolete_only_after_the_commit_that_replaces_it(tmp_path: Path) -> None:
    def at(step: int) -> Stored:
        return Stored(f"checkpoints/{step}", "resume", "a0-s0", 0, step)

    with create(tmp_path) as ledger:
        assert ledger.commit(progress(1, [1.0], stored=at(1))) == []
        assert ledger.commit(progress(2, [1.0])) == []
        assert ledger.commit(progress(3, [1.0], stored=at(3))) == ["checkpoints/1"]
        assert ledger.stored() == [at(3)]


def test_rewinding_forgets_what_came_after_the_step(tmp_path: Path) -> None:
    with create(tmp_path) as ledger:
        ledger.commit(progress(1, [1.0, 2.0], evaluations=[Evaluation(2, "val", "loss", 1.0)]))
        kept = ledger.content_digest()
        ledger.commit(progress(3, [3.0], evaluations=[Evaluation(3, "val", "loss", 1.0)]))
        ledger.rewind("a0-s0", step=2)
        assert ledger.curve("a0-s0", "train_loss").tolist() == [1.0, 2.0]
        assert ledger.content_digest() == kept


def test_the_digest_sees_content_and_neither_clocks_nor_pieces(tmp_path: Path) -> None:
    digests = {}
    for name, pieces in {"one": [[1.0, 2.0, 3.0]], "two": [[1.0], [2.0, 3.0]]}.items():
        with create(tmp_path / name) as ledger:
            first = 1
            for piece in pieces:
                ledger.commit(progress(first, piece, seconds={first: float(len(pieces))}))
                first += len(piece)
            ledger.put_event("opened", name)
            ledger.put_timings(0, [Timing("step_ms", float(len(pieces)), None, None, 1)])
            digests[name] = ledger.content_digest()
    assert digests["one"] == digests["two"]
    changes = {
        "curve": lambda led: led.commit(progress(4, [4.0])),
        "evaluation": lambda led: led.commit(
            progress(4, [], evaluations=[Evaluation(3, "val", "loss", 1.0)])
        ),
        "status": lambda led: led.commit(progress(4, [], status="done")),
        "start": lambda led: led.begin_run("a0-s1", start_hash="x"),
        "order": lambda led: led.commit(progress(4, [], order_hash="x")),
        "verdict": lambda led: led.put_verdict({"text": "x"}),
        "weights": lambda led: led.put_start(Stored("w", "start", None, 0, 0, "abc")),
    }
    for change in changes.values():
        with Ledger.write(tmp_path / "one") as ledger:
            before = ledger.content_digest()
            change(ledger)
            assert ledger.content_digest() != before


def test_the_last_bit_of_a_float_changes_the_digest(tmp_path: Path) -> None:
    seen = set()
    for number, value in enumerate([0.1, float(np.nextafter(0.1, 1))]):
        with create(tmp_path / str(number)) as ledger:
            ledger.commit(progress(1, [], evaluations=[Evaluation(0, "val", "loss", value)]))
            seen.add(ledger.content_digest())
    assert len(seen) == 2


WRITER = """
import sys
from steepest.errors import LedgerError
from steepest.racing.ledger import Ledger
try:
    Ledger.write(sys.argv[1]).close()
    print("written")
except LedgerError as error:
    print(error)
"""


def other_process_writes(folder: Path) -> str:
    command = [sys.executable, "-c", WRITER, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_second_writer_is_refused_and_told_why(tmp_path: Path) -> None:
    with create(tmp_path):
        with pytest.raises(LedgerError, match="another process is writing in"):
            Ledger.write(tmp_path)
        assert "another process is writing in" in other_process_writes(tmp_path)
    assert other_process_writes(tmp_path) == "written\n"


def test_readers_see_whole_commits_while_the_writer_goes_on(tmp_path: Path) -> None:
    problems: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with Ledger.read(tmp_path) as ledger:
                steps = ledger.run("a0-s0")["steps_done"]
                length = len(ledger.curve("a0-s0", "train_loss"))
                if length < steps or length % 5:
                    problems.append(f"{steps} steps, {length} values")

    with create(tmp_path) as ledger:
        reader = threading.Thread(target=read)
        reader.start()
        for k in range(60):
            ledger.commit(progress(1 + 5 * k, [float(k)] * 5))
        stop.set()
        reader.join()
    assert problems == []


def test_a_snapshot_belongs_to_one_moment(tmp_path: Path) -> None:
    with create(tmp_path) as writer, Ledger.read(tmp_path) as reader:
        with reader.snapshot():
            assert reader.run("a0-s0")["steps_done"] == 0
            writer.commit(progress(1, [1.0, 2.0]))
            assert reader.run("a0-s0")["steps_done"] == 0
            assert reader.curve("a0-s0", "train_loss").size == 0
        assert reader.run("a0-s0")["steps_done"] == 2


def test_a_ledger_appears_with_its_whole_plan_or_not_at_all(tmp_path: Path) -> None:
    wrong = [RUNS[0], RUNS[0]]
    with pytest.raises(LedgerError):
        Ledger.create(tmp_path, meta={}, arms=[ARM], runs=wrong)
    assert not (tmp_path / FILE).exists()
    with create(tmp_path) as ledger:
        assert len(ledger.runs()) == 2


def test_a_folder_without_a_race_is_no_race(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.read(tmp_path / "none")
    with pytest.raises(LedgerError, match=r"has no ledger\.sqlite"):
        Ledger.write(tmp_path)


@pytest.mark.parametrize("opening", [Ledger.read, Ledger.write])
def test_foreign_and_damaged_files_are_named(tmp_path: Path, opening) -> None:
    path = tmp_path / FILE
    path.write_text("certainly no database, but long enough to look at" * 50)
    with pytest.raises(LedgerError, match="is damaged"):
        opening(tmp_path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(LedgerError, match="was not written by steepest"):
        opening(tmp_path)
    path.unlink()
    create(tmp_path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="format 99 and this steepest reads up to 4"):
        opening(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(LedgerError, match="format 1, of an earlier steepest"):
        opening(tmp_path)


def test_damage_inside_the_file_is_found_before_it_is_written_to(tmp_path: Path) -> None:
    with create(tmp_path) as ledger:
        for k in range(200):
            ledger.commit(progress(1 + 50 * k, list(np.random.default_rng(k).random(50))))
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 8] = b"\xa5" * (4096 * 5)
    path.write_bytes(bytes(data))
    with pytest.raises(LedgerError, match="damaged"):
        Ledger.write(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions work otherwise there")
def test_a_finished_race_in_a_folder_that_cannot_be_written_is_readable(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder = tmp_path / "r"
    create(folder).close()
    folder.chmod(0o500)
    try:
        with Ledger.read(folder) as ledger:
            assert len(ledger.runs()) == 2
        with pytest.raises(LedgerError, match="cannot write in"):
            Ledger.write(folder)
    finally:
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot make the folder"):
        create(tmp_path / "file" / "r")
