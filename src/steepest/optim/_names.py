"""How torch.optim spells what the rules call by the paper's names: the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steepest.errors import unknown_name
from steepest.rules import Rule

__all__ = ["FLAGS", "SPELLING", "Face", "entries_of", "face_of"]

SPELLING: dict[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "alpha": ("power",),
}
"""torch's name to the rule's; wherever the rule itself has torch's name, that one counts."""

_SPELLING_OF: dict[str, dict[str, tuple[str, ...]]] = {
    "adafactor": {"eps": ("eps1", "eps2")},
    "adan": {"betas": ("beta1", "beta2", "beta3")},
    "ademamix": {"betas": ("beta1", "beta2", "beta3"), "alpha": ("alpha_slow",)},
}
"""The same for single rules, as torch.optim or their authors spell them."""

_DEFAULTED: dict[str, frozenset[str]] = {
    "ademamix": frozenset({"alpha_warmup", "beta3_warmup"}),
    "muon": frozenset({"adjust_lr_fn"}),
    "prodigy": frozenset({"beta3"}),
}
"""What may be None, which means the rule's default."""

_PRECISION: dict[str, frozenset[str]] = {"adafactor": frozenset({"eps1"})}
"""What may be None, which means the machine epsilon of the parameter's type."""

_WORDS: dict[str, dict[str, dict[Any, str]]] = {
    "muon": {"ns_coefficients": {(3.4445, -4.775, 2.0315): "original"}}
}
"""Options that torch.optim gives as numbers, with the rule's words for some of them."""

FLAGS: dict[str, Any] = {
    "maximize": False,
    "foreach": None,
    "fused": None,
    "capturable": False,
    "differentiable": False,
}
"""What a parameter group holds beside the rule's values, and its meaning when it is absent."""

_DECAYS: dict[str, tuple[str, str]] = {
    "decoupled_weight_decay": ("decoupled", "l2"),
    "decouple": ("decoupled", "l2"),
    "weight_decouple": ("decoupled", "l2"),
    "no_prox": ("decoupled", "proximal"),
}
"""Flags for two of the meanings of ``decay``: the meaning of True and that of False."""


@dataclass(frozen=True)
class Face:
    """How the keys of a parameter group and the values of a rule belong together.

    Attributes:
        rule: The rule.
        keys: The keys that a group may have, each with the rule's names for what it holds.
        defaulted: What may be None, which means the rule's default.
        precision: What may be None, which means the machine epsilon of the parameter's type.
        words: Options that a group gives as numbers, with the rule's words for some of them.
    """

    rule: Rule
    keys: Mapping[str, tuple[str, ...]]
    defaulted: frozenset[str] = frozenset()
    precision: frozenset[str] = frozenset()
    words: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """All hyperparameters and options of the rule, as that parameter group has them."""
        values: dict[str, Any] = {**self.rule.hyperparameters, **self.rule.options}
        for key, names in self.keys.items():
            if key not in group:
                continue  # torch.optim has no such choice: the rule's default is torch's meaning
            held = group[key] if len(names) > 1 else (group[key],)
            for name, value in zip(names, held, strict=True):
                if value is None and name in (self.defaulted | self.precision):
                    continue
                if name in self.words and not isinstance(value, str):
                    values[name] = self.words[name].get(tuple(value), tuple(value))
                else:
                    many = isinstance(value, Tensor) and value.ndim
                    values[name] = value.squeeze() if many else value
        for flag, (on, off) in _DECAYS.items():
            if flag in group and "decay" in self.rule.options:
                values["decay"] = on if group[flag] else off
        if "decay" in group and "decay" in self.rule.options:
            values["decay"] = group["decay"]  # a meaning that torch has no flag for
        return values

    def for_type(
        self, values: Mapping[str, Any], group: Mapping[str, Any], dtype: torch.dtype
    ) -> Mapping[str, Any]:
        """The values for parameters of that type; the same object for all unless one depends on it.

        Args:
            values: What `values` says about the group.
            group: The parameter group.
            dtype: The parameters' type.
        """
        if not self.precision:
            return values
        own = dict(values)
        for key, names in self.keys.items():
            for at, name in enumerate(names):
                held = group.get(key, 0) if len(names) == 1 else group.get(key, names)[at]
                if name in self.precision and held is None:
                    own[name] = torch.finfo(dtype).eps
        return own

    def entries(self, given: Mapping[str, Any], *, keys: Mapping[str, Any]) -> dict[str, Any]:
        """The parameter group's entries for values under the rule's or torch's names.

        Args:
            given: Names and values.
            keys: The entries of a group at its defaults.

        Raises:
            InputError: For a name that neither knows.
        """
        entries: dict[str, Any] = {}
        owners = {
            name: (key, at) for key, names in self.keys.items() for at, name in enumerate(names)
        }
        for name, value in given.items():
            flag = next((f for f in _DECAYS if f in keys), None) if name == "decay" else None
            if flag is not None and value in _DECAYS[flag]:
                entries[flag] = value == _DECAYS[flag][0]
            elif name in owners and owners[name][0] != name:
                key, at = owners[name]
                held = list(entries.get(key, keys[key])) if len(self.keys[key]) > 1 else [value]
                held[at] = value
                entries[key] = tuple(held) if len(self.keys[key]) > 1 else value
            elif name in keys or name in owners or name in self.rule.options:
                entries[name] = value
            else:
                known = {*owners, *self.rule.options, *keys}
                raise unknown_name(f"hyperparameter of {self.rule.name}", name, known)
        return entries


def face_of(rule: Rule) -> Face:
    """The parameter group's keys for a rule, spelled as torch.optim would."""
    keys: dict[str, tuple[str, ...]] = {}
    spelled: set[str] = set()
    own = rule.bare.__name__
    for key, names in {**SPELLING, **_SPELLING_OF.get(own, {})}.items():
        if key not in rule.hyperparameters and all(n in rule.hyperparameters for n in names):
            keys[key] = names
            spelled.update(names)
    plain = {n: (n,) for n in (*rule.hyperparameters, *rule.options) if n not in spelled}
    plain.pop("decay", None)
    return Face(
        rule,
        {**plain, **keys},
        defaulted=_DEFAULTED.get(own, frozenset()),
        precision=_PRECISION.get(own, frozenset()),
        words=_WORDS.get(own, {}),
    )


def entries_of(rule: Rule) -> dict[str, Any]:
    """What a parameter group of a rule holds at its defaults, in torch's spelling, with flags."""
    values = {**rule.hyperparameters, **rule.options}
    entries = {
        key: values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)
        for key, names in face_of(rule).keys.items()
    }
    if "decay" in rule.options:
        entries["decay"] = rule.options["decay"]
    return {**entries, **FLAGS}
