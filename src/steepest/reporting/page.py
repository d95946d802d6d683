"""Pages: HTML files that hold everything they show and ask no server for anything."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest.errors import LedgerError
from steepest.reporting.drawing import FONTS, Picture
from steepest.reporting.facts import Flag
from steepest.reporting.tables import Table

if TYPE_CHECKING:
    import jinja2

__all__ = [
    "Page",
    "asset",
    "columns_of",
    "environment",
    "fill",
    "plotly_bundle",
    "render_page",
    "specs_of",
    "write_whole",
]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page about one question that is no race.

    Attributes:
        headline: The answer, in a sentence.
        eyebrow: What it is about, over the headline.
        sentences: What else there is to say.
        flags: What to know before believing it.
        pictures: The figures.
        tables: By the key of the picture that they stand under.
        command: What repeats it.
    """

    headline: str
    eyebrow: str = ""
    sentences: Sequence[str] = ()
    flags: Sequence[Flag] = ()
    pictures: Sequence[Picture] = ()
    tables: Mapping[str, Sequence[Table]] = field(default_factory=dict)
    command: str = ""


def render_page(page: Page) -> str:
    """The page as text."""
    return fill(
        "page.html.j2",
        page.pictures,
        title=page.headline,
        eyebrow=page.eyebrow,
        headline=page.headline,
        sentences=page.sentences,
        flags=page.flags,
        tables_under=page.tables,
        marks=(),
        command=page.command,
    )


def fill(template: str, pictures: Sequence[Picture], **values: Any) -> str:
    """One of the package's page templates with its figures, style and script inside."""
    specs = {picture.key: list(specs_of(picture)) for picture in pictures}
    page: str = (
        environment()
        .get_template(template)
        .render(
            **values,
            pictures=pictures,
            specs=specs,
            columns=columns_of,
            version=version("steepest"),
            css=asset("report.css"),
            fonts=FONTS,
            js=asset("report.js"),
            bundle=plotly_bundle() if specs else "",
        )
    )
    return page


def write_whole(path: str | Path, data: bytes, *, what: str) -> Path:
    """Write a file; afterwards either the old one or the whole new one is there.

    Args:
        path: Where to; folders that are missing are made.
        data: What to write.
        what: How the message calls it.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    unborn = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unborn.write_bytes(data)
        unborn.replace(path)
    except OSError as error:
        raise LedgerError(
            f"{what} cannot be written to {path} ({error.strerror}); name another file"
        ) from error
    return path


def columns_of(picture: Picture) -> int:
    """How many panels stand side by side on a wide screen, so that no row is left half empty."""
    count = sum(not panel.wide for panel in picture.panels)
    return max(1, count if count <= 3 else 2 if count in (4, 8) else 3)


def specs_of(picture: Picture) -> Iterable[Any]:
    """Plotly's JSON of every panel, safe inside a script element."""
    from markupsafe import Markup

    for panel in picture.panels:
        # A script element ends at "</", whatever stands around it; JSON can say "<" otherwise.
        text = str(panel.figure.to_json()).replace("<", "\\u003c").replace(">", "\\u003e")
        yield Markup(text)  # noqa: S704 – just escaped for where it stands


def environment() -> jinja2.Environment:
    """Jinja over the package's templates; whatever comes from outside is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("steepest.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def asset(name: str) -> Any:
    """One of our own files, to be written into a page as it stands."""
    from markupsafe import Markup

    text = (files("steepest.reporting") / "templates" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 – our own file


@cache
def plotly_bundle() -> str:
    """plotly.js, gzipped and in base64: 2 MB of page instead of 5 MB."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")
