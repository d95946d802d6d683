"""The page, the terminal and the JSON of a race over several tasks."""

from __future__ import annotations

import html
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from steepest.api import MultiResult
from steepest.racing.result import Result
from steepest.reporting import print_several, several_json
from steepest.reporting.several import several_flags, several_headline
from steepest.reporting.several_figures import several_pictures

Make = Callable[..., Result]
TASKS = ("mnist-mlp", "글자 <분류>")
ARMS = ("adadelta(lr=0.5)", "adam(lr=0.001)", "<b>sgd</b>()")


def gathered(make: Make, folder: Path, *races: dict[str, Any]) -> MultiResult:
    """Hand-written races under one list."""
    results = [
        make(**{"arms": ARMS, "task": task, **of}) for task, of in zip(TASKS, races, strict=True)
    ]
    names = {
        task: os.path.relpath(r.folder, folder / "all")
        for task, r in zip(TASKS, results, strict=True)
    }
    (folder / "all").mkdir()
    (folder / "all" / "several.json").write_text(json.dumps({"version": 1, "tasks": names}))
    return MultiResult(folder / "all")


def printed(several: MultiResult, width: int) -> str:
    file = io.StringIO()
    print_several(several, Console(file=file, width=width))
    return file.getvalue()


def test_one_page_over_all_tasks_leads_to_one_per_task(
    hand_written_race: Make, tmp_path: Path
) -> None:
    several = gathered(hand_written_race, tmp_path, {"gap": 0.01}, {"gap": 0.01})
    page = several.report()
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'<a href="(.*?)"', text)
    assert len(links) == 2
    assert all((page.parent / link).resolve().is_file() for link in links)
    assert "<b>sgd" not in text
    assert text.count("<h1>") == 1
    assert several_headline(several) in html.unescape(text)
    assert "2 tasks are too few for a claim about tasks in general" in text


def test_a_clear_winner_is_named_and_a_close_one_is_not(
    hand_written_race: Make, tmp_path: Path
) -> None:
    clear = gathered(hand_written_race, tmp_path, {"gap": 0.02}, {"gap": 0.02})
    assert several_headline(clear) == (
        "Over 2 tasks adadelta(lr=0.5) has the best score; its interval meets no other arm's."
    )
    (tmp_path / "x").mkdir()
    close = gathered(hand_written_race, tmp_path / "x", {"gap": 0.0}, {"gap": 0.0})
    assert "its interval overlaps with" in several_headline(close)


def test_the_pictures_draw_the_aggregates(hand_written_race: Make, tmp_path: Path) -> None:
    several = gathered(hand_written_race, tmp_path, {"diverged": [(2, 1)]}, {"target": 0.9999})
    pictures = {picture.key: picture for picture in several_pictures(several)}
    assert list(pictures) == ["scores", "profile", "target-profile", "finals"]
    figure = pictures["scores"].panels[0].figure
    diamonds = [trace for trace in figure.data if trace.marker.symbol == "diamond"]
    assert [d.x[0] for d in diamonds] == [row.iqm for row in several.aggregate]
    curves = [trace for trace in pictures["profile"].panels[0].figure.data if trace.line.width > 0]
    for label, curve in zip(ARMS, curves, strict=True):
        score_RT = several.scores[label]
        place = len(curve.x) // 2
        share = np.mean(score_RT > np.float64(curve.x[place]), axis=0).mean()
        assert curve.y[place] == pytest.approx(100 * share)
    # nobody reaches the second task's target, so no curve passes one task of two
    for panel in pictures["target-profile"].panels:
        assert max(max(trace.y) for trace in panel.figure.data) == 50.0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_shows_it_within_its_width(
    hand_written_race: Make, tmp_path: Path, width: int
) -> None:
    text = printed(gathered(hand_written_race, tmp_path, {}, {"gap": 0.01}), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.startswith("Over 2 tasks ")
    assert "IQM of scores" in text
    aggregate = text.split("Arms over all tasks")[1].split("Task by task")[0]
    for arm in ("adadelta", "adam", "sgd"):  # columns give way in a narrow terminal, arms do not
        assert arm in aggregate


@pytest.mark.parametrize(
    "race",
    [
        {},
        {"seeds": 1},
        {"target": None},
        {"arms": ("adam()",)},
        {"pending": [(a, s) for a in range(3) for s in range(6)], "timings": False},
        {"diverged": [(a, s) for a in range(3) for s in range(6)]},
        {"unequal": True},
    ],
)
def test_every_state_has_a_page_a_print_and_strict_json(
    hand_written_race: Make, tmp_path: Path, race: dict[str, Any]
) -> None:
    several = gathered(hand_written_race, tmp_path, race, race)
    assert several.report().is_file()
    assert printed(several, 100)
    values = several_json(several)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values["races"]) == set(TASKS)
    assert values["races"][TASKS[0]]["verdict"]["metric"] == "test_accuracy"


def test_what_is_wrong_with_one_task_is_said_over_all(
    hand_written_race: Make, tmp_path: Path
) -> None:
    several = gathered(hand_written_race, tmp_path, {"pending": [(0, 5)]}, {"unequal": True})
    kinds = [(flag.kind, flag.text[:40]) for flag in several_flags(several)]
    assert kinds[0] == ("stop", "The races on mnist-mlp are not finished.")
    assert ("stop", "글자 <분류>: With seed 0 the arms started fr") in kinds
