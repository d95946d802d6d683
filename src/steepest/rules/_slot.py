"""What a rule remembers: the shape, the start and the conditions of one piece of its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Slot", "matrix_shape"]


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The matrix as which a ``matrix`` rule sees a tensor: what follows the first axis is columns.

    >>> matrix_shape((64, 3, 5, 5)), matrix_shape((10, 4)), matrix_shape((7,))
    ((64, 75), (10, 4), (7,))
    """
    return shape if len(shape) <= 2 else (shape[0], math.prod(shape[1:]))


@dataclass(frozen=True)
class Slot:
    """One piece of a rule's memory.

    Attributes:
        init: Its value before the first step: a number, the name of the hyperparameter that
            gives it (``"lr"`` for Rprop's step sizes), or ``"p"``: the parameter's own value
            before the rule's first step on it.
        when: The hyperparameter or option that must be non-zero for the slot to exist; the
            formula is handed ``None`` where it does not. None: it always exists.
        per: What there is one value of:

            * ``"element"``: the shape of the parameter;
            * ``"tensor"``: one number per parameter tensor;
            * ``"all"``: one number for all tensors that the optimizer trains together;
            * ``"row"``, ``"column"``: the last two axes' rows (..., m, 1) or columns (..., 1, n);
            * ``"left"``, ``"right"``: square matrices (m, m) and (n, n), one per side of the
              parameter's `matrix_shape`.
        only: The slot exists only for parameters with at least two axes (``"matrix"``), or only
            for those with fewer (``"vector"``). None: for all.
    """

    init: float | str = 0.0
    when: str | None = None
    per: Literal["element", "tensor", "all", "row", "column", "left", "right"] = "element"
    only: Literal["matrix", "vector"] | None = None

    def exists_for(self, ndim: int) -> bool:
        """Whether a parameter with that many axes has the slot."""
        return self.only is None or (self.only == "matrix") == (ndim >= 2)

    def shape(self, parameter: tuple[int, ...]) -> tuple[int, ...]:
        """The slot's shape for a parameter of that shape.

        >>> Slot(per="row").shape((4, 3)), Slot(per="left").shape((4, 3)), Slot().shape((2,))
        ((4, 1), (4, 4), (2,))
        """
        if self.per == "element":
            return parameter
        if self.per in ("tensor", "all"):
            return ()
        if self.per in ("left", "right"):
            parameter = matrix_shape(parameter)
        *stack, rows, columns = parameter
        two: dict[str, tuple[int, int]] = {
            "row": (rows, 1),
            "column": (1, columns),
            "left": (rows, rows),
            "right": (columns, columns),
        }
        return (*stack, *two[self.per])
