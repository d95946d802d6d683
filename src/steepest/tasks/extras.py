"""Optional packages that ready-made tasks need, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from steepest.errors import UnsupportedError

__all__ = ["need"]


def need(module: str, *, extra: str, what: str) -> Any:
    """Import an optional module, or say how to install it.

    Args:
        module: Its name.
        extra: The extra of this package that brings it.
        what: What needs it, as the beginning of a sentence.

    >>> need("nonesuch", extra="tables", what="reading .xlsx")
    Traceback (most recent call last):
        ...
    steepest.errors.UnsupportedError: reading .xlsx needs nonesuch, which is not installed:
    pip install 'steepest[tables]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise UnsupportedError(
            f"{what} needs {module.split('.', maxsplit=1)[0]}, which is not installed: "
            f"pip install 'steepest[{extra}]'"
        ) from error
