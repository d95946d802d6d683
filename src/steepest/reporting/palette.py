"""One colour, one marker and one dash per arm, the same in every figure of a report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COLORS", "Look", "look_of"]

# Chosen for the largest smallest distance (OKLab) between any two of the first six, seen with
# normal, protanopic and deuteranopic eyes (Machado, Oliveira & Fernandes 2009, severity 1), with a
# luminance between 0.125 and 0.305: a contrast of 3:1 or more on the light page and on the dark
# one, so that one colour serves both (WCAG 2.2, 1.4.11). test_palette.py measures it.
COLORS = (
    "#006cb4",  # blue
    "#d86c18",  # orange
    "#309c9c",  # teal
    "#b42484",  # magenta
    "#5490fc",  # sky
    "#a8483c",  # brick
    "#fc4884",  # pink
    "#009c60",  # green
    "#9a8400",  # olive
    "#3c48fc",  # indigo
    "#8a6fc0",  # violet
    "#7a7f87",  # grey
)
# Nobody tells twelve colours apart: the marker and the dash say the same thing once more.
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "star", "hexagon", "pentagon")
DASHES = ("solid", "6px,3px", "2px,2px", "9px,3px,2px,3px")


@dataclass(frozen=True)
class Look:
    """How one arm is drawn.

    Attributes:
        color: Hexadecimal colour, readable on light and on dark ground.
        symbol: Plotly's name of the marker.
        dash: Plotly's dash of lines; solid for the first six arms.
    """

    color: str
    symbol: str
    dash: str

    def faint(self, alpha: float) -> str:
        """The colour with an opacity, as CSS writes it.

        >>> Look("#006cb4", "circle", "solid").faint(0.2)
        'rgba(0,108,180,0.2)'
        """
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha:g})"


def look_of(arm: int) -> Look:
    """The look of the arm with this number, counted in the order of the race's plan.

    >>> look_of(0).color, look_of(7).dash
    ('#006cb4', '6px,3px')
    """
    return Look(
        COLORS[arm % len(COLORS)],
        SYMBOLS[arm % len(SYMBOLS)],
        DASHES[arm // 6 % len(DASHES)],
    )
