"""Charts as an SVG or PNG file: laid out once as shapes, then written in either format.

Places are in pixels from the upper left corner. An SVG follows the reader's light or dark ground;
a PNG is drawn on white, at twice the size, and needs Pillow.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any, Literal, TypeAlias

import numpy as np

from steepest.extras import need
from steepest.reporting.chart import Chart, Dash, Line, Mark, ranges, ticks
from steepest.reporting.drawing import FONTS, Scale, thin

__all__ = ["png", "svg"]

WIDTH = 880
PAD = 24
LINE_HEIGHT = 24
LEFT, RIGHT, ABOVE, BELOW = 52, 10, 40, 40  # around a chart's frame
SCALE = 4  # pixels drawn per pixel of the layout; Pillow draws without smoothing
PNG_SCALE = 2  # pixels of the PNG, which is made smaller by averaging
TYPEFACES = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
TONES = {"ground": "#ffffff", "ink": "#1b1f24", "soft": "#59616b", "grid": "#e3e6ea"}
DARK = {"ground": "#14171a", "ink": "#e8eaed", "soft": "#a2aab4", "grid": "#2b3137"}

Point: TypeAlias = tuple[float, float]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Stroke:
    """A line through points, in a colour or a tone."""

    points: Sequence[Point]
    color: str
    width: float = 1.0
    dash: Dash = "solid"
    alpha: float = 1.0


@dataclass(frozen=True)
class Area:
    """A filled polygon."""

    points: Sequence[Point]
    color: str
    alpha: float


@dataclass(frozen=True)
class Words:
    """A line of text; ``y`` is its base line."""

    x: float
    y: float
    text: str
    tone: Literal["ink", "soft"] = "soft"
    size: float = 12
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"


Shape: TypeAlias = Stroke | Area | Words


def _layout(
    title: str, under: str, charts: Sequence[Chart], columns: int, height: float
) -> tuple[list[Shape], float]:
    """All shapes, and the height of the picture."""
    lines = textwrap.wrap(title, 78)
    shapes: list[Shape] = [
        Words(PAD, 14 + LINE_HEIGHT * n, line, "ink", 18, bold=True)
        for n, line in enumerate(lines, 1)
    ]
    top = 20 + LINE_HEIGHT * len(lines)
    for words in textwrap.wrap(under, 125):
        top += 18
        shapes.append(Words(PAD, top, words, size=12.5))
    top += 12
    room = (WIDTH - 2 * PAD + 16) / columns
    each = height + ABOVE + BELOW
    for n, chart in enumerate(charts):
        row, column = divmod(n, columns)
        shapes += _Frame(chart, PAD + column * room, top + row * each, room - 16, height).shapes()
    return shapes, top + math.ceil(len(charts) / columns) * each + 10


class _Frame:
    """One chart at its place."""

    def __init__(self, chart: Chart, x: float, y: float, width: float, height: float) -> None:
        self.chart = chart
        self.corner = x
        self.top = y + ABOVE
        self.left = x + LEFT
        self.width = width - LEFT - RIGHT
        self.height = height
        self.x_range, self.y_range = ranges(chart)

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def across(self, x: Numbers) -> Numbers:
        low, high = self.x_range
        return self.left + (_scaled(x, self.chart.x_scale) - low) / (high - low) * self.width

    def up(self, y: Numbers) -> Numbers:
        low, high = self.y_range
        share = (_scaled(y, self.chart.y_scale) - low) / (high - low)
        # what leaves the frame leaves it just so far that one sees where to
        places = self.bottom - np.clip(share, -0.02, 1.02) * self.height
        return np.where(np.isfinite(share), places, np.nan)

    def shapes(self) -> Iterator[Shape]:
        yield from self._axes()
        for number, mark in enumerate(self.chart.marks):
            yield from self._mark(mark, number)
        for line in self.chart.lines:
            yield from self._line(line)

    def _axes(self) -> Iterator[Shape]:
        chart, right = self.chart, self.left + self.width
        yield Words(self.corner, self.top - 22, chart.title, "ink", 13, bold=True)
        if chart.legend:
            yield from self._legend()
        elif chart.y_title:
            yield Words(self.corner, self.top - 7, chart.y_title, size=11)
        for at, word in ticks(*self.x_range, chart.x_scale, most=max(2, int(self.width // 80))):
            x = self.left + (at - self.x_range[0]) / np.ptp(self.x_range) * self.width
            yield Stroke([(x, self.top), (x, self.bottom)], "grid")
            yield Words(x, self.bottom + 15, word, size=11, anchor="middle")
        for at, word in ticks(*self.y_range, chart.y_scale, most=max(2, int(self.height // 34))):
            y = self.bottom - (at - self.y_range[0]) / np.ptp(self.y_range) * self.height
            yield Stroke([(self.left, y), (right, y)], "grid")
            yield Words(self.left - 6, y + 4, word, size=11, anchor="end")
        middle = (self.left + right) / 2
        yield Words(middle, self.bottom + 31, chart.x_title, size=11, anchor="middle")

    def _legend(self) -> Iterator[Shape]:
        at, y = self.left, self.top - 7
        for line in self.chart.lines:
            if line.name:
                points = [(at, y - 4), (at + 16, y - 4)]
                yield Stroke(points, line.color, line.width, line.dash, line.alpha)
                yield Words(at + 21, y, line.name, size=11)
                at += 40 + 6.2 * len(line.name)

    def _mark(self, mark: Mark, number: int) -> Iterator[Shape]:
        at = float(self.across(np.array([mark.x]))[0])
        if math.isfinite(mark.low) and math.isfinite(mark.high):
            low, high = self.across(np.array([mark.low, mark.high]))
            low, high = (float(np.clip(v, self.left, self.left + self.width)) for v in (low, high))
            corners = [(low, self.top), (high, self.top), (high, self.bottom), (low, self.bottom)]
            yield Area(corners, mark.color, 0.13)
        yield Stroke([(at, self.top), (at, self.bottom)], mark.color, 1.5, "dashed")
        leftwards = at > self.left + self.width / 2
        place = at - 6 if leftwards else at + 6
        anchor: Literal["start", "end"] = "end" if leftwards else "start"
        yield Words(place, self.top + 13 + 16 * number, mark.text, "ink", 12, anchor=anchor)

    def _line(self, line: Line) -> Iterator[Shape]:
        keep = thin(len(line.x), max(40, int(self.width)))
        x = self.across(np.asarray(line.x, float)[keep])
        y = self.up(np.asarray(line.y, float)[keep])
        if line.low is not None and line.high is not None:
            low, high = (self.up(np.asarray(v, float)[keep]) for v in (line.low, line.high))
            good = np.isfinite(low) & np.isfinite(high)
            outline = [*zip(x[good], high[good], strict=True)]
            outline += [*zip(x[good][::-1], low[good][::-1], strict=True)]
            if len(outline) > 3:
                yield Area([(float(a), float(b)) for a, b in outline], line.color, 0.16)
        if line.markers:
            r = 1.3 * line.width
            for a, b in zip(x, y, strict=True):
                if math.isfinite(a) and math.isfinite(b):
                    corners = [(a - r, b), (a, b - r), (a + r, b), (a, b + r)]
                    yield Area([(float(u), float(v)) for u, v in corners], line.color, line.alpha)
            return
        for piece in _pieces(x, y):
            yield Stroke(piece, line.color, line.width, line.dash, line.alpha)


def _scaled(values: Numbers, scale: Scale) -> Numbers:
    if scale == "linear":
        return values
    return np.log10(values, where=values > 0, out=np.full(len(values), np.nan))


def _pieces(x: Numbers, y: Numbers) -> Iterator[list[Point]]:
    """The stretches of a line that are numbers."""
    piece: list[Point] = []
    for a, b in zip(x, y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            piece.append((float(a), float(b)))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


# ---------------------------------------------------------------------- the two formats


def svg(
    charts: Sequence[Chart], *, title: str, under: str = "", columns: int = 1, height: float = 240
) -> bytes:
    """An SVG file without any script.

    Args:
        charts: Row by row.
        title: A sentence over all of them.
        under: A line under that.
        columns: Charts beside each other.
        height: Of a chart's frame.
    """
    shapes, tall = _layout(title, under, charts, columns, height)

    def rules(tones: dict[str, str]) -> str:
        return (
            f".ground{{fill:{tones['ground']};stroke:{tones['grid']}}}"
            f".ink{{fill:{tones['ink']}}}.soft{{fill:{tones['soft']}}}"
            f".grid{{stroke:{tones['grid']}}}"
        )

    alt = "; ".join(chart.alt or chart.title for chart in charts)
    body = "\n".join(map(_element, shapes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall:g}" width="{WIDTH}" '
        f'height="{tall:g}" role="img" font-family="{escape(FONTS)}">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(alt)}</desc>\n"
        f"<style>{rules(TONES)}@media(prefers-color-scheme:dark){{{rules(DARK)}}}</style>\n"
        f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{tall - 1:g}" rx="10"/>\n'
        f"{body}\n</svg>\n"
    ).encode()


def _element(shape: Shape) -> str:
    if isinstance(shape, Words):
        bold = ' font-weight="650"' if shape.bold else ""
        return (
            f'<text class="{shape.tone}" x="{shape.x:.1f}" y="{shape.y:.1f}" '
            f'font-size="{shape.size:g}" text-anchor="{shape.anchor}"{bold}>'
            f"{escape(shape.text)}</text>"
        )
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    if isinstance(shape, Area):
        return f'<polygon fill="{shape.color}" fill-opacity="{shape.alpha:g}" points="{points}"/>'
    if shape.color == "grid":
        return f'<polyline class="grid" points="{points}"/>'
    dash = ' stroke-dasharray="6,4"' if shape.dash == "dashed" else ""
    return (
        f'<polyline fill="none" stroke="{shape.color}" stroke-width="{shape.width:g}" '
        f'stroke-opacity="{shape.alpha:g}" stroke-linejoin="round"{dash} points="{points}"/>'
    )


def png(
    charts: Sequence[Chart], *, title: str, under: str = "", columns: int = 1, height: float = 240
) -> bytes:
    """A PNG file; the arguments are those of `svg`.

    Raises:
        UnsupportedError: If Pillow is not installed.
    """
    need("PIL", extra="png", what="a PNG", instead="or write an .svg or .html file")
    from PIL import Image, ImageDraw

    shapes, tall = _layout(title, under, charts, columns, height)
    size = (SCALE * WIDTH, SCALE * math.ceil(tall))
    image = Image.new("RGBA", size, TONES["ground"])
    for shape in shapes:
        if isinstance(shape, Words):
            _write(ImageDraw.Draw(image), shape)
            continue
        layer = Image.new("RGBA", size, (255, 255, 255, 0)) if shape.alpha < 1 else image
        _draw(ImageDraw.Draw(layer), shape)
        if layer is not image:
            image = Image.alpha_composite(image, layer)
    data = BytesIO()
    small = image.convert("RGB").reduce(SCALE // PNG_SCALE)
    small.quantize(256).save(data, "PNG", optimize=True)
    return data.getvalue()


def _draw(draw: Any, shape: Stroke | Area) -> None:
    color = TONES.get(shape.color, shape.color)
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    fill = (red, green, blue, round(255 * shape.alpha))
    points = [(SCALE * x, SCALE * y) for x, y in shape.points]
    if isinstance(shape, Area):
        draw.polygon(points, fill=fill)
        return
    width = max(1, round(SCALE * shape.width))
    for piece in _dashes(points) if shape.dash == "dashed" else [points]:
        draw.line(piece, fill=fill, width=width, joint="curve")


def _dashes(points: Sequence[Point], on: float = 6 * SCALE, off: float = 4 * SCALE) -> Any:
    """A line cut into strokes."""
    piece, left, drawing = [points[0]], on, True
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            share = done / length
            point = (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
            if drawing:
                yield [*piece, point]
            piece, drawing = [point], not drawing
            left = on if drawing else off
        left -= length - done
        piece.append((x1, y1))
    if drawing and len(piece) > 1:
        yield piece


def _write(draw: Any, words: Words) -> None:
    font, text = _font(words.size), words.text
    if not _is_wide(font):  # Pillow's own typeface has ASCII only
        text = text.translate({0x2212: "-", 0x2013: "-", 0xD7: "x", 0xB5: "u", 0xA0: " "})
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
    place = (SCALE * words.x, SCALE * words.y)
    color = TONES[words.tone]
    draw.text(place, text, fill=color, font=font, anchor=anchor, stroke_width=int(words.bold) * 0.6)


def _font(size: float) -> Any:
    from PIL import ImageFont

    for name in TYPEFACES:
        try:
            return ImageFont.truetype(name, SCALE * size * 0.94)
        except OSError:
            continue  # not on this machine
    return ImageFont.load_default(SCALE * size)


def _is_wide(font: Any) -> bool:
    """Whether a typeface has a minus sign that is not its box for what it lacks."""
    return bytes(font.getmask("\N{MINUS SIGN}")) != bytes(font.getmask("\uffff"))
