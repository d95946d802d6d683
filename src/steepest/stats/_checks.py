"""What every function of this package checks first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from steepest.errors import InputError

__all__ = ["check_level", "sample"]


def check_level(level: float) -> float:
    """The error rate of a level; `InputError` unless 0 < level < 1."""
    if not 0 < level < 1:
        hint = f"; did you mean {level / 100:g}?" if 1 < level < 100 else ""
        raise InputError(f"level must be between 0 and 1, such as 0.95, got {level!r}{hint}")
    return round(1 - level, 12)  # 1 - 0.95 is 0.05000000000000004


def sample(x: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """One number per seed as a float64 array; `InputError` for anything else."""
    try:
        values = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected one number per seed, got {x!r}") from error
    if values.ndim != 1:
        raise InputError(
            f"{name}: expected one number per seed (a one-dimensional array), "
            f"got shape {values.shape}"
        )
    return values
