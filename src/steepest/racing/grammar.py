"""The language in which arms are written, from text to plain values; it knows no optimizer.

arm      = head [ "(" [ argument { "," argument } ] ")" ] [ "+" schedule ]
head     = rule | package.module ":" Class | path/to/file.py ":" Class
rule     = name | modifier "(" rule ")"
argument = name "=" value
value    = number | true | false | none | word | 'text' | ( value, … ) | range | choice
range    = number ".." number
choice   = "{" value { "," value } "}"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from steepest.errors import InputError

__all__ = ["ArmText", "Choice", "Range", "read", "write_value"]


@dataclass(frozen=True)
class Range:
    """``low..high``: the hyperparameter is searched between these."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{write_value(self.low)}..{write_value(self.high)}"


@dataclass(frozen=True)
class Choice:
    """``{a, b, c}``: the hyperparameter is searched among these."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "{" + ", ".join(map(write_value, self.values)) + "}"


@dataclass(frozen=True)
class ArmText:
    """An arm as it was written.

    Attributes:
        head: The name in front of the parentheses.
        arguments: What stands in the parentheses; None where there are no parentheses.
        schedule: The text after the plus sign; None where there is none.
    """

    head: str
    arguments: Mapping[str, Any] | None
    schedule: str | None


_HEAD = re.compile(
    r"\s*((?:[^()+{}=,]*?\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*"
    r"|(?:[A-Za-z_]\w*\()+[A-Za-z_]\w*\)+(?=\s*\()|[A-Za-z_]\w*)\s*"
)
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>[+-]?(?:\d[\d_]*(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w])|[+-]?inf\b)"
    r"|(?P<word>[A-Za-z_][\w.-]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<mark>\.\.|[(){},=+])"
    r")"
)
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def read(text: str) -> ArmText:
    """Parse the text of an arm.

    Raises:
        InputError: With the place where the text stops making sense.

    >>> read("sgd(lr=0.1, nesterov=true) + cosine(warmup=0.05)")
    ArmText(head='sgd', arguments={'lr': 0.1, 'nesterov': True}, schedule='cosine(warmup=0.05)')
    >>> read("torch.optim:Adam(betas=(0.9, 0.99))").arguments
    {'betas': (0.9, 0.99)}
    >>> read("adam(lr=1e-4..1e-1)").arguments["lr"]
    Range(low=0.0001, high=0.1)
    >>> read("adam(lr=1e-3")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: cannot read the arm 'adam(lr=1e-3': expected ',' or ')' at its end
    """
    return _Reader(text).arm()


def write_value(value: Any) -> str:
    """A value as `read` understands it, in its shortest form.

    >>> write_value(1e-05), write_value(True), write_value((0.9, 0.99)), write_value("hat")
    ('1e-5', 'true', '(0.9, 0.99)', 'hat')
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", repr(value)).replace("e+", "e")
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(write_value, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w.-]*", value) and value.lower() not in _WORDS
        return value if plain else f"'{value}'"
    return str(value)


class _Reader:
    """A cursor over the text: one method per line of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.kind = ""

    def arm(self) -> ArmText:
        match = _HEAD.match(self.text)
        if not match:
            self._fail("expected the name of a rule, package.module:Class or file.py:Class", 0)
        self.at = match.end()
        arguments = None
        if self._accept("("):
            arguments = self._arguments()
        schedule = None
        if self._accept("+"):
            schedule = self.text[self.at :].strip()
            if not schedule:
                self._fail("expected a schedule after '+', for example '+ cosine(warmup=0.05)'")
        elif self.text[self.at :].strip():
            self._fail("expected '(', '+' or the end")
        return ArmText(match[1], arguments, schedule)

    def _arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._accept(")"):
            start = self.at
            name = self._next()
            if self.kind != "word" or not name.isidentifier() or not self._accept("="):
                self._fail("expected name=value", start)
            if name in found:
                self._fail(f"'{name}' is given twice", start)
            found[name] = self._value()
            if not self._accept(","):
                if not self._accept(")"):
                    self._fail("expected ',' or ')'")
                break
        return found

    def _value(self) -> Any:
        start = self.at
        found = self._next()
        if self.kind == "number":
            number = _number(found)
            if not self._accept(".."):
                return number
            high = self._next()
            if self.kind != "number":
                self._fail("expected a number after '..'", start)
            return Range(float(number), float(_number(high)))
        if self.kind == "word":
            return _WORDS.get(found.lower(), found)
        if self.kind == "text":
            return found[1:-1]
        if found == "(":
            return self._list(")")
        if found == "{":
            values = self._list("}")
            if not values:
                self._fail("a choice needs at least one value", start)
            return Choice(values)
        return self._fail("expected a value", start)

    def _list(self, closing: str) -> tuple[Any, ...]:
        values: list[Any] = []
        while not self._accept(closing):
            values.append(self._value())
            if not self._accept(","):
                if not self._accept(closing):
                    self._fail(f"expected ',' or '{closing}'")
                break
        return tuple(values)

    def _next(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        if not match:
            self.kind = ""
            return ""
        self.at = match.end()
        self.kind = str(match.lastgroup)
        return match[self.kind]

    def _accept(self, mark: str) -> bool:
        match = re.compile(r"\s*" + re.escape(mark)).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match is not None

    def _fail(self, expected: str, at: int | None = None) -> NoReturn:
        rest = self.text[self.at if at is None else at :].strip()
        place = f"before '{rest}'" if rest else "at its end"
        raise InputError(f"cannot read the arm '{self.text}': {expected} {place}")


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)
