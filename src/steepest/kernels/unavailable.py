"""The reason why there is no generated kernel here."""

from __future__ import annotations

from steepest.errors import SteepestError

__all__ = ["KernelUnavailable"]


class KernelUnavailable(SteepestError, RuntimeError):  # noqa: N818  (a state, not a mistake)
    """Kernels cannot be generated on this machine; ``engine="auto"`` then goes on without."""
