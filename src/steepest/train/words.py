"""Settings as a command line has them: ``val_loss, patience=5``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from steepest.errors import InputError, unknown_name

__all__ = ["read_settings"]


def read_settings(
    text: str, known: Mapping[str, Any], *, kind: str, bare: str | None = None
) -> dict[str, Any]:
    """Read ``key=value, key=value``; one value without a key is that of ``bare``.

    >>> read_settings("val_loss, patience=5", {"monitor": "", "patience": 1}, kind="x",
    ...               bare="monitor")
    {'monitor': 'val_loss', 'patience': 5}
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if bare is None or bare in found:
                raise InputError(
                    f"{kind}: cannot read '{part}'; expected key=value with one of "
                    f"{', '.join(known)}"
                )
            key, value = bare, key
        if key not in known:
            raise unknown_name(f"setting of {kind}", key, known)
        if key in found:
            raise InputError(f"{kind}: {key} was given twice")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value  # a word
    return found
