"""Which rule a name means in a library's dialect, and the rule's names for what was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.errors import InputError, unknown_name
from steepest.rules import Rule, get
from steepest.rules._dialects import DIALECTS, VERSIONS, Dialect

__all__ = ["meant", "row_of"]

_TOO_FAR = 1e-4
"""A distance from the library's own class above which it may not be called its dialect."""


def meant(
    name: str,
    given: Mapping[str, Any],
    *,
    dialect: str | None,
    spelling: Mapping[str, str],
) -> tuple[Rule, dict[str, Any]]:
    """The rule with the dialect's defaults, and the given values under the rule's names.

    Args:
        name: A rule's name (modifiers included), or in a dialect that library's own.
        given: Values under the rule's names or under those of ``spelling``.
        dialect: A library of `steepest.rules._dialects`; None or ``"torch"``: torch's meaning,
            which is the rules' default.
        spelling: The library's names for the rules' hyperparameters.

    Raises:
        InputError: For a name or a value that cannot be, and for a class that the rule is not.

    >>> rule, values = meant("adam", {"beta_1": 0.8}, dialect="keras", spelling={"beta_1": "beta1"})
    >>> rule.options["eps_mode"], rule.hyperparameters["eps"], values
    ('hat', 1e-07, {'beta1': 0.8})
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        own = spelling.get(key, key)
        if own in values:
            raise InputError(f"{name}: {own} and {key} are the same number; give one of them")
        values[own] = value
    row = row_of(name, values, dialect=dialect)
    rule = get(name) if row is None else get(row.rule).with_defaults(**row.values)
    rule.check({key: value for key, value in values.items() if not callable(value)})
    for key in values:
        if key not in rule.hyperparameters and key not in rule.options:
            raise unknown_name(
                f"hyperparameter of {rule.name}", key, {*rule.hyperparameters, *rule.options}
            )
    return rule, values


def row_of(name: str, values: Mapping[str, Any], *, dialect: str | None) -> Dialect | None:
    """The row of the table that says what the library means; None for torch's meaning.

    A library's own name comes first (``"nadamw"``, ``"Nadam"``); of several rows of one rule it
    is the one that agrees most with the values (``amsgrad=True``).
    """
    if dialect in (None, "torch"):
        return None
    rows = [row for row in DIALECTS if row.library == dialect]
    if not rows:
        raise unknown_name("dialect", str(dialect), VERSIONS)
    titled = [row for row in rows if row.path.partition(":")[2].lower() == name.lower()]
    ours = titled or [row for row in rows if row.rule == name]
    if not ours:
        known = {row.rule for row in rows} | {row.path.partition(":")[2] for row in rows}
        raise unknown_name(f"rule that {dialect} has", name, known)
    row = max(ours, key=lambda row: sum(values.get(k) == v for k, v in row.values.items()))
    if row.off > _TOO_FAR:
        raise InputError(
            f"the rule {row.rule} cannot be made {row.path} of {dialect}: {row.note}; "
            "leave out dialect= to get it as torch.optim means it"
        )
    return row
