"""The language in which arms are written, from text to plain values; of optimizers it knows no more
than the names of modifiers.

arm      = head [ "(" [ argument { "," argument } ] ")" ] [ "+" schedule ]
head     = rule | package.module ":" Class | path/to/file.py ":" Class
rule     = name | modifier "(" rule ")"
argument = name "=" value
value    = see `steepest.values`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steepest.rules import MODIFIERS
from steepest.values import Reader

__all__ = ["ArmText", "read"]


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
    r"|(?:[A-Za-z_]\w*\()+[A-Za-z_]\w*\)+(?=\s*\()"
    # without arguments of its own, cautious(adamw) looks like adam(amsgrad), which lacks a value
    rf"|(?:(?:{'|'.join(MODIFIERS)})\()+[A-Za-z_]\w*\)+(?=\s*(?:\+|$))"
    r"|[A-Za-z_]\w*)\s*"
)


def read(text: str) -> ArmText:
    """Parse the text of an arm.

    Raises:
        InputError: With the place where the text stops making sense.

    >>> read("sgd(lr=0.1, nesterov=true) + cosine(warmup=0.05)")
    ArmText(head='sgd', arguments={'lr': 0.1, 'nesterov': True}, schedule='cosine(warmup=0.05)')
    >>> read("torch.optim:Adam(betas=(0.9, 0.99))").arguments
    {'betas': (0.9, 0.99)}
    >>> read("adam(lr=1e-4..1e-1)").arguments["lr"]
    Range(low=0.0001, high=0.1, scale=None)
    >>> read("adam(lr=1e-3")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: cannot read the arm 'adam(lr=1e-3': expected ',' or ')' at its end
    """
    return _Reader(text, what="arm").arm()


class _Reader(Reader):
    """A cursor over the text of an arm."""

    def arm(self) -> ArmText:
        match = _HEAD.match(self.text)
        if not match:
            self.fail("expected the name of a rule, package.module:Class or file.py:Class", 0)
        self.at = match.end()
        arguments = None
        if self.accept("("):
            arguments = self.arguments()
        schedule = None
        if self.accept("+"):
            schedule = self.text[self.at :].strip()
            if not schedule:
                self.fail("expected a schedule after '+', for example '+ cosine(warmup=0.05)'")
        elif self.text[self.at :].strip():
            self.fail("expected '(', '+' or the end")
        return ArmText(match[1], arguments, schedule)
