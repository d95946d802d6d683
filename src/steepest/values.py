"""How values are written: in arms, in the options of tasks; one way, read and written here.

arguments = [ argument { "," argument } ] ")"
argument  = name "=" value
value     = number | true | false | none | word | 'text' | ( value, … ) | range | choice
range     = number ".." number
choice    = "{" value { "," value } "}"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from steepest.errors import InputError

__all__ = ["Choice", "Range", "Reader", "write_value"]


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


_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>[+-]?(?:\d[\d_]*(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w])|[+-]?inf\b)"
    r"|(?P<word>(?:[^\W\d]|~?/|\.\.?/)[\w./~-]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<mark>\.\.|[(){},=+])"
    r")"
)
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def write_value(value: Any) -> str:
    """A value as `Reader` understands it, in its shortest form.

    >>> write_value(1e-05), write_value(True), write_value((0.9, 0.99)), write_value("hat")
    ('1e-5', 'true', '(0.9, 0.99)', 'hat')
    >>> write_value("data/ads.xlsx"), write_value("my ads.xlsx")
    ('data/ads.xlsx', "'my ads.xlsx'")
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", repr(value)).replace("e+", "e")
    if isinstance(value, (tuple, list)):
        inner = ", ".join(map(write_value, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, str):
        match = _TOKEN.match(value)
        plain = match and match["word"] == value and value.lower() not in _WORDS
        return value if plain else _quoted(value)
    return str(value)


def _quoted(value: str) -> str:
    if "'" in value and '"' in value:
        raise InputError(f"a text with both kinds of quotes cannot be written: {value!r}")
    return f'"{value}"' if "'" in value else f"'{value}'"


class Reader:
    """A cursor over a text: one method per line of the grammar.

    Args:
        text: What is read.
        what: How messages call it: ``arm``, ``task``.
    """

    def __init__(self, text: str, *, what: str) -> None:
        self.text = text
        self.what = what
        self.at = 0
        self.kind = ""

    def arguments(self) -> dict[str, Any]:
        """What stands between an opening parenthesis that was read and its closing one."""
        found: dict[str, Any] = {}
        while not self.accept(")"):
            start = self.at
            name = self._next()
            if self.kind != "word" or not name.isidentifier() or not self.accept("="):
                self.fail("expected name=value", start)
            if name in found:
                self.fail(f"'{name}' is given twice", start)
            found[name] = self._value()
            if not self.accept(","):
                if not self.accept(")"):
                    self.fail("expected ',' or ')'")
                break
        return found

    def _value(self) -> Any:
        start = self.at
        found = self._next()
        if self.kind == "number":
            number = _number(found)
            if not self.accept(".."):
                return number
            high = self._next()
            if self.kind != "number":
                self.fail("expected a number after '..'", start)
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
                self.fail("a choice needs at least one value", start)
            return Choice(values)
        return self.fail("expected a value", start)

    def _list(self, closing: str) -> tuple[Any, ...]:
        values: list[Any] = []
        while not self.accept(closing):
            values.append(self._value())
            if not self.accept(","):
                if not self.accept(closing):
                    self.fail(f"expected ',' or '{closing}'")
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

    def accept(self, mark: str) -> bool:
        """Go past the mark if it is next."""
        match = re.compile(r"\s*" + re.escape(mark)).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match is not None

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Raise `InputError`, with the place where the text stops making sense."""
        rest = self.text[self.at if at is None else at :].strip()
        place = f"before '{rest}'" if rest else "at its end"
        raise InputError(f"cannot read the {self.what} '{self.text}': {expected} {place}")


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)
