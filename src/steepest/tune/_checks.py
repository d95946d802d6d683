"""What the functions of this package refuse, in the same words everywhere."""

from __future__ import annotations

from typing import Any

from steepest.errors import InputError

__all__ = ["whole"]


def whole(name: str, value: Any, *, least: int = 1, why: str = "") -> None:
    """Raise `InputError` unless ``value`` is a whole number that is large enough.

    >>> whole("the number of trials", 0)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: the number of trials must be a whole number >= 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number >= {least}, got {value!r}{why}")
