"""What a rule for matrices leaves to another rule, and the values of that one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steepest.adapters._meaning import meant
from steepest.errors import InputError
from steepest.optim import from_rule
from steepest.optim._names import entries_of, face_of
from steepest.optim.routing import Routed
from steepest.rules import Rule, get

__all__ = ["auxiliary_of"]

_DIALECTS: dict[str, dict[str, Any]] = {
    "optax": {"weight_decay": 0.0},  # optax.contrib.muon: adam_weight_decay
    "keras": {"weight_decay": 0.004, "eps": 1e-7, "eps_mode": "hat"},  # keras.optimizers.Muon
}
"""What a library's own Muon gives to the parameters that are no matrices."""


def auxiliary_of(
    rule: Rule,
    values: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    *,
    dialect: str | None,
    spelling: Mapping[str, str],
) -> tuple[Rule, dict[str, Any], float] | None:
    """The auxiliary rule, its values, and its learning rate as a multiple of the main one.

    Args:
        rule: The main rule; None comes back unless it is for matrices.
        values: Its values; ``lr`` is a number or a schedule.
        given: What the user says about the auxiliary: its values, and ``lr_ratio``.
        dialect: Whose meaning.
        spelling: The library's names for the rules' hyperparameters.

    Raises:
        InputError: If the ratio is not known, or for values that cannot be.
    """
    if rule.kind != "matrix":
        if given:
            raise InputError(f"{rule.name} takes every parameter: leave out auxiliary=")
        return None
    cls = from_rule(rule.name)
    if rule.auxiliary is None or not issubclass(cls, Routed):
        raise InputError(f"{rule.name} is for matrices and names no rule for the other parameters")
    own = dict(given or {})
    ratio = own.pop("lr_ratio", None)
    auxiliary = get(re.sub(r"\w+(?=\)*$)", rule.auxiliary, rule.name))
    if any(spelling.get(key, key) == "lr" for key in own):
        raise InputError(
            "auxiliary: the learning rate of the parameters that are no matrices is given as a "
            "multiple of the other one: lr_ratio=0.1"
        )
    _, named = meant(auxiliary.name, own, dialect=None, spelling=spelling)
    if dialect in _DIALECTS:
        return auxiliary, {**_DIALECTS[dialect], **named}, 1.0 if ratio is None else float(ratio)
    defaults = face_of(auxiliary).values({**entries_of(auxiliary), **cls.own})
    del defaults["lr"]
    main = {**rule.hyperparameters, **rule.options, **values}
    alike = main.get("adjust_lr_fn") == "match_rms_adamw" or "lr" in cls.inherited
    if "weight_decay" in cls.inherited or alike:
        defaults["weight_decay"] = main["weight_decay"]
    if ratio is None and not alike:
        ratio = _ratio(rule, main["lr"], cls.own["lr"])
    return auxiliary, {**defaults, **named}, 1.0 if ratio is None else float(ratio)


def _ratio(rule: Rule, lr: Any, own: float) -> float:
    if not isinstance(lr, (int, float)) or lr == 0:
        raise InputError(
            f"{rule.name} leaves vectors, embeddings and the last layer to another rule; with a "
            "schedule say how fast they learn beside the matrices: auxiliary={'lr_ratio': 0.1}"
        )
    return own / lr
