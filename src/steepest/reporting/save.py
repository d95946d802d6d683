"""Charts into the file that a user named: a page, an SVG or a PNG, by its ending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steepest.errors import InputError
from steepest.reporting import canvas
from steepest.reporting.chart import Chart, panel
from steepest.reporting.drawing import Picture
from steepest.reporting.page import Page, render_page, write_whole

__all__ = ["FORMATS", "charts_page", "check_format", "save_charts"]

FORMATS = (".html", ".svg", ".png")


def check_format(path: str | Path) -> str:
    """The ending of a picture's file; `InputError` for any that is not known."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(
            f"a picture's file must end in {', '.join(FORMATS)}, got '{path}'; name it so"
        )
    return ending


def save_charts(
    charts: Sequence[Chart],
    path: str | Path,
    *,
    title: str,
    under: str = "",
    columns: int = 1,
    height: float = 240,
    key: str = "picture",
    question: str = "",
    says: str = "",
    page: Page | None = None,
) -> Path:
    """Write charts as a picture or a page.

    Args:
        charts: Row by row.
        path: The file; its ending says the format.
        title: The sentence over all.
        under: What it is about.
        columns: Charts beside each other, in a picture.
        height: Of a chart's frame.
        key: Of a page: the anchor of the figures.
        question: Of a page: the heading of the figures.
        says: Of a page: the sentence under that heading.
        page: What else a page says; its own pictures come after the charts.

    Raises:
        InputError: For an unknown ending, or a place that cannot be written to.
        UnsupportedError: For a PNG without Pillow.
    """
    ending = check_format(path)
    if ending == ".html":
        known = page or Page(headline=title, eyebrow=under)
        whole = charts_page(
            charts, known, height=height, key=key, question=question or title, says=says
        )
        return write_whole(path, render_page(whole).encode(), what="the page")
    draw = canvas.svg if ending == ".svg" else canvas.png
    data = draw(charts, title=title, under=under, columns=columns, height=height)
    return write_whole(path, data, what="the picture")


def charts_page(
    charts: Sequence[Chart], page: Page, *, height: float, key: str, question: str, says: str
) -> Page:
    """The page with the charts as its first picture; the arguments are those of `save_charts`."""
    tall = round(height + 70)
    figures = tuple(panel(chart, height=tall, wide=len(charts) == 1) for chart in charts)
    return replace(page, pictures=[Picture(key, question, says, figures), *page.pictures])
