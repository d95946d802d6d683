"""What a rule is, and the decorator that makes one out of a formula.

p      parameter                    any shape
g      its gradient                 shape of p
slots  the rule's memory            each as its `Slot` says
t      number of this step          from 1
step   what is added to p           shape of p
totals sums over all parameters     one number each
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from steepest.errors import InputError, unknown_name
from steepest.rules._domains import DOMAINS
from steepest.rules._modifier import Formula, Kind, Modifier, compose, compose_sums
from steepest.rules._slot import Slot, matrix_shape
from steepest.rules.modifiers import MODIFIERS

__all__ = ["Modifier", "Rule", "Slot", "get", "names", "rule"]

Average = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Rule:
    """The update formula of an optimizer, with everything that can be read off its signature.

    Calling a rule runs the formula, modifiers included: ``rule(p, g, *slots, t, **values)``
    returns ``(step, *new_slots)``, and the new parameter is ``p + step``.

    Attributes:
        name: The name in the registry, in tables and in arms.
        formula: The pure function.
        paper: Where the formula stands: an arXiv identifier, a DOI or a URL.
        kind: ``elementwise``, ``norms`` (needs a reduction first) or ``matrix``.
        slots: The memory, in the order of the formula's arguments.
        hyperparameters: Names and defaults of the numbers: floats, 0-d tensors, or one value per
            member of a population.
        options: Names and defaults of the choices (bool or str): they select the formula's
            branches, so they are the same for all elements of one call.
        choices: The allowed values of each option that is a string.
        summary: The first sentence of the formula's docstring.
        bare: The formula without modifiers, as it stands in its file.
        modifiers: What lies around it, from the innermost to the outermost.
        bare_sums: The formula's own contribution of one tensor to its totals.
        sums: The same with the modifiers around it, and theirs; see `partial_sums`.
        average: Where the averaged parameter lies, for rules that keep one.
        auxiliary: The rule for the parameters that this one is not made for.

    >>> from steepest import rules
    >>> adam = rules.get("adam")
    >>> list(adam.slots), adam.hyperparameters["lr"]
    (['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'], 0.001)
    >>> step, *slots = adam(1.0, 0.5, 0.0, 0.0, None, 1, lr=0.1)
    >>> round(step, 6)      # the first step of Adam is lr * sign(gradient), nearly
    -0.1
    """

    name: str
    formula: Formula
    paper: str
    kind: Kind
    slots: Mapping[str, Slot]
    hyperparameters: Mapping[str, float]
    options: Mapping[str, bool | str]
    choices: Mapping[str, tuple[str, ...]]
    summary: str
    bare: Formula
    modifiers: tuple[Modifier, ...] = ()
    bare_sums: Formula | None = None
    sums: Formula | None = None
    average: Average | None = None
    auxiliary: str | None = None

    def __call__(self, *args: Any, **values: Any) -> tuple[Any, ...]:
        """``(step, *new_slots)``; what is not in ``values`` has its default.

        A rule with `has_totals` must be handed ``totals`` too: `partial_sums` of every tensor,
        added up. A rule of kind ``matrix`` sees a tensor of more than two axes as its
        `matrix_shape`; ``rule.formula`` takes stacks of matrices (..., m, n) of one shape, unless
        `stackable` says that a modifier would mix them up. Its ``t`` is a number.
        """
        if self.has_totals and "totals" not in values:
            raise InputError(
                f"{self.name} needs sums over all parameters before any of them can take its step; "
                "pass totals=, the partial_sums() of all parameters added up"
            )
        full = {**self.hyperparameters, **self.options, **values}
        if self.kind == "matrix":
            return self._as_matrix(*args, **full)
        return self.formula(*args, **full)

    def _as_matrix(self, p: Any, g: Any, *slots_t: Any, **values: Any) -> tuple[Any, ...]:
        shape = tuple(p.shape)
        if len(shape) < 2:
            raise InputError(
                f"{self.name} is for matrices, got a parameter of shape {shape}; "
                f"its like follow another rule ({self.auxiliary}), see steepest.rules.assign"
            )
        if len(shape) == 2:
            return self.formula(p, g, *slots_t, **values)
        flat = matrix_shape(shape)
        *slots, t = slots_t
        like_p = [s.per == "element" for s in self.slots.values()]
        slots = [
            s.reshape(flat) if like and s is not None else s
            for s, like in zip(slots, like_p, strict=True)
        ]
        step, *new = self.formula(p.reshape(flat), g.reshape(flat), *slots, t, **values)
        return step.reshape(shape), *(
            s.reshape(shape) if like and s is not None else s
            for s, like in zip(new, like_p, strict=True)
        )

    @property
    def stackable(self) -> bool:
        """Whether the formula of a ``matrix`` rule takes a stack of matrices at once."""
        return self.kind == "matrix" and all(m.kind == "elementwise" for m in self.modifiers)

    @property
    def has_totals(self) -> bool:
        """Whether the step of one tensor depends on sums over all of them."""
        return self.sums is not None

    def partial_sums(self, *args: Any, **values: Any) -> tuple[Any, ...]:
        """What one tensor contributes to the totals: pure, same arguments as the rule itself.

        An engine does two passes: the partial sums of every tensor, added up over all tensors
        of all groups; then the rule on every tensor, with ``totals`` and the same arguments.

        >>> from steepest import rules
        >>> clipped = rules.get("clip_global_norm(sgd)")
        >>> three = clipped.partial_sums(0.0, 3.0, None, 1)
        >>> four = clipped.partial_sums(0.0, 4.0, None, 1)
        >>> totals = tuple(a + b for a, b in zip(three, four))
        >>> totals
        (25.0,)
        >>> round(clipped(0.0, 3.0, None, 1, lr=1.0, totals=totals)[0], 6)
        -0.6
        """
        if self.sums is None:
            return ()
        return self.sums(*args, **{**self.hyperparameters, **self.options, **values})

    def averaged(self, p: Any, slots: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """The averaged parameter, which is what to evaluate; ``p`` itself is what to train.

        Pure: keep ``p`` and put it back before training goes on. A rule that averages nothing
        returns ``p``.

        Args:
            p: The parameter.
            slots: Its slots by name.
            values: The hyperparameters and options that are not at their default.
        """
        if self.average is None:
            return p
        return self.average(p, slots, {**self.hyperparameters, **self.options, **values})

    def active_slots(self, values: Mapping[str, Any], *, ndim: int = 1) -> tuple[str, ...]:
        """The slots that exist under these hyperparameters and options.

        Args:
            values: The hyperparameters and options that are not at their default.
            ndim: The parameter's number of axes (some rules keep less for matrices).

        >>> from steepest import rules
        >>> rules.get("sgd").active_slots({"momentum": 0.0})
        ()
        """
        full = {**self.hyperparameters, **self.options, **values}
        return tuple(
            name
            for name, slot in self.slots.items()
            if (slot.when is None or _is_on(full[slot.when])) and slot.exists_for(ndim)
        )

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise `InputError` for an unknown name, a wrong type or a value outside its domain."""
        known = [*self.hyperparameters, *self.options]
        for name, value in values.items():
            if name in self.options:
                self._check_option(name, value)
            elif name in self.hyperparameters:
                DOMAINS[name].check(name, value, owner=self.name)
            else:
                raise unknown_name(f"hyperparameter of {self.name}", name, known)

    def _check_option(self, name: str, value: object) -> None:
        allowed = self.choices.get(name, (True, False))
        if value not in allowed or isinstance(value, bool) != (True in allowed):
            shown = ", ".join(map(str, allowed))
            raise InputError(f"{self.name}: {name} must be one of {shown}, got {value!r}")

    def variant(self, name: str, *, paper: str, summary: str, **defaults: Any) -> Rule:
        """The same formula under another name with other defaults, registered.

        AdamW is Adam with ``decay="decoupled", weight_decay=0.01``: no second formula.
        """
        return _register(
            replace(self.with_defaults(**defaults), name=name, paper=paper, summary=summary)
        )

    def with_defaults(self, **defaults: Any) -> Rule:
        """The same rule with other defaults."""
        self.check(defaults)
        return replace(
            self,
            hyperparameters={k: defaults.get(k, v) for k, v in self.hyperparameters.items()},
            options={k: defaults.get(k, v) for k, v in self.options.items()},
        )

    def modified(self, modifier: Modifier) -> Rule:
        """This rule with a modifier around it: ``cautious(adamw)``. Not registered.

        Raises:
            InputError: If the two do not go together; the message says why.

        >>> from steepest import rules
        >>> rules.get("clip_norm(cautious(adamw))").hyperparameters["max_norm"]
        1.0
        """
        reason = self._cannot_take(modifier)
        if reason is not None:
            raise InputError(f"{modifier.name}({self.name}): {reason}")
        around = (modifier, *self.modifiers) if modifier.innermost else (*self.modifiers, modifier)
        kinds: tuple[Kind, ...] = ("elementwise", "norms", "matrix")
        return replace(
            self,
            name=f"{modifier.name}({self.name})",
            formula=compose(self.bare, around, keywords=_keywords(self.bare)),
            kind=max(self.kind, modifier.kind, key=kinds.index),
            hyperparameters={**self.hyperparameters, **modifier.hyperparameters},
            options={**self.options, **modifier.options},
            choices={**self.choices, **modifier.choices},
            modifiers=around,
            sums=compose_sums(self.bare_sums, around, keywords=_keywords(self.bare_sums)),
        )

    def _cannot_take(self, modifier: Modifier) -> str | None:
        if any(m.name == modifier.name for m in self.modifiers):
            return f"the rule is {modifier.name} already"
        if modifier.sums is not None and self.has_totals:
            return (
                "both need sums over all parameters, and one pass cannot give both; "
                "clip the gradients yourself before the step"
            )
        if modifier.step is not None and self.average is not None:
            return (
                "the rule moves an average together with the parameter, and a step that is "
                "changed afterwards would tear them apart"
            )
        clash = {*modifier.hyperparameters, *modifier.options} & {
            *self.hyperparameters,
            *self.options,
        }
        return f"both have a value called {', '.join(sorted(clash))}" if clash else None


