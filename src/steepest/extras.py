"""Optional packages: imported when they are needed, with the install line if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from steepest.errors import UnsupportedError

__all__ = ["need"]


def need(module: str, *, extra: str, what: str = "this", instead: str = "") -> Any:
    """Import an optional module, or say how to install it.

    Args:
        module: Its name.
        extra: The extra of steepest that brings it.
        what: What needs it, as the beginning of a sentence.
        instead: What can be done without it.

    Raises:
        UnsupportedError: If it is not installed.

    >>> need("nonesuch", extra="tables", what="reading .xlsx", instead="or write a .csv file")
    Traceback (most recent call last):
        ...
    steepest.errors.UnsupportedError: reading .xlsx needs nonesuch, which is not installed:
    pip install "steepest[tables]", or write a .csv file
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # it is installed, and something that it needs itself is not
        other = f", {instead}" if instead else ""
        raise UnsupportedError(
            f"{what} needs {package}, which is not installed: "
            f'pip install "steepest[{extra}]"{other}'
        ) from error
