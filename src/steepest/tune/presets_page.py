"""The table of preset spaces in the documentation, made from `steepest.tune.presets`.

    python -m steepest.tune.presets_page

writes it into docs/tuning.md between its two marks; a test checks that it is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from steepest.errors import InputError
from steepest.tune.presets import PRESETS, Preset
from steepest.tune.space import Space
from steepest.values import Range, write_value

__all__ = ["filled", "main", "table"]

BEGIN = "<!-- presets: written by python -m steepest.tune.presets_page -->"
END = "<!-- end of presets -->"


def table() -> str:
    """One row per hyperparameter of every rule: what is searched or fixed, and the source."""
    lines = ["| rule | | value | source |", "| --- | --- | --- | --- |"]
    for name, preset in PRESETS.items():
        lines += _rows(name, preset)
    return "\n".join(lines)


def _rows(name: str, preset: Preset) -> list[str]:
    rows = []
    for key, dimension in preset.space.dimensions.items():
        text = str(Space({key: dimension})).partition("=")[2]
        scale = ""
        if isinstance(dimension, Range):
            scale = {"log": "log", "one_minus_log": "log of 1 − x"}.get(dimension.scale or "", "")
        value = f"`{text}` ({scale})" if scale else f"`{text}`"
        rows.append((f"`{key}`", value, preset.sources[key]))
    for key, value in preset.space.fixed.items():
        rows.append((f"`{key}`", f"fixed: `{write_value(value)}`", preset.sources[key]))
    schedule = f"`{preset.schedule}`" if preset.schedule else "none"
    rows.append(("schedule", schedule, preset.sources["schedule"]))
    first = [f"`{name}`", *[""] * (len(rows) - 1)]
    return [
        f"| {head} | {key} | {value} | {source} |"
        for head, (key, value, source) in zip(first, rows, strict=True)
    ]


def filled(page: str) -> str:
    """The page with the current table between the marks.

    Raises:
        InputError: If the page lacks them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"the page has no place for the table: no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Write the table into the given page, docs/tuning.md by default."""
    path = Path(arguments[0] if arguments else "docs/tuning.md")
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
