"""The seven steps in their order."""

from __future__ import annotations

from collections.abc import Callable

from steepest.recipes.checking import find_rate, initial_loss, tiny_sample
from steepest.recipes.kitchen import Kitchen
from steepest.recipes.records import Record
from steepest.recipes.searching import coarse_grid, listen, longer, refine

__all__ = ["STEPS"]

STEPS: dict[int, Callable[[Kitchen], Record]] = {
    1: initial_loss,
    2: tiny_sample,
    3: find_rate,
    4: coarse_grid,
    5: longer,
    6: listen,
    7: refine,
}
