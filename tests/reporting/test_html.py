"""The page: what stands in it, that it is safe, silent and small, for races in every state."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from steepest.errors import LedgerError
from steepest.racing.result import Result
from steepest.reporting import html
from steepest.reporting.facts import headline
from steepest.reporting.html import render, write_html

Make = Callable[..., Result]
ALL = [(arm, seed) for arm in range(2) for seed in range(6)]
NASTY = ('<b>bold</b> & "quoted" </script>', "아다델타 학습률 0.5", "it's `x` %{y} ${z}")

STATES: dict[str, dict[str, Any]] = {
    "decided": {"gap": 0.01},
    "one seed": {"seeds": 1},
    "one arm": {"arms": ("adam()",)},
    "one arm, one seed, no data but training data": {
        "arms": ("adam()",), "seeds": 1, "splits": (), "timings": False,
    },
    "all diverged": {"diverged": ALL},
    "some diverged, one failed": {"diverged": [(1, 0), (1, 3)], "failed": [(0, 2)]},
    "interrupted": {"pending": [(0, 5), (1, 4), (1, 5)]},
    "not begun": {"pending": ALL, "timings": False},
    "no validation data": {"splits": ("test",)},
    "no test data": {"splits": ("val",)},
    "no target": {"target": None},
    "target out of reach": {"target": 0.9999},
    "unfair": {"unequal": True},
    "weights deleted": {"weights": False},
    "one step": {"steps": 1, "evaluations": 1},
    "nasty labels": {"arms": NASTY, "task": "글자 <분류>"},
    "twelve arms": {"arms": tuple(f"arm {n}" for n in range(12)), "seeds": 3, "steps": 60},
}  # fmt: skip


class Outline(HTMLParser):
    """Visible text, addresses, and whether elements close in the order in which they opened."""

    VOID = frozenset({"meta", "link", "path", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.heads: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [v for k, v in attrs if k in ("href", "src", "action") and v]
        if named.get("id"):
            self.ids.append(str(named["id"]))
        if named.get("class") == "plot":
            self.plots += 1
            assert named.get("aria-label")
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.heads.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def specs(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="spec">(.*?)</script>', page, re.S)
    return [json.loads(text) for text in found]


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_race_has_a_well_formed_page(hand_written_race: Make, state: str) -> None:
    result = hand_written_race(**STATES[state])
    page = render(result)
    seen = outline(page)
    assert headline(result) in " ".join(seen.text)
    assert seen.heads[0] == "h1"
    assert seen.heads.count("h1") == 1
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.plots == len(specs(page))
    assert [a for a in seen.addresses if a != "data:,"] == []


def test_labels_are_escaped_wherever_they_stand(hand_written_race: Make) -> None:
    result = hand_written_race(arms=NASTY, task="글자 <분류>")
    page = render(result)
    assert "<b>bold" not in page
    text = "".join(outline(page).text)
    for label in NASTY:
        assert label in text
    notes = [note["text"] for spec in specs(page) for note in spec["layout"].get("annotations", ())]
    assert any("&lt;b&gt;bold" in note for note in notes)  # plotly reads HTML in its texts
    assert not any("<b>" in note for note in notes)


def test_the_page_carries_plotly_once_and_whole(hand_written_race: Make) -> None:
    page = render(hand_written_race())
    (packed,) = re.findall(r'id="plotly">(.*?)</script>', page, re.S)
    assert gzip.decompress(base64.b64decode(packed)).decode("utf-8") == get_plotlyjs()


def test_the_page_forbids_every_request(hand_written_race: Make) -> None:
    page = render(hand_written_race())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src &#39;none&#39;") or policy.startswith(
        "default-src 'none'"
    )
    assert "http" not in policy


def test_a_page_of_sixty_thousand_steps_is_small(hand_written_race: Make, tmp_path: Path) -> None:
    path = write_html(hand_written_race(steps=5000), tmp_path / "report.html")
    assert path.stat().st_size < 3_000_000


def test_the_expected_figures_are_drawn(hand_written_race: Make) -> None:
    page = render(hand_written_race())
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert titles == [
        "Every seed", "The difference, seed by seed",
        "All arms: moving averages", "adadelta(lr=0.5)", "adam(lr=0.001)",
        "Validation loss", "Validation accuracy",
        "Steps", "Seconds of training",
        "Time per epoch", "Time per training step", "Time of the optimizer step",
        "Memory of the optimizer state",
        "Relative distance ‖a − b‖ / ‖a‖", "Cosine of the two ways from the start",
        "Mean difference a − b", "Learning rate",
    ]  # fmt: skip


def test_what_is_drawn_is_what_was_measured(hand_written_race: Make) -> None:
    result = hand_written_race(steps=100)
    figure = html.final_picture(result).panels[0].figure  # type: ignore[union-attr]
    finals = {run.seed: 100 * run.metrics["test_accuracy"]
              for run in result.runs if run.arm == result.ranking[0].label}  # fmt: skip
    assert list(figure.data[0].x) == pytest.approx([finals[seed] for seed in sorted(finals)])
    loss = html.training_loss(result).panels[1].figure  # type: ignore[union-attr]
    steps, values = result.curves("train_loss")[result.arms[0].label, 0]
    assert np.array_equal(loss.data[0].x, steps)
    assert np.allclose(loss.data[0].y, values)
    window = 5  # of a race of 100 steps
    middle = np.convolve(values, np.ones(window) / window, "valid")
    line = loss.data[len(result.seeds)]
    assert np.allclose(np.asarray(line.y)[2:-2], middle, rtol=1e-5)


def test_the_interval_that_is_drawn_is_the_one_that_decided(hand_written_race: Make) -> None:
    result = hand_written_race(gap=0.01)
    figure = html.final_picture(result).panels[1].figure  # type: ignore[union-attr]
    bar = figure.data[1]
    c = result.verdict.pairs[0].comparison
    assert bar.x[0] + bar.error_x.array[0] == pytest.approx(100 * c.high)
    assert bar.x[0] - bar.error_x.arrayminus[0] == pytest.approx(100 * c.low)


def test_a_diverged_arm_does_not_flatten_the_others(hand_written_race: Make) -> None:
    result = hand_written_race(diverged=[(1, seed) for seed in range(6)])
    panels = html.training_loss(result).panels  # type: ignore[union-attr]
    assert panels[0].figure.layout.yaxis.range == panels[1].figure.layout.yaxis.range
    assert panels[2].title == "adam(lr=0.001) (on a scale of its own)"


def test_misses_stand_in_their_own_column(hand_written_race: Make) -> None:
    result = hand_written_race(target=0.9999)
    picture = html.target_picture(result)
    assert picture is not None
    assert picture.says == "No run of any arm reached the target."
    figure = picture.panels[0].figure
    assert "not reached" in [note.text for note in figure.layout.annotations]
    assert set(figure.data[0].marker.symbol) == {"x"}


def test_thinning_is_stated_with_its_numbers(hand_written_race: Make) -> None:
    picture = html.training_loss(hand_written_race(steps=5000))
    assert picture is not None
    assert "Of 5,000 batches per run, 333 are drawn" in picture.notes[0]
    drawn = sum(len(t.x) for p in picture.panels for t in p.figure.data if t.mode == "markers")
    assert drawn == 12 * 333


def test_deleted_weights_cost_the_layers_and_nothing_else(hand_written_race: Make) -> None:
    page = render(hand_written_race(weights=False))
    assert "The layers are not compared" in page
    assert 'id="layers"' not in page
    assert 'id="loss"' in page


def test_the_page_is_the_same_when_written_twice(hand_written_race: Make) -> None:
    result = hand_written_race()
    assert render(result) == render(Result(result.folder))


def test_an_unwritable_place_is_refused_and_named(hand_written_race: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"report cannot be written to .*file/report\.html"):
        write_html(hand_written_race(), tmp_path / "file" / "report.html")


def test_a_folder_gets_a_report_and_no_leftovers(hand_written_race: Make) -> None:
    result = hand_written_race()
    before = set(result.folder.iterdir())
    assert write_html(result, result.folder) == result.folder / "report.html"
    assert set(result.folder.iterdir()) - before == {result.folder / "report.html"}
