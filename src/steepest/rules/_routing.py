"""Which parameters a rule for matrices takes, and why the others go elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from steepest.errors import InputError
from steepest.rules._rule import Rule, get
from steepest.rules._slot import matrix_shape

__all__ = ["Assignment", "assign", "why_not_matrix"]

_SMALLEST = 4
_MOST_OBLONG = 128.0
_LARGEST_SQUARE = 10_000
_OUTSIDE = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|lm_head|head|classifier)(\.|$)")


@dataclass(frozen=True)
class Assignment:
    """The rule that one parameter follows.

    Attributes:
        name: The parameter's name.
        rule: The rule's name.
        reason: Why it is not the rule that was asked for; empty if it is.
    """

    name: str
    rule: str
    reason: str


def why_not_matrix(name: str, shape: tuple[int, ...], *, squares: bool = False) -> str | None:
    """Why a parameter is not to be treated as a matrix; None if it is to be.

    Embeddings and the last layer are matrices in shape only: their rows are looked up or compared
    one by one (Keller Jordan, https://kellerjordan.github.io/posts/muon/, has them trained by
    AdamW). The limits of size are those of timm 1.0 (``optim/muon.py``).

    Args:
        name: The parameter's name, for what its shape does not tell.
        shape: Its shape.
        squares: The rule keeps an (m, m) and an (n, n) matrix for it.

    >>> why_not_matrix("encoder.0.weight", (64, 32)) is None
    True
    >>> why_not_matrix("encoder.0.bias", (64,))
    'it has 1 axis; a matrix has at least 2'
    >>> why_not_matrix("token_embedding.weight", (1000, 64))
    "its name, 'token_embedding.weight', is that of an embedding or of the last layer"
    """
    if sum(size > 1 for size in shape) < 2:
        axes = f"{len(shape)} axis" if len(shape) == 1 else f"{len(shape)} axes"
        longer = "" if len(shape) < 2 else " longer than 1"
        return f"it has {axes}; a matrix has at least 2{longer}"
    if _OUTSIDE.search(name.lower()):
        return f"its name, '{name}', is that of an embedding or of the last layer"
    if 1 in shape[:2]:
        return f"its shape {shape} has a 1 in front, as depthwise kernels and positions have"
    rows, columns = matrix_shape(shape)
    small, large = min(rows, columns), max(rows, columns)
    if small < _SMALLEST:
        return f"as a matrix it is {rows} x {columns}, and {small} is less than {_SMALLEST}"
    if large > _MOST_OBLONG * small:
        return f"as a matrix it is {rows} x {columns}, longer than {_MOST_OBLONG:g} times its width"
    if squares and large > _LARGEST_SQUARE:
        return f"it would need a square matrix of {large}, more than {_LARGEST_SQUARE}"
    return None


def assign(rule: Rule, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> list[Assignment]:
    """Which rule each parameter follows: this one, or its auxiliary, with the reason.

    Args:
        rule: The rule that was asked for.
        shapes: Names and shapes of the parameters.

    >>> from steepest import rules
    >>> for one in assign(rules.get("muon"), [("0.weight", (64, 32)), ("0.bias", (64,))]):
    ...     print(one.name, one.rule, one.reason)
    0.weight muon
    0.bias adamw it has 1 axis; a matrix has at least 2
    """
    if rule.kind != "matrix":
        return [Assignment(name, rule.name, "") for name, _ in shapes]
    if rule.auxiliary is None:
        raise InputError(f"{rule.name} is for matrices and names no rule for the other parameters")
    auxiliary = get(rule.auxiliary).name
    squares = any(slot.per in ("left", "right") for slot in rule.slots.values())
    reasons = [(name, why_not_matrix(name, shape, squares=squares)) for name, shape in shapes]
    return [
        Assignment(name, rule.name if reason is None else auxiliary, reason or "")
        for name, reason in reasons
    ]
