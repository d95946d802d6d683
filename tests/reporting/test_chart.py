"""Charts as pages, SVG and PNG: what stands in them, where, and that all three say the same."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from steepest.errors import InputError, UnsupportedError
from steepest.reporting.braille import braille
from steepest.reporting.canvas import png, svg
from steepest.reporting.chart import Chart, Line, Mark, figure, ranges, ticks
from steepest.reporting.save import save_charts

X = np.logspace(-4, 0, 41)
Y = 2.0 + (np.log10(X) + 2) ** 2
SPACE = "{http://www.w3.org/2000/svg}"


def chart(**changes):
    given = {
        "title": "loss <after> 100 & more steps",
        "lines": [Line(x=X, y=Y, name="mean", color="#006cb4", low=Y - 0.5, high=Y + 0.5)],
        "marks": [Mark(x=0.01, text="suggestion 0.01", low=0.005, high=0.02, color="#d86c18")],
        "x_title": "learning rate",
        "y_title": "loss",
        "x_scale": "log",
    }
    return Chart(**(given | changes))


def shapes(text, kind):
    return list(ElementTree.fromstring(text).iter(SPACE + kind))


def points(element):
    return np.array([[float(v) for v in p.split(",")] for p in element.attrib["points"].split()])


def test_a_logarithmic_axis_places_points_by_their_logarithms() -> None:
    text = svg([chart()], title="A picture")
    (curve,) = [e for e in shapes(text, "polyline") if e.get("stroke") == "#006cb4"]
    drawn = points(curve)
    assert np.allclose(np.diff(drawn[:, 0]), np.diff(drawn[:, 0])[0], atol=0.11)
    assert drawn[:, 1].argmax() == Y.argmin()  # down is down
    # the mark stands where the curve has its minimum, its stripe around it
    (mark,) = [e for e in shapes(text, "polyline") if e.get("stroke") == "#d86c18"]
    assert points(mark)[0, 0] == pytest.approx(drawn[Y.argmin(), 0], abs=0.2)
    band, stripe = None, None
    for area in shapes(text, "polygon"):
        if area.get("fill") == "#d86c18":
            stripe = points(area)
        else:
            band = points(area)
    low, high = stripe[:, 0].min(), stripe[:, 0].max()
    per_decade = (drawn[-1, 0] - drawn[0, 0]) / 4
    assert high - low == pytest.approx(per_decade * math.log10(4), abs=0.2)
    assert band[:, 1].min() < drawn[:, 1].min()
    words = [e.text for e in shapes(text, "text")]
    assert {"0.0001", "0.01", "1", "learning rate", "loss", "suggestion 0.01"} <= set(words)
    assert "loss <after> 100 & more steps" in words


def test_values_that_are_no_numbers_interrupt_a_line() -> None:
    y = Y.copy()
    y[10:12] = np.nan
    y[20] = np.inf
    line = Line(x=X, y=y, color="#006cb4")
    text = svg([chart(lines=[line], marks=())], title="A picture")
    pieces = [points(e) for e in shapes(text, "polyline") if e.get("stroke") == "#006cb4"]
    assert [len(p) for p in pieces] == [10, 8, 20]
    assert not re.search(rb"[\" ,](nan|-?inf)[\", ]", text)


def test_a_png_has_the_colours_of_the_lines_where_the_svg_has_the_lines() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    from io import BytesIO

    line = Line(x=X, y=np.full(41, 3.0), color="#006cb4", width=4)
    given = chart(lines=[line], marks=(), y_range=(0.0, 6.0))
    drawn = image.open(BytesIO(png([given], title="A picture"))).convert("RGB")
    pixels = np.asarray(drawn).astype(int)
    blue = (np.abs(pixels - [0x00, 0x6C, 0xB4]).sum(2)) < 60
    rows = np.nonzero(blue.any(1))[0]
    element = next(
        e
        for e in shapes(svg([given], title="A picture"), "polyline")
        if e.get("stroke") == "#006cb4"
    )
    assert rows.mean() / 2 == pytest.approx(points(element)[:, 1].mean(), abs=1.5)
    columns = np.nonzero(blue.any(0))[0]
    assert columns.min() / 2 == pytest.approx(points(element)[0, 0], abs=2)
    assert columns.max() / 2 == pytest.approx(points(element)[-1, 0], abs=2)


def test_without_pillow_the_way_to_a_png_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnsupportedError, match=r'pip install "steepest\[png\]"'):
        png([chart()], title="A picture")


def test_the_browsers_figure_has_the_same_axes() -> None:
    drawn = figure(chart())
    assert drawn.layout.xaxis.type == "log"
    assert tuple(drawn.layout.xaxis.range) == pytest.approx((-4, 0))
    assert tuple(drawn.layout.yaxis.range) == ranges(chart())[1]
    assert drawn.data[-1].y == pytest.approx(Y)


def test_ticks_are_round_and_inside() -> None:
    for low, high in [(0, 999), (0.31, 0.77), (-2.5, 3), (0, 12345)]:
        places = [at for at, _ in ticks(low, high, "linear")]
        assert 3 <= len(places) <= 8
        assert all(low <= at <= high for at in places)
        assert np.ptp(np.diff(places)) < 1e-9
    assert next(word for _, word in ticks(-6, 0, "log")) == "1e-6"
    assert len(ticks(-0.2, 0.1, "log")) == 4


def test_the_ending_says_the_format_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    for ending, begins in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype")):
        if ending == ".png":
            pytest.importorskip("PIL", reason="Pillow is not installed")
        path = save_charts([chart()], tmp_path / "new" / f"c{ending}", title="A picture")
        assert path.read_bytes().startswith(begins)
    assert sorted(p.suffix for p in (tmp_path / "new").iterdir()) == [".html", ".png", ".svg"]
    with pytest.raises(InputError, match=r"must end in .html, .svg, .png, got"):
        save_charts([chart()], tmp_path / "c.pdf", title="A picture")
    with pytest.raises(InputError, match="cannot be written"):
        save_charts([chart()], tmp_path / "new" / "c.svg" / "d.svg", title="A picture")


def test_braille_draws_every_dot_where_its_value_is() -> None:
    lines = braille([0.0] * 8, low=0, high=1, width=4, height=2)
    assert lines == ["    ", "⣀⣀⣀⣀"]
    lines = braille([1.0] * 8, low=0, high=1, width=4, height=2)
    assert lines == ["⠉⠉⠉⠉", "    "]
    step = braille([1.0] * 4 + [0.0] * 4, low=0, high=1, width=4, height=1)
    assert step[0][0] == "⠉"
    assert step[0][-1] == "⣀"
    gap = braille([0.0, math.nan, math.nan, 0.0], low=0, high=1, width=2, height=1)
    assert gap == ["⡀⢀"]
