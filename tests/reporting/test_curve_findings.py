"""What curves say, as a picture with marks, as a table, and inside a race's report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from made_curves import constant, cosine, healthy, made

from steepest.diagnosing import Diagnosis, judge
from steepest.racing.result import Result
from steepest.reporting.curve_findings import (
    curve_findings,
    findings_picture,
    findings_table,
    write_diagnosis,
)
from steepest.reporting.html import render


def plateau(seed: int) -> Diagnosis:
    curves = made(lambda s: 0.4 + 1.9 * np.exp(-s * 30), lr=constant, seed=seed)
    return Diagnosis((judge(curves),))


def test_the_picture_marks_the_stretch_on_which_a_finding_rests() -> None:
    found = plateau(0)
    (finding,) = found.findings
    (panel,) = findings_picture(found).panels
    (band,) = panel.figure.layout.shapes
    assert (band.x0, band.x1) == (finding.spans[0].low, finding.spans[0].high)
    assert "A plateau at an unlowered rate" in panel.figure.layout.annotations[0].text


def test_a_loss_that_is_not_a_number_is_a_gap_and_the_page_is_still_json(tmp_path: Path) -> None:
    curves = made(lambda s: np.where(s > 0.3, np.nan, 2.3 - s))
    found = Diagnosis((judge(curves),))
    page = write_diagnosis(found, tmp_path / "a" / "page.html")
    text = page.read_text()
    assert "The loss blows up" in text
    spec = json.loads(findings_picture(found).panels[0].figure.to_json())
    assert any(None in trace["y"] for trace in spec["data"] if isinstance(trace["y"], list))


def test_nothing_to_report_is_said_without_a_figure(tmp_path: Path) -> None:
    found = Diagnosis((judge(made(healthy, val=healthy, lr=cosine)),))
    assert findings_table(found) is None
    assert findings_picture(found).panels == ()
    assert "Nothing to report on 1 run." in write_diagnosis(found, tmp_path).read_text()
    assert (tmp_path / "diagnosis.html").exists()


def test_a_race_report_says_what_the_curves_say(
    hand_written_race: Callable[..., Result],
) -> None:
    result = hand_written_race(diverged=[(1, seed) for seed in range(6)])
    picture, table = curve_findings(result)
    assert picture is not None
    assert table is not None
    cells = [[cell.text for cell in row[:3]] for row in table.rows]
    assert [result.arms[1].label, "The loss blows up", "6 of 6"] in cells
    assert 'id="findings"' in render(result)


def test_a_race_that_has_not_begun_has_no_such_section(
    hand_written_race: Callable[..., Result],
) -> None:
    result = hand_written_race(
        pending=[(arm, seed) for arm in range(2) for seed in range(6)], timings=False
    )
    assert curve_findings(result) == (None, None)
    assert 'id="findings"' not in render(result)
