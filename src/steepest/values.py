"""How values are written: in arms, in the options of tasks; one way, read and written here.

arguments = [ argument { "," argument } ] ")"
argument  = name "=" value
value     = number | true | false | none | word | 'text' | ( value, … ) | range | choice
range     = number ".." number | scale "(" number ".." number ")"
scale     = "log" | "linear" | "one_minus_log"
choice    = "{" value { "," value } "}"
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from steepest.errors import InputError

__all__ = ["SCALES", "Choice", "Range", "Reader", "Scale", "write_value"]

Scale = Literal["log", "linear", "one_minus_log"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Range:
    """``low..high``: the hyperparameter is searched between these, both included.

    Attributes:
        low: The low end.
        high: The high end.
        scale: What is spread evenly: the value (``linear``), its logarithm (``log``), or the
            logarithm of 1 - value (``one_minus_log``). None: what is customary for the
            hyperparameter, see `steepest.tune.customary_scale`.

    >>> str(Range(1e-4, 0.1)), str(Range(0.001, 1.0, "linear"))
    ('0.0001..0.1', 'linear(0.001..1.0)')
    >>> Range(1.0, 0.5)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: the range 1.0..0.5 is empty; write the smaller end first
    """

    low: float
    high: float
    scale: Scale | None = None

    def __post_init__(self) -> None:
        ends: tuple[Any, Any] = (self.low, self.high)
        for end in ends:
            if isinstance(end, bool) or not isinstance(end, (int, float)):
                raise InputError(f"the ends of a range are numbers, got {end!r}")
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        bare = f"{write_value(self.low)}..{write_value(self.high)}"
        if not all(map(math.isfinite, (self.low, self.high))):
            raise InputError(f"the range {bare} has no end; both ends must be finite")
        if self.low == self.high:
            raise InputError(f"the range {bare} is a single value; write {write_value(self.low)}")
        if self.low > self.high:
            raise InputError(f"the range {bare} is empty; write the smaller end first")
        given: Any = self.scale
        if given is not None and given not in SCALES:
            raise InputError(f"a scale is one of {', '.join(SCALES)}, got {given!r}")
        if self.scale == "log" and self.low <= 0:
            raise InputError(
                f"the range {bare} cannot be searched on a log scale, which begins above 0; begin "
                f"it above 0, or write linear({bare})"
            )
        if self.scale == "one_minus_log" and self.high >= 1:
            raise InputError(
                f"the range {bare} cannot be searched on the log scale of 1 - x, which ends below "
                f"1; end it below 1, or write linear({bare})"
            )

    def __str__(self) -> str:
        text = f"{write_value(self.low)}..{write_value(self.high)}"
        return text if self.scale is None else f"{self.scale}({text})"


@dataclass(frozen=True)
class Choice:
    """``{a, b, c}``: the hyperparameter is searched among these.

    >>> str(Choice((True, False)))
    '{true, false}'
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise InputError("a choice needs at least one value, got none")
        for at, value in enumerate(self.values):
            if isinstance(value, (Range, Choice)):
                raise InputError(f"a choice is among plain values, got {value}")
            if value in self.values[:at]:
                raise InputError(f"the choice {self} has {write_value(value)} twice")

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
            return self._range(number, start)
        if self.kind == "word" and found in SCALES and self.accept("("):
            low = self._next()
            if self.kind != "number" or not self.accept(".."):
                self.fail(f"expected a range, such as {found}(0.1..0.9)", start)
            scaled = self._range(_number(low), start, scale=next(s for s in SCALES if s == found))
            if not self.accept(")"):
                self.fail("expected ')'")
            return scaled
        if self.kind == "word":
            return _WORDS.get(found.lower(), found)
        if self.kind == "text":
            return found[1:-1]
        if found == "(":
            return self._list(")")
        if found == "{":
            values = self._list("}")
            try:
                return Choice(values)
            except InputError as error:
                raise self._wrong(error) from None
        return self.fail("expected a value", start)

    def _range(self, low: float, start: int, *, scale: Scale | None = None) -> Range:
        high = self._next()
        if self.kind != "number":
            self.fail("expected a number after '..'", start)
        try:
            return Range(low, _number(high), scale)
        except InputError as error:
            raise self._wrong(error) from None

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
        raise self._wrong(f"{expected} {place}")

    def _wrong(self, reason: object) -> InputError:
        return InputError(f"cannot read the {self.what} '{self.text}': {reason}")


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)
