"""Schedules as arms and commands write them."""

from __future__ import annotations

import ast
from typing import Any

from steepest.errors import InputError, unknown_name
from steepest.schedules._schedule import MAKERS, Schedule

__all__ = ["parse"]


def parse(text: str) -> Schedule:
    """Read a schedule as arms and commands write it: ``name``, ``name()`` or ``name(key=value)``.

    >>> from steepest.schedules import wsd
    >>> parse("wsd(decay=0.1, shape=sqrt)")(950, 1000) == wsd(decay=0.1, shape="sqrt")(950, 1000)
    True
    >>> parse("cosin(warmup=0.05)")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown schedule 'cosin'; did you mean 'cosine'? Known: ...
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _unreadable(text) from error
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    if not isinstance(call.func, ast.Name) or call.args:
        raise _unreadable(text)
    name = call.func.id
    if name not in MAKERS:
        raise unknown_name("schedule", name, MAKERS)
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _unreadable(text)
        if isinstance(keyword.value, ast.Name):  # shape=sqrt, without quotes
            arguments[keyword.arg] = keyword.value.id
            continue
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError as error:
            raise _unreadable(text) from error
    return MAKERS[name](**arguments)


def _unreadable(text: str) -> InputError:
    return InputError(
        f"cannot read the schedule '{text}'; expected name(key=value, ...) such as "
        "cosine(warmup=0.05) or step(milestones=[0.5, 0.75])"
    )
