"""What an audit has found, as plain values and as sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Audit", "Finding", "Row"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the rule has it.

    Attributes:
        term: Which term of the formula, or which promise of an optimizer.
        text: What the optimizer does instead.
        scenario: Where it was seen first.
        by: How far it leads away, as a part of the distance travelled.
        since: The first step, from 1, that is not the rule's; None if it raised before.
        explained: Whether the rule with exactly this change goes where the optimizer goes.
    """

    term: str
    text: str
    scenario: str
    by: float
    since: int | None
    explained: bool

    def __str__(self) -> str:
        since = "" if self.since is None else f" since step {self.since}"
        by = "" if math.isnan(self.by) else f": {self.by:.1e} of the way"
        return f"{self.term}: {self.text} ({self.scenario}{by}{since})"


@dataclass(frozen=True)
class Row:
    """One scenario.

    Attributes:
        scenario: Its name.
        off: The largest distance from the reading that fits best, over the distance travelled.
        since: The first step with a distance above the tolerance; None if there is none.
        tolerance: What rounding explains.
        note: What was raised instead.
    """

    scenario: str
    off: float
    since: int | None
    tolerance: float
    note: str = ""


@dataclass(frozen=True)
class Audit:
    """What an optimizer really does, beside the rule that it is said to follow.

    Attributes:
        subject: What was audited.
        rule: The rule's name.
        follows: Whether it follows the rule in one of its dialects, in every scenario.
        dialect: The rule's options and numbers that have to be set for that, beside what the
            optimizer has arguments for.
        defaults: The optimizer's own defaults that are not the rule's.
        like: Classes of other libraries that are known to speak the same dialect.
        per_group: It counts the steps of a whole group, not of each tensor.
        dtype: Of the parameters it was driven with.
        precision: Whose rounding explains the distance: that of ``dtype``, or a lower one.
        findings: What deviates.
        rows: Every scenario.
        arguments: Which argument was taken for which value of the rule.
        notes: What one has to know to read this.
    """

    subject: str
    rule: str
    follows: bool
    dialect: Mapping[str, Any]
    defaults: Mapping[str, Any]
    like: tuple[str, ...]
    per_group: bool
    dtype: str
    precision: str
    findings: tuple[Finding, ...]
    rows: tuple[Row, ...]
    arguments: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 if it follows a dialect of the rule, 3 if it follows none."""
        return 0 if self.follows else 3

    @property
    def off(self) -> float:
        """The largest distance over all scenarios, from the reading that fits best."""
        return max((row.off for row in self.rows if not math.isnan(row.off)), default=math.nan)

    def sentence(self) -> str:
        """The outcome in one sentence.

        >>> import steepest, torch
        >>> steepest.audit(torch.optim.SGD, "sgd").sentence()
        'torch.optim.sgd:SGD follows sgd'
        """
        told = ", ".join(f"{k}={_shown(v)}" for k, v in self.dialect.items())
        dialect = f" with {told}" if told else ""
        if not self.follows:
            return f"{self.subject} does not follow {self.rule}{dialect}: {self.findings[0]}"
        counted = ", counting steps per group" if self.per_group else ""
        inside = "" if self.precision == self.dtype else f", to {self.precision}'s rounding"
        return f"{self.subject} follows {self.rule}{dialect}{counted}{inside}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; what is not finite is None."""
        return {
            **{k: _plain(v) for k, v in asdict(self).items()},
            "sentence": self.sentence(),
            "exit_code": self.exit_code,
        }


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
