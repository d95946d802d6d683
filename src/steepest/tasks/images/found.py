"""What a reader of images hands on.

N          images
C, H, W    channels, height, width
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found"]


@dataclass(frozen=True)
class Found:
    """Images with their classes.

    Attributes:
        images: ``[N, C, H, W]``, bytes.
        labels: Numbers of classes.
        classes: Their names.
        test: How many of the last images were published as test data; 0 where none were.
        kind: What was read, in words.
        notes: What had to be decided.
    """

    images: NDArray[np.uint8]
    labels: list[int]
    classes: tuple[str, ...]
    test: int
    kind: str
    notes: tuple[str, ...] = ()
