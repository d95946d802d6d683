"""The task as a whole: the same data for every arm, nothing leaks, Korean from end to end."""

import io
import os
import re
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import solo_runs
import torch
from rich.cells import cell_len
from rich.console import Console
from tables import ENGLISH, rows_of, write_csv

import steepest
from steepest import tasks
from steepest.errors import DataError, InputError
from steepest.reporting.terminal import print_result
from steepest.tasks.text import make
from steepest.tasks.text.vocabulary import UNK, Vocabulary
from steepest.train.population import Member, Population


def load(path, **options):
    written = "".join(f", {key}={value}" for key, value in options.items())
    return tasks.load(f"text(data='{path}'{written})")


def test_the_task_says_what_it_is(english):
    task = load(english, max_length=16)
    assert task.name == "text-mails"
    assert (len(task.train), len(task.val), len(task.test)) == (84, 12, 24)
    assert "120 texts of mails.csv ('text'), ham 60, spam 60 ('label')" in task.describe
    assert task.primary == ("accuracy", True)
    assert any("'text' as the text and 'label' as the label" in note for note in task.notes)
    for part, each in ((task.train, 42), (task.val, 6), (task.test, 12)):
        assert part.targets.bincount().tolist() == [each, each]


def test_it_is_the_same_from_the_cache_and_without_it(english, monkeypatch):
    first = load(english).fingerprint()
    calls = []
    monkeypatch.setattr(
        Vocabulary, "encode", lambda *a, **k: calls.append(a) or [2]
    )  # would be noticed
    assert load(english).fingerprint() == first
    assert not calls
    kept = list(Path(os.environ["XDG_CACHE_HOME"], "steepest", "tokens").iterdir())
    assert [stat.S_IMODE(p.stat().st_mode) for p in kept] == [0o600]
    load(english, max_length=8)
    assert calls


def test_a_damaged_cache_is_made_anew(english):
    first = load(english).fingerprint()
    (kept,) = Path(os.environ["XDG_CACHE_HOME"], "steepest", "tokens").iterdir()
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    assert load(english).fingerprint() == first
    kept.write_bytes(b"no")
    assert load(english).fingerprint() == first


def test_without_a_cache_folder_it_says_so_and_goes_on(english, monkeypatch):
    first = load(english).fingerprint()
    Path(os.environ["XDG_CACHE_HOME"], "steepest", "tokens").chmod(0o777)
    task = load(english)
    assert any(
        "tokens are not kept for the next time: no cache folder for tokens: other" in n
        for n in task.notes
    )
    assert task.fingerprint() == first


def test_the_vocabulary_sees_no_held_out_text(english, monkeypatch):
    seen = []
    learn = Vocabulary.learn
    monkeypatch.setattr(Vocabulary, "learn", lambda texts: seen.extend(texts) or learn(texts))
    task = load(english)
    assert len(seen) == len(task.train) == 84


def test_duplicates_stay_together_and_are_reported(tmp_path):
    rows = rows_of(ENGLISH, 120)
    rows += [(f"  {text.upper()} ", label) for text, label in rows[:30]]
    rows.append((rows[0][0], rows[1][1]))
    task = load(write_csv(tmp_path / "a.csv", [("text", "label"), *rows]))
    (note,) = (n for n in task.notes if n.startswith("duplicates"))
    assert "31 rows" in note
    assert "1 text with more than one label" in note
    seen = [
        {tuple(row[:n].tolist()) for row, n in zip(p.tokens, p.lengths, strict=True)}
        for p in (task.train, task.val, task.test)
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_unequal_classes_are_weighted_and_judged_by_macro_f1(tmp_path):
    rows = [r for i, r in enumerate(rows_of(ENGLISH, 240)) if r[1] == "ham" or i % 10 == 0]
    path = write_csv(tmp_path / "a.csv", [("text", "label"), *rows])
    task = load(path)
    assert task.primary == ("macro_f1", True)
    assert any("unequal size (ham 84, spam 17 to train)" in note for note in task.notes)
    y = task.train.targets
    scores = torch.zeros(len(y), 2)
    assert task.loss(scores, y).item() == pytest.approx(np.log(2), rel=1e-5)
    wrong = torch.tensor([[0.0, -50.0]]).repeat(len(y), 1)  # every spam is missed: half of all
    assert task.loss(wrong, y).item() == pytest.approx(25.0, rel=1e-4)
    plain = load(path, class_weights="equal")
    assert plain.primary == ("accuracy", True)
    assert plain.loss(wrong, y).item() == pytest.approx(50 * 17 / 101, rel=0.02)


def test_no_arm_decays_biases_and_norms_unless_asked(english):
    task = load(english)
    run = solo_runs.solo(task, optimizer=lambda p: torch.optim.AdamW(p, weight_decay=0.1))
    decayed, spared = run.optimizer.param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in spared["params"])
    assert spared["weight_decay"] == 0.0
    plain = solo_runs.solo(
        load(english, decay_all="true"), optimizer=lambda p: torch.optim.AdamW(p, weight_decay=0.1)
    )
    assert len(plain.optimizer.param_groups) == 1


