"""Flags for the options of ready-made tasks: ``--data ads.xlsx`` is ``text(data=ads.xlsx)``.

The flags are made from the table of ready-made tasks, so a task's option is its flag in every
command that takes a task.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from steepest import tasks
from steepest.tasks.options import Option

__all__ = ["takes_task_options"]


def takes_task_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with the argument ``task`` the flags; it gets them inside the task's text."""
    own = inspect.signature(command)
    found = {name: wearers for name, wearers in _by_option().items() if name not in own.parameters}
    flags = {name: f"--{name.replace('_', '-')}" for name in found}

    @functools.wraps(command)
    def with_flags(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, None) for name in found}
        given = {name: value for name, value in given.items() if value is not None}
        task = kwargs["task"]
        kwargs["task"] = (
            tasks.with_options(task, given, flags=flags)
            if isinstance(task, str)
            else _each(task, given, flags)
        )
        command(*args, **kwargs)

    hints = get_type_hints(command, include_extras=True)
    types = {name: _typed(name, wearers) for name, wearers in found.items()}
    more = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=types[name]
        )
        for name in found
    ]
    old = [p.replace(annotation=hints[name]) for name, p in own.parameters.items()]
    with_flags.__signature__ = own.replace(parameters=[*old, *more])  # type: ignore[attr-defined]
    with_flags.__annotations__ = {**hints, **types}
    return with_flags


def _each(specs: list[str], given: dict[str, Any], flags: dict[str, str]) -> list[str]:
    """Of several tasks, each gets the flags that it takes; one that nobody takes is refused."""
    known = tasks.options_by_task()
    takes = [known.get(spec.split("(")[0].strip(), {}) for spec in specs]
    for key, value in given.items():
        if not any(key in own for own in takes):
            tasks.with_options(specs[0], {key: value}, flags=flags)
    return [
        tasks.with_options(spec, {k: v for k, v in given.items() if k in own}, flags=flags)
        for spec, own in zip(specs, takes, strict=True)
    ]


def _by_option() -> dict[str, dict[str, Option]]:
    """Option to task to what it means there."""
    found: dict[str, dict[str, Option]] = {}
    for task, options in tasks.options_by_task().items():
        for name, option in options.items():
            found.setdefault(name, {})[task] = option
    return found


def _typed(name: str, wearers: dict[str, Option]) -> Any:
    """The annotation from which typer makes the flag."""
    first = next(iter(wearers.values()))
    kind: Any = next((k for k in (bool, int, float) if k in first.types), str)
    meanings: dict[str, list[str]] = {}
    for task, option in wearers.items():
        default = (
            "" if option.required or option.default is None else f" Default: {option.default}."
        )
        meanings.setdefault(option.help + default, []).append(task)
    text = " ".join(f"\\[{', '.join(names)}] {meaning}" for meaning, names in meanings.items())
    flag = name.replace("_", "-")
    declared = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    panel = "Options of ready-made tasks"
    return Annotated[
        kind | None,
        typer.Option(declared, help=text, show_default=False, rich_help_panel=panel),
    ]
