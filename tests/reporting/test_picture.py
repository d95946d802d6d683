"""The picture for a README: well-formed, small, safe, and true to the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from steepest.errors import LedgerError
from steepest.racing.result import Result
from steepest.reporting import write_summary_svg
from steepest.reporting.facts import headline

Make = Callable[..., Result]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    "options",
    [{}, {"seeds": 1}, {"arms": ("a",), "seeds": 1, "splits": ()}, {"diverged": [(1, 0)]},
     {"arms": ('<b> & "', "아다델타", "c")}, {"arms": tuple("abcdefghijkl"), "steps": 50},
     {"steps": 1, "evaluations": 1}],
)  # fmt: skip
def test_it_is_well_formed_and_small(
    hand_written_race: Make, tmp_path: Path, options: dict[str, object]
) -> None:
    result = hand_written_race(**options)
    path = write_summary_svg(result, tmp_path / "new" / "summary.svg")
    root = ElementTree.parse(path).getroot()
    assert root.findtext(f"{SVG}title") == headline(result)
    assert path.stat().st_size < 80_000
    assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "")


def test_every_finished_run_is_a_dot(hand_written_race: Make, tmp_path: Path) -> None:
    result = hand_written_race(diverged=[(1, 0)])
    root = ElementTree.parse(write_summary_svg(result, tmp_path / "a.svg")).getroot()
    dots = [path.findtext(f"{SVG}title") for path in root.iter(f"{SVG}path")]
    assert sum(dot is not None for dot in dots) == 11


def test_without_a_finished_run_it_is_refused(hand_written_race: Make, tmp_path: Path) -> None:
    nothing = hand_written_race(pending=[(a, s) for a in range(2) for s in range(6)])
    with pytest.raises(LedgerError, match="no finished run"):
        write_summary_svg(nothing, tmp_path / "a.svg")
