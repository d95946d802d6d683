"""Rules for matrices beside a rule for everything else, in one optimizer.

The parameters of a group that are no matrices become a group of their own, with
``rule="auxiliary"`` and the entries of the auxiliary rule, so that schedules, checkpoints and
users see ordinary parameter groups.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from steepest.errors import InputError
from steepest.kernels import Engine, EngineName
from steepest.optim._names import FLAGS, Face, entries_of, face_of
from steepest.optim.facade import Facade
from steepest.optim.stacked import STACKED
from steepest.rules import Assignment, Rule, assign, get

__all__ = ["Routed"]

AUXILIARY = "auxiliary"


class Routed(Facade):
    """An optimizer for matrices that gives the other parameters to an auxiliary rule.

    `steepest.rules.assign` decides: vectors, scalars, embeddings, the last layer, and what is too
    narrow, too oblong or too large are no matrices. Names tell it what shapes cannot, so pass
    ``model.named_parameters()``. A group with ``rule="auxiliary"`` (or ``use_muon=False``, as in
    Keller Jordan's code) is the auxiliary rule's whatever its shapes are; one with
    ``rule="matrix"`` (or ``use_muon=True``) is not looked through.
    """

    inherited: ClassVar[tuple[str, ...]] = ()
    """The entries that the auxiliary groups take over from the group that they are split off."""
    own: ClassVar[Mapping[str, Any]] = {}
    """The entries in which the auxiliary groups differ from the auxiliary rule's defaults."""

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        engine: EngineName = "auto",
        auxiliary: Mapping[str, Any] | None = None,
    ) -> None:
        self._given = dict(auxiliary or {})
        known = entries_of(self.auxiliary_rule)
        self._given = self.auxiliary_face.entries(self._given, keys=known)
        super().__init__(params, defaults, engine=engine)

    @cached_property
    def auxiliary_rule(self) -> Rule:
        """The rule of the parameters that are no matrices, under the same modifiers."""
        (name,) = {one.rule for one in assign(self.rule, [("", ())])}  # a scalar is no matrix
        return get(re.sub(r"\w+(?=\)*$)", name, self.rule.name))

    @cached_property
    def auxiliary_face(self) -> Face:
        """How its values stand in a parameter group."""
        return face_of(self.auxiliary_rule)

    @property
    def assignments(self) -> list[Assignment]:
        """Which rule each parameter follows, and why, in the order of the groups.

        Parameters without names are called by their group and place.
        """
        found = []
        for at, group in enumerate(self.param_groups):
            params = group["params"]
            names = group.get("param_names") or [f"{at}.{i}" for i in range(len(params))]
            shapes = [(name, tuple(p.shape)) for name, p in zip(names, params, strict=True)]
            for one in assign(self.rule, shapes):
                if _is_auxiliary(group):
                    reason = one.reason or "its parameter group says so"
                    found.append(Assignment(one.name, self.auxiliary_rule.name, reason))
                else:
                    found.append(Assignment(one.name, self.rule.name, ""))
        return found

    def _engines_called(self, name: EngineName) -> tuple[Engine, ...]:
        found = super()._engines_called(name)
        return (*found[:-1], STACKED, found[-1]) if name == "auto" else found

    def _face_for(self, group: Mapping[str, Any]) -> Face:
        return self.auxiliary_face if _is_auxiliary(group) else self.face

    def _keeps_step(self, group: Mapping[str, Any]) -> bool:
        return True if _is_auxiliary(group) else super()._keeps_step(group)

    def _expected(self, group: Mapping[str, Any]) -> Collection[str]:
        return self.auxiliary_face.keys if _is_auxiliary(group) else super()._expected(group)

    def _auxiliary_entries(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of the group that is split off this one."""
        modifiers = (name for m in self.rule.modifiers for name in (*m.hyperparameters, *m.options))
        named = self.auxiliary_face.keys
        taken = [key for key in (*self.inherited, *FLAGS) if key in group]
        taken += [k for k in modifiers if k in named and k != "weight_decay" and k in group]
        return {
            **entries_of(self.auxiliary_rule),
            **self.own,
            **{key: group[key] for key in taken},
            **self._given,
        }

    def add_param_group(self, param_group: Any) -> None:
        """Add parameters; those that are no matrices become a group of their own.

        Raises:
            InputError: If a parameter or an entry cannot be; the optimizer is as it was.
        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            super().add_param_group(param_group)
            return
        params = param_group["params"]
        if isinstance(params, set):
            super().add_param_group(param_group)  # which refuses it
            return
        group = {**param_group, "params": [params] if isinstance(params, Tensor) else list(params)}
        parts = self._parts(group)
        held = {id(p) for other in self.param_groups for p in other["params"]}
        if any(id(_tensor(p)) in held for p in group["params"]):
            raise InputError("some parameters appear in more than one parameter group")
        for part in parts:
            self._check_entries(part if _is_auxiliary(part) else {**self.defaults, **part})
        for part in parts:
            self._add(part)

    def _add(self, group: dict[str, Any]) -> None:
        keys = set(group)
        super().add_param_group(group)
        if _is_auxiliary(group):  # torch has filled in the defaults of the matrices' rule
            added = self.param_groups[-1]
            for key in set(self.defaults) - keys:
                del added[key]

    def _parts(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The groups that a given one becomes."""
        wish = self._wish(group)
        if wish == AUXILIARY:
            return [{**self._auxiliary_entries(group), **group, "rule": AUXILIARY}]
        if wish is None:
            return self._split_group(group)
        for p in map(_tensor, group["params"]):
            if isinstance(p, Tensor) and p.ndim < 2:
                raise InputError(
                    f"{type(self).__name__} is for matrices, got a parameter of shape "
                    f"{tuple(p.shape)} in a group with rule='matrix'; leave that entry out, and it "
                    f"will follow {self.auxiliary_rule.name}"
                )
        return [group]

    def _wish(self, group: Mapping[str, Any]) -> str | None:
        wish = group.get("rule")
        if wish not in (None, AUXILIARY, "matrix"):
            raise InputError(
                f"{type(self).__name__}: a group's rule must be 'matrix' or 'auxiliary', "
                f"got {wish!r}; leave it out to have the parameters sorted by shape and name"
            )
        if wish is None and "use_muon" in group:
            return "matrix" if group["use_muon"] else AUXILIARY
        return wish

    def _split_group(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        params = group["params"]
        if not all(isinstance(_tensor(p), Tensor) for p in params):
            return [group]  # torch says what is wrong
        named = [
            (p[0] if isinstance(p, tuple) else str(i), tuple(_tensor(p).shape))
            for i, p in enumerate(params)
        ]
        reasons = [one.reason for one in assign(self.rule, named)]
        matrices = [p for p, reason in zip(params, reasons, strict=True) if not reason]
        others = [p for p, reason in zip(params, reasons, strict=True) if reason]
        groups = []
        if matrices or not others:
            groups.append({**group, "params": matrices})
        if others:
            entries = self._auxiliary_entries({**self.defaults, **group})
            groups.append({**entries, "params": others, "rule": AUXILIARY})
        return groups

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "auxiliary": self._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "auxiliary" in state:
            self._given = state.pop("auxiliary")
        super().__setstate__(state)


def _is_auxiliary(group: Mapping[str, Any]) -> bool:
    return group.get("rule") == AUXILIARY


def _tensor(p: Any) -> Any:
    return p[1] if isinstance(p, tuple) else p
