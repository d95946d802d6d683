"""How a stranger's optimizer spells what the rules call by the paper's names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from steepest.errors import InputError, unknown_name
from steepest.rules import DOMAINS, Rule

__all__ = ["Names", "names_of", "signature_of"]

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "lr": ("lr", "learning_rate"),
    "eps": ("eps", "epsilon", "matrix_eps"),
    "weight_decay": ("weight_decay", "wd"),
    "beta1": ("beta1", "beta_1", "b1"),
    "beta2": ("beta2", "beta_2", "b2"),
    "beta3": ("beta3", "beta_3", "b3"),
    "momentum": ("momentum", "mu", "beta"),
    "alpha": ("alpha", "rho", "decay_rate"),
    "power": ("power", "alpha"),
    "alpha_slow": ("alpha_slow", "alpha"),
    "alpha_warmup": ("alpha_warmup", "t_alpha", "t_alpha_beta3"),
    "beta3_warmup": ("beta3_warmup", "t_beta3", "t_alpha_beta3"),
    "momentum_decay": ("momentum_decay", "schedule_decay"),
    "beta2_decay": ("beta2_decay", "decay_rate"),
    "trust_coefficient": ("trust_coefficient", "trust_coeff"),
    "update_freq": ("update_freq", "preconditioning_compute_steps"),
    "d": ("d", "clip_threshold"),
}
"""The rule's name to what libraries call it, the most usual first; else it is the rule's name."""

_TUPLES: dict[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2", "beta3"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "step_size_bounds": ("step_min", "step_max"),
    "eps": ("eps1", "eps2"),
    "epsilon": ("eps1", "eps2"),
}
"""Arguments that hold several values of a rule."""


@dataclass(frozen=True)
class Names:
    """Which argument of the optimizer holds each value of the rule.

    Attributes:
        places: The rule's name to (argument, position inside it or None).
        defaults: Every argument's value when nothing is said.
        settable: The arguments that the constructor takes; the others are entries of a group.
        inverted: Coefficients that are the weight of what is new, where the rule's are of the old.
    """

    places: Mapping[str, tuple[str, int | None]]
    defaults: Mapping[str, Any]
    settable: frozenset[str]
    inverted: frozenset[str] = frozenset()

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def values(self, rule: Rule) -> dict[str, Any]:
        """What the arguments' defaults mean to the rule; what it cannot read is left out."""
        read: dict[str, Any] = {}
        for name, (argument, at) in self.places.items():
            held = self.defaults[argument]
            value = held if at is None else held[at]
            value = float(value) if _is_number(value) and name in rule.hyperparameters else value
            if _is_allowed(rule, name, value):
                read[name] = 1 - value if name in self.inverted else value
        return read

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The optimizer's arguments for values under the rule's names."""
        given: dict[str, Any] = {}
        for name, meant in values.items():
            argument, at = self.places.get(name, (name, None))
            value = 1 - meant if name in self.inverted else meant
            if at is None:
                given[argument] = value
            else:
                held = list(given.get(argument, self.defaults[argument]))
                held[at] = value
                given[argument] = type(self.defaults[argument])(held)
        return given


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_allowed(rule: Rule, name: str, value: Any) -> bool:
    if name in rule.hyperparameters:
        return _is_number(value) and value in DOMAINS[name]
    allowed = rule.choices.get(name, (True, False))
    return value in allowed and isinstance(value, bool) == (True in allowed)


def signature_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class or function beside the parameters to train.

    Raises:
        InputError: If there are none to read, or it takes nothing.
    """
    try:
        parameters = dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"cannot read the signature of {factory!r} ({error}); wrap it in a function "
            "that takes the parameters and returns the optimizer"
        ) from error
    if not parameters:
        raise InputError(f"{factory!r} takes no arguments; its first has to be the parameters")
    first = next(iter(parameters))
    del parameters[first]
    return parameters


def names_of(
    rule: Rule,
    factory: Callable[..., Any],
    group: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    renamed: Mapping[str, str],
) -> Names:
    """Read the arguments off the signature, and off a parameter group where it says more.

    Args:
        rule: The rule.
        factory: The class, or a function of the parameters.
        group: A parameter group of an optimizer that it made.
        given: Arguments that have been set by hand.
        renamed: The rule's names to arguments, where ours would guess wrongly.

    Raises:
        InputError: For a name that neither knows.
    """
    signature = signature_of(factory)
    empty = inspect.Parameter.empty
    defaults = {k: p.default for k, p in signature.items() if p.default is not empty}
    entries = {k: v for k, v in group.items() if k != "params"}
    defaults = {**entries, **defaults, **given}
    known = [n for n in (*rule.hyperparameters, *rule.options) if n != "decay"]
    for name, argument in renamed.items():
        if name not in known:
            raise unknown_name(f"hyperparameter of {rule.name}", name, known)
        if argument not in defaults:
            raise unknown_name("argument of the optimizer", argument, defaults)
    places: dict[str, tuple[str, int | None]] = {}
    for argument, names in _TUPLES.items():
        held = defaults.get(argument)
        if isinstance(held, (tuple, list)):
            for at, name in enumerate(names[: len(held)]):
                if name in known:
                    places[name] = (argument, at)
    taken = {argument for argument, _ in places.values()}
    for name in known:
        for spelled in _SPELLINGS.get(name, (name,)):
            free = spelled in defaults and spelled not in taken and name not in places
            if free and (spelled == name or spelled not in known):
                places[name] = (spelled, None)
    places.update({name: (argument, None) for name, argument in renamed.items()})
    settable = frozenset(k for k in signature if signature[k].kind is not _VARIADIC)
    if any(p.kind is _VARIADIC for p in signature.values()):
        settable |= entries.keys() & set(defaults)
    plain = Names(places, defaults, settable)
    betas = {k: v for k, v in plain.values(rule).items() if k in ("beta1", "beta2", "beta3")}
    new = betas and all(v < 0.5 < rule.hyperparameters[k] for k, v in betas.items())
    return replace(plain, inverted=frozenset(betas)) if new else plain


_VARIADIC = inspect.Parameter.VAR_KEYWORD
