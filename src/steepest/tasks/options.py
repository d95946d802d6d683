"""The options of ready-made tasks: ``text(data=ads.xlsx, max_length=64)``, written in one way.

This text is what the command line takes, what Python takes, and what a ledger keeps, with paths
made absolute, so that a race can be resumed from any folder. Which options there are, of which
types and with which defaults is read off the signature of the function that makes the task, and
what they mean off its docstring.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from steepest.errors import InputError, unknown_name
from steepest.values import Reader, write_value

__all__ = ["Option", "absolute", "options_of", "read", "settle", "write"]

Maker = Callable[..., Any]
_CALL = re.compile(r"\s*([\w-]+)\s*\(")


@dataclass(frozen=True)
class Option:
    """One option of a ready-made task.

    Attributes:
        name: Its name.
        types: What it may be: `Path`, `str`, `int`, `float`, `bool`.
        choices: Where it is one of a few words: these.
        default: `inspect.Parameter.empty` where it must be given.
        help: What it means.
    """

    name: str
    types: tuple[type, ...]
    choices: tuple[str, ...]
    default: Any
    help: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def options_of(maker: Maker) -> dict[str, Option]:
    """The options of the function behind a ready-made task, by name."""
    hints = get_type_hints(maker)
    described = _described(inspect.getdoc(maker) or "")
    found: dict[str, Option] = {}
    for name, parameter in inspect.signature(maker).parameters.items():
        if name == "train_on":
            continue
        kinds, choices = _kinds(hints[name])
        found[name] = Option(name, kinds, choices, parameter.default, described.get(name, ""))
    return found


def _kinds(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...]]:
    if get_origin(hint) is Literal:
        return (str,), get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(hint) if part is not type(None)]
        return tuple(k for kinds, _ in parts for k in kinds), tuple(
            c for _, cs in parts for c in cs
        )
    return (hint,), ()


def _described(doc: str) -> dict[str, str]:
    """Name to text of the section ``Args`` of a docstring."""
    _, _, section = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.split("\n"):
        if not line.startswith("    "):
            break
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def read(spec: str, table: Mapping[str, Maker]) -> tuple[str, dict[str, Any]] | None:
    """The name and the options in the text of a ready-made task; None for any other text.

    Raises:
        InputError: For a text that cannot be read, or an option that the task does not have.

    >>> read("my_task.py:task", {})
    """
    if spec in table:
        return spec, {}
    head = _CALL.match(spec)
    if head is None or not spec.rstrip().endswith(")"):
        return None
    name = head[1]
    if name not in table:
        raise unknown_name("task", name, table)
    reader = Reader(spec, what="task")
    reader.accept(head[0])
    written = reader.arguments()
    if spec[reader.at :].strip():
        reader.fail("expected the end")
    return name, settle(name, table[name], written)


def settle(name: str, maker: Maker, written: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the task's function takes them: of their types, paths absolute.

    Args:
        name: The task's.
        maker: The function behind it.
        written: By name, as they were read.

    Raises:
        InputError: For an option that there is not, or a value of another type.
    """
    options = options_of(maker)
    for key in written:
        if not options:
            raise InputError(f"task '{name}' takes no options, got {key}")
        if key not in options:
            raise unknown_name(f"option of task '{name}'", key, options)
    return {
        key: _settled(name, option, written[key])
        for key, option in options.items()
        if key in written and not (written[key] is None and option.default is None)
    }


def _settled(name: str, option: Option, value: Any) -> Any:
    if Path in option.types and isinstance(value, (str, Path)):
        path = Path(value).expanduser()
        means_path = str not in option.types or path.exists() or re.match(r"\.{0,2}/|~", str(value))
        return path.resolve() if means_path else str(value)
    if option.choices and value not in option.choices:
        given = value if isinstance(value, str) else write_value(value)
        raise unknown_name(f"value of {option.name} of task '{name}'", given, option.choices)
    if bool in option.types and isinstance(value, bool):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if float in option.types and number:
        return float(value)
    if int in option.types and number and value == int(value):
        return int(value)
    if str in option.types and isinstance(value, str):
        return value
    words = {Path: "a path", str: "a text", int: "a whole number", float: "a number"}
    wanted = " or ".join(words.get(kind, "true or false") for kind in option.types)
    quote = f"; to mean a text, quote it: '{value}'" if str in option.types and number else ""
    raise InputError(
        f"task '{name}': {option.name} must be {wanted}, got {write_value(value)}{quote}"
    )


def write(name: str, settled: Mapping[str, Any]) -> str:
    """The text of a ready-made task with its options, as `read` reads it.

    >>> write("text", {"data": Path("/data/ads.xlsx"), "max_length": 64})
    'text(data=/data/ads.xlsx, max_length=64)'
    >>> write("mnist", {})
    'mnist'
    """
    if not settled:
        return name
    inner = ", ".join(
        f"{key}={write_value(str(value) if isinstance(value, Path) else value)}"
        for key, value in settled.items()
    )
    return f"{name}({inner})"


def absolute(spec: str, table: Mapping[str, Maker]) -> str:
    """The same task, however the folder is changed: paths in its text are made absolute.

    >>> absolute("mnist", {"mnist": lambda: None})
    'mnist'
    """
    found = read(spec, table)
    if found is not None:
        return write(*found)
    place, colon, name = spec.rpartition(":")
    return f"{Path(place).resolve()}{colon}{name}" if place.endswith(".py") else spec
