"""``steepest diagnose`` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steepest as package

CommandLine = Callable[..., Any]


@pytest.fixture
def overfitted(tmp_path: Path) -> Path:
    path = tmp_path / "curves.csv"
    rows = [f"{n},{2.3 * 0.8**n:.4f},{max(0.9, 2.3 - n / 3) + n / 30:.4f}" for n in range(1, 31)]
    path.write_text("epoch,loss,val_loss\n" + "\n".join(rows) + "\n")
    return path


def test_it_says_what_was_seen_what_to_do_and_where_the_picture_is(
    steepest: CommandLine, overfitted: Path, tmp_path: Path
) -> None:
    done = steepest("diagnose", overfitted, "--out", tmp_path / "page.html")
    assert done.code == 0, done.err
    assert "Overfitting" in done.out
    assert "early stopping" in done.out
    assert "the learning rate is not in the record" in done.out
    assert str(tmp_path / "page.html") in done.out
    assert "Overfitting" in (tmp_path / "page.html").read_text()


def test_json_holds_the_findings_with_their_numbers(
    steepest: CommandLine, overfitted: Path, tmp_path: Path
) -> None:
    done = steepest("diagnose", overfitted, "--json", "--out", tmp_path / "page.html")
    held = json.loads(done.out)
    (finding,) = held["runs"][0]["findings"]
    assert finding["kind"] == "overfitting"
    assert finding["numbers"]["gap"] > 0.5
    assert finding["spans"][0]["high"] == 30


def test_a_race_is_diagnosed_arm_by_arm_and_the_page_lies_in_its_folder(
    steepest: CommandLine, task_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "race"
    arms = ["sgd(lr=0)", "sgd(lr=0.5) + cosine()"]
    package.race(f"{task_file}:task", arms, seeds=2, steps=120, eval_every=10, timing=0, out=folder)
    done = steepest("diagnose", folder)
    assert done.code == 0, done.err
    assert "It never learns (2 runs)" in done.out
    assert "The learning rate is 0" in done.out
    assert (folder / "diagnosis.html").exists()
    found = package.diagnose(folder)
    assert [group.name for group in found.groups] == ["sgd(lr=0)", "sgd(lr=0.5) + cosine()"]
    assert found.groups[0].counts == {"never_learning": 2}
    assert "never_learning" not in found.groups[1].counts
    assert package.diagnose(package.load(folder)).headline == found.headline


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.csv"], "does not exist"),
        (["curves.csv", "--train-loss", "losss"], "did you mean 'loss'?"),
        (["curves.csv", "--baseline", "-1"], "baseline must be a number > 0"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_to_do(
    steepest: CommandLine, overfitted: Path, words: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(overfitted.parent)
    done = steepest("diagnose", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
