"""A rule on one array of any library: what it follows, what it starts from, one step of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.errors import InputError
from steepest.rules import Rule, assign

__all__ = ["Follower", "followers"]


@dataclass(frozen=True)
class Follower:
    """The rule that one parameter follows.

    Attributes:
        rule: The rule.
        values: Its hyperparameters and options that are not at their default.
        turned: The formula is handed the array with its last axis first, since rules take the
            first axis for the outputs, as torch lays out a layer's weights.
        reason: Why it is not the rule that was asked for; empty if it is.
    """

    rule: Rule
    values: Mapping[str, Any]
    turned: bool = False
    reason: str = ""

    def starts(self, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Name, shape and start of every slot of a parameter.

        A start is a number, a schedule where a hyperparameter is one, or ``"p"`` for a copy of the
        parameter.
        """
        values = {**self.rule.hyperparameters, **self.rule.options, **self.values}
        seen = (shape[-1], *shape[:-1]) if self.turned else tuple(shape)
        found: dict[str, tuple[tuple[int, ...], Any]] = {}
        for name in self.rule.active_slots(self.values, ndim=len(shape)):
            slot = self.rule.slots[name]
            start = slot.init if slot.init == "p" else values.get(str(slot.init), slot.init)
            own = tuple(shape) if slot.per == "element" else slot.shape(seen)
            found[name] = (own, start)
        return found

    def sums(
        self, p: Any, g: Any, slots: Mapping[str, Any], t: Any, values: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """What the parameter contributes to the totals over all parameters."""
        return self.rule.partial_sums(*self._arguments(p, g, slots, t), **values)

    def step(
        self,
        p: Any,
        g: Any,
        slots: Mapping[str, Any],
        t: Any,
        values: Mapping[str, Any],
        totals: tuple[Any, ...] = (),
    ) -> tuple[Any, dict[str, Any]]:
        """What is added to the parameter, and its new slots.

        Args:
            p: The parameter.
            g: Its gradient.
            slots: Its slots by name, without the inactive ones.
            t: The number of this step, from 1.
            values: `values`, with schedules replaced by numbers.
            totals: `sums` of all parameters, added up.
        """
        more = {"totals": totals} if self.rule.has_totals else {}
        step, *new = self.rule(*self._arguments(p, g, slots, t), **values, **more)
        kept = dict(zip(self.rule.slots, new, strict=True))
        if self.turned:
            step = _back(step)
            kept = {
                name: _back(x) if self.rule.slots[name].per == "element" and name in slots else x
                for name, x in kept.items()
            }
        return step, {name: kept[name] for name in slots}

    def _arguments(self, p: Any, g: Any, slots: Mapping[str, Any], t: Any) -> list[Any]:
        held = [slots.get(name) for name in self.rule.slots]
        if self.turned:
            p, g = _turned(p), _turned(g)
            held = [
                _turned(x) if slot.per == "element" and x is not None else x
                for slot, x in zip(self.rule.slots.values(), held, strict=True)
            ]
        return [p, g, *held, t]


def followers(
    main: tuple[Rule, Mapping[str, Any]],
    auxiliary: tuple[Rule, Mapping[str, Any]] | None,
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    *,
    outputs_last: bool,
) -> list[Follower]:
    """What each parameter follows: the rule, or for what is no matrix its auxiliary.

    Args:
        main: The rule and its values.
        auxiliary: The same for the parameters that a rule for matrices does not take.
        shapes: Names and shapes of the parameters.
        outputs_last: The last axis is that of a layer's outputs, and not the first one.
    """
    rule, values = main
    named = list(shapes)
    by_rows = rule.kind == "matrix" or any(m.name == "centralised" for m in rule.modifiers)
    turned = outputs_last and by_rows
    seen = [(n, (s[-1], *s[:-1]) if turned and len(s) > 1 else s) for n, s in named]
    found = []
    for one, (_, shape) in zip(assign(rule, seen), seen, strict=True):
        if one.reason:
            if auxiliary is None:
                raise InputError(f"{rule.name} is not for the parameter {one.name}: {one.reason}")
            found.append(Follower(*auxiliary, reason=one.reason))
        else:
            found.append(Follower(rule, values, turned=turned and len(shape) > 1))
    return found


def _turned(x: Any) -> Any:
    for axis in reversed(range(x.ndim - 1)):
        x = x.swapaxes(axis, axis + 1)
    return x


def _back(x: Any) -> Any:
    for axis in range(x.ndim - 1):
        x = x.swapaxes(axis, axis + 1)
    return x
