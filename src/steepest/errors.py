"""Every error that steepest raises on purpose.

A message says what was received, what was expected, and what to do. The command line prints
the message without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "GateError",
    "InputError",
    "LedgerError",
    "SteepestError",
    "TaskError",
    "UnsupportedError",
    "unknown_name",
]


class SteepestError(Exception):
    """The root of the tree; catch it to catch everything that steepest raises on purpose."""

    exit_code = 1


class InputError(SteepestError, ValueError):
    """The caller asked for something that cannot be: a bad value, an unknown name, a bad file."""

    exit_code = 2


class TaskError(InputError):
    """The user's task (model, loss, metric or data) does not do what a task has to do."""


class UnsupportedError(SteepestError, RuntimeError):
    """The wishes are clear, but do not go together, or not with these tensors."""

    exit_code = 2


class DataError(InputError):
    """A data file is missing, damaged, or not in the format that it should have."""


class LedgerError(InputError):
    """A race folder cannot be used: another race lies there, it is damaged, or not writable."""


class GateError(SteepestError):
    """A check with a pass mark was not passed."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest one suggested.

    >>> raise unknown_name("rule", "adm", ["adam", "sgd"])
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown rule 'adm'; did you mean 'adam'? Known: adam, sgd
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {kind} '{name}';{hint} Known: {', '.join(names)}")