def test_a_member_equals_its_solo_run(english):
    task = load(english, max_length=16)
    population = Population(task, [Member(solo_runs.adam, None, s) for s in (0, 1)], steps=12)
    chunks = population.advance(12)
    for place in (0, 1):
        run = solo_runs.solo(task, seed=place, steps=12)
        torch.testing.assert_close(run.advance(12).loss, chunks[place].loss, rtol=1e-3, atol=1e-5)
        ours, theirs = run.evaluate("test"), population.evaluate("test")[place]
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_train_on_all_takes_the_validation_data_too(english):
    task = tasks.load(f"text(data='{english}')", train_on="all")
    assert task.val is None
    assert (len(task.train), len(task.test)) == (96, 24)
    assert torch.equal(task.test.tokens, load(english).test.tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "txt"}, r"unknown column of mails.csv 'txt'; did you mean 'text'\?"),
        ({"label_column": "labl"}, r"'labl'; did you mean 'label'\?"),
        ({"max_length": 2}, r"max_length must be at least 4 tokens, got 2"),
        ({"val": 2}, r"val must be a share between 0 and 1, got 2"),
        ({"empty_cells": "keep"}, r"unknown value of empty_cells"),
        ({"model": "./nowhere"}, r"there is no folder .*nowhere"),
    ],
)
def test_wrong_options_are_told(english, options, message):
    with pytest.raises(InputError, match=message):
        load(english, **options)


def test_korean_from_end_to_end(korean, tmp_path, monkeypatch):
    task = load(korean, max_length=16)
    assert any("read as cp949" in note for note in task.notes)
    assert "광고 60, 일반 60 ('분류')" in task.describe
    unknown = (task.test.tokens == UNK).float().mean().item()
    assert unknown < 0.05
    monkeypatch.chdir(tmp_path)
    result = steepest.race(
        "text(data=메일.csv, max_length=16)",
        {"빠른 아담": "adam(lr=3e-3)", "느린 에스지디": "sgd(lr=1e-3)"},
        seeds=1,
        epochs=12,
        timing=0,
        engine="solo",
        out="경주",
    )
    means = {row.label: row.mean for row in result.ranking}
    assert means["빠른 아담"] > 0.95 > means["느린 에스지디"]
    page = result.report().read_text(encoding="utf-8")
    assert "빠른 아담" in page
    assert "메일.csv" in page
    for width in (60, 100):
        shown = io.StringIO()
        print_result(result, Console(file=shown, width=width))
        lines = shown.getvalue().split("\n")
        assert all(cell_len(line) <= width for line in lines)
        first, second = (
            next(line for line in lines if re.match(rf" \d   ● {label}  ", line))
            for label in ("빠른 아담", "느린 에스지디")
        )
        assert cell_len(first) == cell_len(second)  # a Korean letter takes two cells
        assert len(first) != len(second)
    monkeypatch.chdir("/")
    steepest.resume(tmp_path / "경주")  # found again from another folder


@pytest.mark.slow
def test_a_large_file_is_read_in_bounded_memory_and_time(tmp_path):
    """6 MB in this test; docs/text.md has the figures for 200 MB."""
    path = tmp_path / "large.csv"
    rows = rows_of(ENGLISH, 2000)
    with path.open("w") as file:
        file.write("text,label\n")
        for k in range(40):
            file.writelines(f"{text} {k} {'padding ' * 4},{label}\n" for text, label in rows)
    begin = time.perf_counter()
    task = make.text(data=path, max_length=16)
    assert len(task.train) + len(task.val) + len(task.test) == 80_000
    assert time.perf_counter() - begin < 120


def test_a_table_with_a_hole_is_refused_on_the_command_line(tmp_path):
    rows = [("text", "label"), *rows_of(ENGLISH, 30)]
    rows[7] = ("", "ham")
    with pytest.raises(DataError, match=r"a.csv, row 8: column 'text' is empty"):
        load(write_csv(tmp_path / "a.csv", rows))
