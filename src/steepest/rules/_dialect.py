"""What one library means by one rule's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Dialect"]


@dataclass(frozen=True)
class Dialect:
    """One library's meaning of one rule.

    Attributes:
        rule: The rule's name, with modifiers if the library has them built in.
        path: ``module:attribute`` of the class or function.
        library: Its name on the package index; the version is in `VERSIONS`.
        values: What to tell the rule so that it is the library's at the library's defaults.
        stress: The library's arguments with which it was measured a second time.
        stressed: The rule's values for those arguments, beside ``values``.
        off: How far apart the two were found to be; see `steepest.rules._dialects`.
        steps: Whether the library counts the steps of each tensor or of a whole group, which
            differs when a gradient is missing.
        shapes: What it was measured on: the rules for matrices see only matrices.
        constant: Measured with a constant rate.
        at_defaults: Measured at the library's defaults too, and not only under stress.
        note: What no value of the rule expresses, or what is surprising.
    """

    rule: str
    path: str
    library: str = field(kw_only=True)
    off: float = field(kw_only=True)
    values: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    stress: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    stressed: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    steps: Literal["tensor", "group"] = field(default="tensor", kw_only=True)
    shapes: Literal["any", "matrix", "square"] = field(default="any", kw_only=True)
    constant: bool = field(default=False, kw_only=True)
    at_defaults: bool = field(default=True, kw_only=True)
    note: str = field(default="", kw_only=True)

    @property
    def exact(self) -> bool:
        """Whether the rule follows the library to rounding."""
        return self.off < 1e-11