_REGISTRY: dict[str, Rule] = {}
_MODIFIED: dict[str, Rule] = {}  # so that the same name is the same rule, to whoever caches by it


def _keywords(formula: Formula | None) -> frozenset[str]:
    """The keyword-only arguments of a formula."""
    if formula is None:
        return frozenset()
    parameters = inspect.signature(formula).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _is_on(value: Any) -> bool:
    """A float of zero or False is off; an array is on (some member needs the slot)."""
    return bool(value) if isinstance(value, (bool, int, float)) else True


def _register(new: Rule) -> Rule:
    if new.name in _REGISTRY:
        raise InputError(f"a rule named '{new.name}' is already registered; choose another name")
    _REGISTRY[new.name] = new
    return new


def rule(
    *,
    paper: str,
    kind: Kind = "elementwise",
    slots: Mapping[str, Slot] | None = None,
    modifiers: tuple[Modifier, ...] = (),
    choices: Mapping[str, tuple[str, ...]] | None = None,
    name: str | None = None,
    sums: Formula | None = None,
    average: Average | None = None,
    auxiliary: str | None = None,
) -> Callable[[Formula], Rule]:
    """Turn a formula ``(p, g, *slots, t, *, hyperparameters)`` into a registered `Rule`.

    Args:
        paper: Where the formula stands.
        kind: What it needs beside the element itself.
        slots: Only the slots that are not plain zeros of the parameter's shape.
        modifiers: Applied from the first to the last: the last one is outermost.
        choices: The allowed values of each option that is a string.
        name: The rule's name; default: the function's.
        sums: For a rule whose step depends on sums over all parameters: the partial sums of one
            tensor, a tuple, from the formula's positional arguments and those keywords that it
            names. The formula is handed the totals as ``totals``.
        average: For a rule that keeps an average: ``(p, slots, values)`` to the averaged
            parameter.
        auxiliary: For a rule made for matrices: the rule that the other parameters follow.

    Returns:
        The decorator; the function's name becomes the rule's unless ``name`` is given.

    Raises:
        InputError: If the signature is not that of a rule, or the name is taken.
    """

    def decorate(formula: Formula) -> Rule:
        label = name or formula.__name__
        parameters = inspect.signature(formula).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if positional[:2] != ["p", "g"] or positional[-1] != "t":
            raise InputError(
                f"rule {label}: the positional arguments must be p, g, the slots, t; "
                f"got {', '.join(positional)}"
            )
        values = {
            p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "totals"
        }
        numbers = {k: float(v) for k, v in values.items() if not isinstance(v, (bool, str))}
        options = {k: v for k, v in values.items() if isinstance(v, (bool, str))}
        allowed = dict(choices or {})
        for modifier in modifiers:
            numbers |= modifier.hyperparameters
            options |= modifier.options
            allowed |= modifier.choices
        missing = [k for k in numbers if k not in DOMAINS]
        if missing:
            raise InputError(
                f"rule {label}: {', '.join(missing)} has no domain; add it to rules/_domains.py"
            )
        given = dict(slots or {})
        return _register(
            Rule(
                name=label,
                formula=compose(formula, modifiers, keywords=_keywords(formula)),
                paper=paper,
                kind=kind,
                slots={s: given.get(s, Slot()) for s in positional[2:-1]},
                hyperparameters=numbers,
                options=options,
                choices=allowed,
                summary=(inspect.getdoc(formula) or "").split("\n\n")[0].replace("\n", " "),
                bare=formula,
                modifiers=modifiers,
                bare_sums=sums,
                sums=compose_sums(sums, modifiers, keywords=_keywords(sums)),
                average=average,
                auxiliary=auxiliary,
            )
        )

    return decorate


def get(name: str) -> Rule:
    """The rule of that name; ``modifier(rule)`` puts a modifier around one.

    >>> from steepest import rules
    >>> rules.get("cautious(adamw)").kind
    'norms'
    >>> rules.get("adm")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown rule 'adm'; did you mean 'adam'? Known: ada...
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    if name in _MODIFIED:
        return _MODIFIED[name]
    nested = re.fullmatch(r"(\w+)\((.+)\)", name)
    if nested is None:
        raise unknown_name("rule", name, _REGISTRY)
    modifier, inner = nested.groups()
    if modifier not in MODIFIERS:
        raise unknown_name("modifier of rules", modifier, MODIFIERS)
    return _MODIFIED.setdefault(name, get(inner).modified(MODIFIERS[modifier]))


def names() -> tuple[str, ...]:
    """The names of all registered rules, sorted."""
    return tuple(sorted(_REGISTRY))
