"""A ready-made task's options: one text, from the command line to the ledger and back."""

import sys
from pathlib import Path
from typing import Literal

import pytest

from steepest import tasks
from steepest.errors import InputError
from steepest.tasks.options import absolute, options_of, read, write


def table_task(
    *,
    data: Path,
    model: Path | str | None = None,
    column: str | None = None,
    length: int = 64,
    share: float = 0.1,
    lower: bool = True,
    empty: Literal["refuse", "skip"] = "refuse",
    train_on: str = "train",
) -> dict[str, object]:
    """A task for these tests.

    Args:
        data: The file
            to read.
        length: How long.
    """
    return dict(locals())


TABLE = {"table": table_task, "plain": lambda *, train_on="train": None}


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(sys.modules["steepest.tasks.load"], "_READY_MADE", TABLE)


def test_options_are_read_off_the_signature_and_the_docstring():
    options = options_of(table_task)
    assert list(options) == ["data", "model", "column", "length", "share", "lower", "empty"]
    assert options["data"].required
    assert options["data"].help == "The file to read."
    assert options["length"].default == 64
    assert options["empty"].choices == ("refuse", "skip")
    assert options["model"].types == (Path, str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("table", {}),
        ("table(data=a/b.xlsx)", {"data": "a/b.xlsx"}),
        ("table(data='my ads.xlsx', length=3)", {"data": "my ads.xlsx", "length": 3}),
        ("table(data=광고.xlsx, column=본문)", {"data": "광고.xlsx", "column": "본문"}),
        ("table(column='2024', share=1)", {"column": "2024", "share": 1.0}),
        ("table(lower=false, empty=skip)", {"lower": False, "empty": "skip"}),
        ("table(model=google/bert_uncased)", {"model": "google/bert_uncased"}),
        ("table(model=none)", {}),
    ],
)
def test_a_text_is_read_and_its_written_form_reads_back(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "data" in expected:
        expected = {**expected, "data": tmp_path / expected["data"]}
    name, settled = read(text, TABLE)
    assert (name, settled) == ("table", expected)
    assert read(write(name, settled), TABLE) == (name, settled)


def test_paths_are_made_absolute_and_a_model_only_where_it_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("table(data=a.csv, model=bert)", TABLE) == (
        f"table(data={tmp_path}/a.csv, model=bert)"
    )
    (tmp_path / "bert").mkdir()
    assert absolute("table(model=bert)", TABLE) == f"table(model={tmp_path}/bert)"
    assert absolute("table(model=./other)", TABLE) == f"table(model={tmp_path}/other)"
    assert absolute("own.py:task", TABLE) == f"{tmp_path}/own.py:task"
    assert absolute("package.module:task", TABLE) == "package.module:task"
    assert read(str(tmp_path / "my (1).py:task"), TABLE) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tabel(data=a)", r"unknown task 'tabel'; did you mean 'table'\?"),
        ("table(dta=a)", r"unknown option of task 'table' 'dta'; did you mean 'data'\?"),
        ("plain(data=a)", r"task 'plain' takes no options, got data"),
        ("table(length=1.5)", r"length must be a whole number, got 1.5"),
        ("table(length=many)", r"length must be a whole number, got many"),
        (
            "table(column=2024)",
            r"column must be a text, got 2024; to mean a text, quote it: '2024'",
        ),
        ("table(lower=1)", r"lower must be true or false, got 1"),
        ("table(data=3)", r"data must be a path, got 3"),
        ("table(empty=keep)", r"unknown value of empty of task 'table' 'keep'.*refuse, skip"),
        ("table(data=a, data=b)", r"cannot read the task .*'data' is given twice"),
        (
            "table(data=a) + cosine)",
            r"cannot read the task .*expected the end before '\+ cosine\)'",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(text, message):
    with pytest.raises(InputError, match=message):
        read(text, TABLE)


def test_a_missing_option_is_asked_for(known):
    with pytest.raises(InputError, match=r"task 'table' needs data: table\(data=...\), or --data"):
        tasks.load("table")
    assert tasks.load("table(data=a.csv, length=7)", train_on="all") == {
        **table_task(data=Path("a.csv").resolve(), length=7),
        "train_on": "all",
    }


FLAGS = {"data": "--data", "length": "--length"}


def test_flags_are_written_into_the_text(known, tmp_path):
    text = tasks.with_options("table", {"data": tmp_path / "a.csv", "length": 3}, flags=FLAGS)
    assert text == f"table(data={tmp_path}/a.csv, length=3)"
    more = tasks.with_options(f"table(data={tmp_path}/a.csv)", {"length": 3}, flags=FLAGS)
    assert more == text
    assert tasks.with_options("my_task.py:task", {}, flags=FLAGS) == "my_task.py:task"


def test_a_flag_of_another_task_names_its_task(known):
    with pytest.raises(InputError, match=r"--length is an option of the task table; 'plain' takes"):
        tasks.with_options("plain", {"length": 3}, flags=FLAGS)
    with pytest.raises(InputError, match=r"--data is .* 'own.py:task' takes no options"):
        tasks.with_options("own.py:task", {"data": "a"}, flags=FLAGS)
    with pytest.raises(InputError, match=r"--data is given, and data in 'table\(data=a\)' too"):
        tasks.with_options("table(data=a)", {"data": "b"}, flags=FLAGS)
