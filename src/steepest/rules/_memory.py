"""How much a rule remembers: what an optimizer keeps beside the parameters and gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steepest.rules._rule import Rule
from steepest.rules._slot import matrix_shape

__all__ = ["memory_formula", "state_bytes"]

_TERMS = {"row": "m", "column": "n", "left": "m²", "right": "n²"}


def state_bytes(
    rule: Rule,
    shape: tuple[int, ...],
    *,
    values: Mapping[str, Any] | None = None,
    itemsize: int = 4,
) -> int:
    """The bytes of the slots for one parameter of that shape; single numbers are not counted.

    Args:
        rule: The rule.
        shape: The parameter's shape.
        values: The hyperparameters and options that are not at their default.
        itemsize: The bytes of one element; 4 for float32.

    >>> from steepest import rules
    >>> state_bytes(rules.get("adam"), (256, 64)) / (256 * 64)
    8.0
    >>> state_bytes(rules.get("shampoo"), (256, 64)) / (256 * 64)
    34.0
    """
    axes = len(shape)
    flat = matrix_shape(shape) if rule.kind == "matrix" else shape
    slots = [rule.slots[name] for name in rule.active_slots(values or {}, ndim=axes)]
    return itemsize * sum(
        math.prod(slot.shape(flat)) for slot in slots if slot.per not in ("tensor", "all")
    )


def memory_formula(rule: Rule, *, itemsize: int = 4) -> str:
    """The bytes per element of a parameter, in words; of an m x n matrix where shapes matter.

    >>> from steepest import rules
    >>> memory_formula(rules.get("adam")), memory_formula(rules.get("soap"))
    ('8', '8 + 8 (m² + n²) / mn')
    >>> memory_formula(rules.get("adafactor"))
    '4 (m + n) / mn; vectors 4'
    """
    found = [_formula(rule, ndim=2, itemsize=itemsize)]
    if rule.kind != "matrix":
        found.append(_formula(rule, ndim=1, itemsize=itemsize))
    return found[0] if len(set(found)) == 1 else f"{found[0]}; vectors {found[1]}"


def _formula(rule: Rule, *, ndim: int, itemsize: int) -> str:
    kinds = [rule.slots[name].per for name in rule.active_slots({}, ndim=ndim)]
    plain = itemsize * kinds.count("element")
    times: dict[int, list[str]] = {}
    for per, term in _TERMS.items():
        if per in kinds:
            times.setdefault(itemsize * kinds.count(per), []).append(term)
    shaped = [f"{factor} ({' + '.join(terms)}) / mn" for factor, terms in times.items()]
    return " + ".join([str(plain)] * bool(plain or not shaped) + shaped)
