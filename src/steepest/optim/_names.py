"""How torch.optim spells what the rules call by the paper's names: the one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steepest.errors import unknown_name
from steepest.rules import Rule

__all__ = ["FLAGS", "SPELLING", "Face", "face_of"]

SPELLING: dict[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "alpha": ("power",),
}
"""torch's name to the rule's; wherever the rule itself has torch's name, that one counts."""

FLAGS: dict[str, Any] = {
    "maximize": False,
    "foreach": None,
    "fused": None,
    "capturable": False,
    "differentiable": False,
}
"""What a parameter group holds beside the rule's values, and its meaning when it is absent."""

_DECOUPLED = "decoupled_weight_decay"  # torch's flag for two of the meanings of ``decay``


@dataclass(frozen=True)
class Face:
    """How the keys of a parameter group and the values of a rule belong together.

    Attributes:
        rule: The rule.
        keys: The keys that a group may have, each with the rule's names for what it holds.
    """

    rule: Rule
    keys: Mapping[str, tuple[str, ...]]

    def values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """All hyperparameters and options of the rule, as that parameter group has them."""
        values: dict[str, Any] = {**self.rule.hyperparameters, **self.rule.options}
        for key, names in self.keys.items():
            if key not in group:
                continue  # torch.optim has no such choice: the rule's default is torch's meaning
            held = group[key] if len(names) > 1 else (group[key],)
            for name, value in zip(names, held, strict=True):
                values[name] = (
                    value.squeeze() if isinstance(value, Tensor) and value.ndim else value
                )
        if _DECOUPLED in group and "decay" in self.rule.options:
            values["decay"] = "decoupled" if group[_DECOUPLED] else "l2"
        for name in self.rule.options:
            if name in group:  # a meaning that torch has no name for
                values[name] = group[name]
        return values

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
            if name == "decay" and _DECOUPLED in keys and value in ("l2", "decoupled"):
                entries[_DECOUPLED] = value == "decoupled"
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
    for key, names in SPELLING.items():
        if key not in rule.hyperparameters and all(n in rule.hyperparameters for n in names):
            keys[key] = names
            spelled.update(names)
    plain = {n: (n,) for n in (*rule.hyperparameters, *rule.options) if n not in spelled}
    plain.pop("decay", None)
    return Face(rule, {**plain, **keys})
