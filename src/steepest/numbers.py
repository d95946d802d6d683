"""How numbers are written: as many digits as the uncertainty beside them supports, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "Unit",
    "amount",
    "decimals_for",
    "fixed",
    "p_text",
    "significant",
    "size_text",
    "time_text",
    "unit_of",
]

MINUS = "\N{MINUS SIGN}"
# Names of metrics that are shares of one and are read as per cent.
SHARES = ("acc", "error", "precision", "recall", "f1", "auc", "top1", "top5", "iou", "dice")


def decimals_for(half_width: float) -> int:
    """Decimals that show a half-width with one significant digit, or two if they are at most 35.

    The rule of the Particle Data Group (Review of Particle Physics, introduction, section 5.3):
    by the first three digits, 100 to 354 keep two digits, 355 to 999 one.

    >>> decimals_for(0.05), decimals_for(0.013), decimals_for(0.24), decimals_for(12.0)
    (2, 3, 2, 0)
    """
    if not math.isfinite(half_width) or half_width <= 0:
        return 2
    exponent = math.floor(math.log10(half_width))
    leading = half_width / 10.0**exponent
    return max(0, min(8, -exponent + int(leading < 3.545)))


def fixed(x: float, decimals: int, *, sign: bool = False) -> str:
    """A number with fixed decimals, a true minus sign, and commas from ten thousand on.

    >>> fixed(-0.1234, 2), fixed(0.1234, 2, sign=True), fixed(12345.0, 0), fixed(-0.001, 2)
    ('−0.12', '+0.12', '12,345', '0.00')
    """
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else f"{MINUS}∞"
    digits = f"{abs(x):,.{decimals}f}" if abs(x) >= 10_000 else f"{abs(x):.{decimals}f}"
    if not digits.strip("0.,"):
        return digits
    if x < 0:
        return MINUS + digits
    return "+" + digits if sign else digits


def significant(x: float, digits: int = 3) -> str:
    """A number with a few significant digits, in scientific notation only where it must be.

    >>> significant(0.0012345), significant(123456.0), significant(2.5e-9), significant(0.5)
    ('0.00123', '123,456', '2.5e−9', '0.5')
    """
    if not math.isfinite(x):
        return fixed(x, 0)
    if x == 0:
        return "0"
    if 1e-4 <= abs(x) < 1e9:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
        text = fixed(x, decimals)
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def p_text(p: float) -> str:
    """A p-value or probability: two digits, three below a tenth, and a bound below a thousandth.

    >>> p_text(0.5), p_text(0.03125), p_text(0.00001), p_text(1.0)
    ('0.50', '0.031', '< 0.001', '1.00')
    """
    if math.isnan(p):
        return "–"
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def time_text(seconds: float) -> str:
    """A duration in the unit that a person would choose.

    >>> time_text(2.5e-5), time_text(0.00365), time_text(42.0), time_text(192.0), time_text(8000.0)
    ('25 µs', '3.65 ms', '42 s', '3 min 12 s', '2 h 13 min')
    """
    if not math.isfinite(seconds):
        return fixed(seconds, 0)
    if seconds < 1e-3:
        return f"{significant(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{significant(seconds * 1e3)} ms"
    if seconds < 60:
        return f"{significant(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size_text(count: float) -> str:
    """An amount of memory in powers of 1,024.

    >>> size_text(512), size_text(2.5 * 2**20)
    ('512 B', '2.5 MiB')
    """
    if not math.isfinite(count):
        return fixed(count, 0)
    for name in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{significant(count)} {name}"
        count /= 1024
    return f"{significant(count)} TiB"


def amount(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun.

    >>> amount(1, "seed"), amount(12000, "step"), amount(2, "loss", "losses")
    ('1 seed', '12,000 steps', '2 losses')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


@dataclass(frozen=True)
class Unit:
    """How the values of one metric are written.

    Attributes:
        share: The metric is a share of one; it is written in per cent.
    """

    share: bool

    @property
    def factor(self) -> float:
        """What a raw value is multiplied by before it is drawn or written."""
        return 100.0 if self.share else 1.0

    @property
    def suffix(self) -> str:
        """What follows a value."""
        return "\N{NO-BREAK SPACE}%" if self.share else ""

    def value(self, x: float, half_width: float = math.nan) -> str:
        r"""A value on its own, with the digits that ``half_width`` supports.

        >>> Unit(True).value(0.98971, 0.0005), Unit(False).value(0.034567)
        ('98.97\xa0%', '0.03457')
        """
        if not math.isfinite(x):
            return fixed(x, 0)
        x, half_width = x * self.factor, half_width * self.factor
        if math.isfinite(half_width) and half_width > 0:
            return fixed(x, decimals_for(half_width)) + self.suffix
        return (fixed(x, 2) if self.share else significant(x, 4)) + self.suffix

    def mean(self, x: float, low: float, high: float, *, finest: float = math.nan) -> str:
        r"""A mean with the half-width of its interval.

        Args:
            x: The mean.
            low: Lower end of its interval.
            high: Upper end.
            finest: The smallest half-width beside it, so that a column has equal decimals.

        >>> Unit(True).mean(0.98971, 0.98921, 0.99021)
        '98.97\xa0% ± 0.05'
        >>> Unit(True).mean(0.987, 0.985, 0.989, finest=0.0005)
        '98.70\xa0% ± 0.20'
        """
        half_width = (high - low) / 2
        if not (math.isfinite(half_width) and math.isfinite(x)):
            return self.value(x, finest)
        if half_width == 0:
            return f"{self.value(x, finest)} ± 0"
        digits = finest if math.isfinite(finest) else half_width
        decimals = decimals_for(digits * self.factor)
        return f"{self.value(x, digits)} ± {fixed(half_width * self.factor, decimals)}"

    def difference(self, x: float, low: float = math.nan, high: float = math.nan) -> str:
        """A signed difference; of shares, in percentage points.

        >>> Unit(True).difference(0.0012, -0.0003, 0.0027)
        '+0.12 points'
        >>> Unit(False).difference(-0.0012)
        '−0.0012'
        """
        if not math.isfinite(x):
            return fixed(x, 0)
        x = x * self.factor
        half_width = (high - low) / 2 * self.factor
        if math.isfinite(half_width) and half_width > 0:
            text = fixed(x, decimals_for(half_width), sign=True)
        elif self.share:
            text = fixed(x, 2, sign=True)
        else:
            text = ("+" if x > 0 else "") + significant(x, 3)
        return f"{text} points" if self.share else text

    def interval(self, low: float, high: float) -> str:
        """An interval of differences, with equal decimals on both ends.

        >>> Unit(True).interval(-0.0003, 0.0027)
        '−0.03 to +0.27'
        """
        if math.isnan(low) or math.isnan(high):
            return "–"
        if math.isinf(low) or math.isinf(high):
            return "unbounded"
        low, high = low * self.factor, high * self.factor
        decimals = decimals_for((high - low) / 2)
        return f"{fixed(low, decimals, sign=True)} to {fixed(high, decimals, sign=True)}"


def unit_of(name: str, values: Iterable[float]) -> Unit:
    """Per cent for metrics that are shares by name and by value, plain numbers for all others.

    >>> unit_of("accuracy", [0.98, 0.99]), unit_of("accuracy", [98.0]), unit_of("loss", [0.5])
    (Unit(share=True), Unit(share=False), Unit(share=False))
    """
    finite = [v for v in values if math.isfinite(v)]
    by_name = any(part in name.lower() for part in SHARES)
    return Unit(by_name and bool(finite) and all(0 <= v <= 1 for v in finite))
