"""A curve in a terminal, drawn with braille: every character is two dots wide and four high."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["braille"]

# The bits of U+2800 … U+28FF, by column and row of the dot.
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def braille(
    values: Sequence[float], *, low: float, high: float, width: int = 60, height: int = 6
) -> list[str]:
    """Lines of text that draw values, evenly spread from left to right.

    Args:
        values: What is drawn; what is not finite leaves a gap.
        low: Drawn at the bottom; what is lower, too.
        high: Drawn at the top.
        width: In characters.
        height: In characters.

    >>> for line in braille([0, 1, 2, 3], low=0, high=3, width=2, height=1):
    ...     print(line)
    ⡠⠊
    """
    across, up = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    before: int | None = None
    for column in range(across):
        value = _at(values, column / (across - 1))
        if not math.isfinite(value) or not high > low:
            before = None
            continue
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        row = round((1 - share) * (up - 1))
        # a steep piece is drawn as a line and not as a few dots
        first, last = (row, row) if before is None else sorted((row, before))
        inside = range(first + (before == first), last + 1 - (before == last)) or (row,)
        for dot in inside:
            cells[dot // 4][column // 2] |= _BITS[column % 2][dot % 4]
        before = row
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in cells]


def _at(values: Sequence[float], share: float) -> float:
    """The value at a part of the way, between its neighbours."""
    place = share * (len(values) - 1)
    left = min(int(place), len(values) - 1)
    right = min(left + 1, len(values) - 1)
    if place == left:
        return float(values[left])
    return float(values[left] + (place - left) * (values[right] - values[left]))
