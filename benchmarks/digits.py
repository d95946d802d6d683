r"""The two halves of MNIST, for transfer: digits 0 to 4, and digits 5 to 9.

What docs/transfer.md says of them comes from:

steepest transfer benchmarks/digits.py:high --source benchmarks/digits.py:low \
    --arm 'adam(lr=1e-3)' --amounts 100,1000 --seeds 10
"""

from __future__ import annotations

import dataclasses
from typing import Any

import steepest
from steepest import tasks


def _half(first: int) -> steepest.Task:
    whole = tasks.load("mnist")

    def only(split: Any) -> Any:
        x, y = split
        kept = (y >= first) & (y < first + 5)
        return x[kept], y[kept] - first

    return dataclasses.replace(
        whole,
        name=f"digits {first} to {first + 4}",
        train=only(whole.train),
        val=only(whole.val),
        test=only(whole.test),
        describe="half of MNIST, ConvNet",
    )


def low() -> steepest.Task:
    """Digits 0 to 4."""
    return _half(0)


def high() -> steepest.Task:
    """Digits 5 to 9, as classes 0 to 4."""
    return _half(5)
