"""What a rule is, and the decorator that makes one out of a formula.

    p      parameter                    any shape
    g      its gradient                 shape of p
    slots  the rule's memory            each the shape of p, or one number (``per="tensor"``)
    t      number of this step          from 1
    step   what is added to p           shape of p
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from steepest.errors import InputError, unknown_name
from steepest.rules._domains import DOMAINS

__all__ = ["Modifier", "Rule", "Slot", "get", "names", "rule"]

Formula = Callable[..., tuple[Any, ...]]
Kind = Literal["elementwise", "norms", "matrix"]


@dataclass(frozen=True)
class Slot:
    """One piece of a rule's memory.

    Attributes:
        init: Its value before the first step: a number, or the name of the hyperparameter that
            gives it (``"lr"`` for Rprop's step sizes).
        when: The hyperparameter or option that must be non-zero for the slot to exist; the
            formula is handed ``None`` where it does not. None: it always exists.
        per: ``"element"`` (the shape of the parameter) or ``"tensor"`` (one number).
    """

    init: float | str = 0.0
    when: str | None = None
    per: Literal["element", "tensor"] = "element"


@dataclass(frozen=True)
class Modifier:
    """A rule in, a rule out: something that many rules have in common, written once.

    Attributes:
        name: How it is called.
        wrap: Takes a formula, returns the modified formula.
        hyperparameters: Names and defaults that it adds (numbers).
        options: Names and defaults that it adds (choices).
        choices: The allowed values of each option that is a string.
    """

    name: str
    wrap: Callable[[Formula], Formula]
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, bool | str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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

    def __call__(self, *args: Any, **values: Any) -> tuple[Any, ...]:
        """``(step, *new_slots)``; what is not in ``values`` has its default."""
        return self.formula(*args, **{**self.hyperparameters, **self.options, **values})

    def active_slots(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The slots that exist under these hyperparameters and options.

        >>> from steepest import rules
        >>> rules.get("sgd").active_slots({"momentum": 0.0})
        ()
        """
        full = {**self.hyperparameters, **self.options, **values}
        return tuple(
            name
            for name, slot in self.slots.items()
            if slot.when is None or _is_on(full[slot.when])
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
        self.check(defaults)
        numbers = {k: defaults.get(k, v) for k, v in self.hyperparameters.items()}
        options = {k: defaults.get(k, v) for k, v in self.options.items()}
        return _register(
            replace(
                self,
                name=name,
                paper=paper,
                summary=summary,
                hyperparameters=numbers,
                options=options,
            )
        )


_REGISTRY: dict[str, Rule] = {}


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
) -> Callable[[Formula], Rule]:
    """Turn a formula ``(p, g, *slots, t, *, hyperparameters)`` into a registered `Rule`.

    Args:
        paper: Where the formula stands.
        kind: What it needs beside the element itself.
        slots: Only the slots that are not plain zeros of the parameter's shape.
        modifiers: Applied from the first to the last: the last one is outermost.
        choices: The allowed values of each option that is a string.
        name: The rule's name; default: the function's.

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
        values = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        numbers = {k: float(v) for k, v in values.items() if not isinstance(v, (bool, str))}
        options = {k: v for k, v in values.items() if isinstance(v, (bool, str))}
        allowed = dict(choices or {})
        for modifier in modifiers:
            formula = modifier.wrap(formula)
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
                formula=formula,
                paper=paper,
                kind=kind,
                slots={s: given.get(s, Slot()) for s in positional[2:-1]},
                hyperparameters=numbers,
                options=options,
                choices=allowed,
                summary=(inspect.getdoc(formula) or "").split("\n\n")[0].replace("\n", " "),
            )
        )

    return decorate


def get(name: str) -> Rule:
    """The rule of that name.

    >>> from steepest import rules
    >>> rules.get("adm")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown rule 'adm'; did you mean 'adam'? Known: adadelta, ...
    """
    if name not in _REGISTRY:
        raise unknown_name("rule", name, _REGISTRY)
    return _REGISTRY[name]


def names() -> tuple[str, ...]:
    """The names of all registered rules, sorted."""
    return tuple(sorted(_REGISTRY))
