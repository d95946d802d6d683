"""How long a layer's step may be, by the norms of its weights and of its update."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import minimum, where

__all__ = ["trust_ratio"]


def trust_ratio(weights: Any, update: Any, *, scale: Any = 1.0, alive: Any = None) -> Any:
    """``scale * weights / update``; 1, without the scale, where a norm is 0.

    Args:
        weights: The norm of the weights.
        update: The norm of what they are to move by.
        scale: A factor of the ratio.
        alive: The norm that must not be 0 beside that of the weights; default: ``update``.

    >>> trust_ratio(2.0, 4.0), trust_ratio(0.0, 4.0), trust_ratio(2.0, 0.0)
    (0.5, 1.0, 1.0)
    """
    both = minimum(weights, update if alive is None else alive) > 0
    return where(both, scale * weights / where(both, update, 1.0), 1.0)
