"""What a journal promises: lines that stay, one writer, one thing in one folder."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import steepest
from steepest.errors import LedgerError
from steepest.racing.journal import FILE, forget, kind, opened, read
from steepest.racing.observer import StoppedError, stop_requests

SPEC = {"kind": "sweep", "rates": 5, "seeds": (0, 1)}


def begun(folder, spec=SPEC, **more):
    return opened(folder, spec, meta={"command": "typed"}, **more)


def tiny_task():
    x = torch.ones(8, 2)
    return steepest.Task(
        name="tiny", model=lambda: nn.Linear(2, 2), loss=nn.functional.cross_entropy,
        train=(x, torch.zeros(8).long()), batch_size=4,
    )  # fmt: skip


def test_rows_and_events_are_there_for_whoever_opens_or_reads_it_again(tmp_path):
    with begun(tmp_path) as journal:
        journal.add({"seed": 0, "value": 0.1})
        journal.tell("engine", "alone")
        journal.tell("engine", "alone")  # once is enough
    with begun(tmp_path) as again:
        assert again.rows == [{"seed": 0, "value": 0.1}]
        again.add({"seed": 1, "value": 0.2})
    header, rows, events = read(tmp_path)
    assert header["spec"] == json.loads(json.dumps(SPEC))
    assert header["meta"]["command"] == "typed"
    assert [row["seed"] for row in rows] == [0, 1]
    assert [(event["kind"], event["text"]) for event in events] == [("engine", "alone")]
    assert kind(tmp_path) == "sweep"
    assert kind(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_a_killed_process_did_not_finish_is_forgotten(tmp_path, cut):
    with begun(tmp_path) as journal:
        journal.add({"seed": 0})
        journal.add({"seed": 1})
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read(tmp_path)[1] == [{"seed": 0}]
    with begun(tmp_path) as journal:
        assert journal.rows == [{"seed": 0}]
        journal.add({"seed": 1})
    assert path.read_bytes() == whole


def test_what_else_lies_there_is_named_and_deleted_only_on_request(tmp_path):
    with begun(tmp_path) as journal:
        journal.add({"seed": 0})
    with (
        pytest.raises(LedgerError, match=r"another sweep: rates is 5 there and 6 here\. .*--fresh"),
        begun(tmp_path, SPEC | {"rates": 6}),
    ):
        pass
    study = {"kind": "average", "seeds": [0]}
    with (
        pytest.raises(LedgerError, match="sweep of another kind: sweep there and average here"),
        begun(tmp_path, study),
    ):
        pass
    assert read(tmp_path)[1] == [{"seed": 0}]
    with begun(tmp_path, study, fresh=True) as journal:
        assert journal.rows == []
    with pytest.raises(LedgerError, match="holds a study of another kind"), begun(tmp_path):
        pass
    forget(tmp_path)
    assert kind(tmp_path) is None


def test_only_one_process_writes_and_all_read(tmp_path):
    with begun(tmp_path) as journal:
        journal.add({"seed": 0})
        with pytest.raises(LedgerError, match="another process is writing"), begun(tmp_path):
            pass
        assert read(tmp_path)[1] == [{"seed": 0}]


def test_races_keep_out_of_its_folder_and_it_out_of_theirs(tmp_path):
    with begun(tmp_path / "journal"):
        pass
    settings = {"seeds": 1, "steps": 2, "timing": 0}
    for fresh in (False, True):
        with pytest.raises(LedgerError, match="folder of a study or a sweep; use another --out"):
            steepest.race(tiny_task(), ["sgd()"], out=tmp_path / "journal", fresh=fresh, **settings)
    for verb in (steepest.load, steepest.resume):
        with pytest.raises(LedgerError, match="a study or a sweep, not of a race: steepest report"):
            verb(tmp_path / "journal")
    steepest.race(tiny_task(), ["sgd()"], out=tmp_path / "race", **settings)
    with (
        pytest.raises(LedgerError, match=r"of a race; use .* for a sweep"),
        begun(tmp_path / "race"),
    ):
        pass


def test_a_file_of_somebody_else_is_refused(tmp_path):
    with pytest.raises(LedgerError, match=r"has no study\.jsonl"):
        read(tmp_path)
    for text in ("", "{}\n", "[1]\n", "no json\n", '{"steepest": 1}\n', '{"steepest": 99}\n'):
        (tmp_path / FILE).write_text(text)
        for reader in (read, kind):
            with pytest.raises(LedgerError, match="not written by this version of steepest"):
                reader(tmp_path)


def test_ctrl_c_twice_says_how_it_goes_on_too(tmp_path):
    with begun(tmp_path) as journal:
        with (
            pytest.raises(
                StoppedError, match=r"the rows are kept in .*, this is not\. Give the sam"
            ),
            stop_requests(journal.stopped("the rows are kept", ", this is not")),
        ):
            raise KeyboardInterrupt
        with stop_requests(journal.stopped("it is kept")) as stop:
            stop.obey()  # nobody asked
