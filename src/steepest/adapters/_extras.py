"""Optional libraries: brought in when a function needs them, with the install line if missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from steepest.errors import InputError

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """The module, imported.

    Args:
        module: Its name.
        extra: The extra of steepest that brings it.

    Raises:
        InputError: If it is not installed; the message is the line that installs it.

    >>> require("math", extra="none").pi > 3
    True
    >>> require("no_such_library", extra="hf")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: this needs no_such_library, which is not installed; install it with:
    pip install "steepest[hf]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # it is installed, and something that it needs itself is not
        raise InputError(
            f"this needs {module.partition('.')[0]}, which is not installed; install it with: "
            f'pip install "steepest[{extra}]"'
        ) from error
