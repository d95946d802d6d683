"""Is this optimizer what it says it is?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from steepest import rules
from steepest.auditing.findings import Audit
from steepest.auditing.names import Names, names_of, signature_of
from steepest.auditing.readings import fixed, like, readings
from steepest.auditing.scenarios import play, scenarios
from steepest.auditing.search import Search
from steepest.auditing.subject import Subject, undisturbed
from steepest.errors import InputError, UnsupportedError
from steepest.racing.lookup import optimizer_class
from steepest.rules import Rule

__all__ = ["audit"]


def audit(
    factory: Callable[..., torch.optim.Optimizer] | str,
    rule: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Audit:
    """Drive an optimizer with fixed gradients and compare it with the float64 formula of a rule.

    It goes through one thing at a time: plain steps, every option that it has, a large ε, a
    changing rate, weight decay, missing gradients, a ``state_dict`` into a fresh instance, groups,
    ``maximize``, a rate in a tensor; at last through all of them at once. Where it leaves the rule
    in all of its dialects, the audit looks for the one change to the rule that explains it.

    Args:
        factory: The class, ``"module:Class"``, or a function ``(params, **arguments)``.
        rule: The name of the rule that it is said to follow.
        arguments: What to hand to the optimizer beside the parameters.
        names: The rule's names to the optimizer's arguments, for unusual ones:
            ``{"momentum": "mu"}``.
        values: Values of the rule that are known and cannot be read off the optimizer.
        dtype: Of the parameters; default: float64, and float32 if the optimizer cannot do that.

    Returns:
        The dialect that it follows, or what deviates, by how much and since which step.

    Raises:
        InputError: If it cannot be made, or is no optimizer, or there is no such rule.

    >>> import torch
    >>> class Hasty(torch.optim.SGD):
    ...     def step(self, closure=None):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 p.data.sub_(group["lr"] * group["weight_decay"] * p.data)
    ...         return super().step(closure)
    >>> found = audit(Hasty, "sgd")
    >>> found.exit_code, found.findings[0].term, found.findings[0].since
    (3, 'weight decay', 1)
    """
    known = rules.get(rule)
    known.check(values or {})
    if isinstance(factory, str):
        factory = optimizer_class(factory)
    given = dict(arguments or {})
    notes: list[str] = []
    if dtype is not None:
        subject = Subject(factory, given, dtype)
        found = _names(subject, known, names or {})
        _try(subject, known, found)
    else:
        subject = Subject(factory, given, torch.float64)
        try:
            found = _names(subject, known, names or {})
            _try(subject, known, found)
        except UnsupportedError as error:
            notes.append(f"float64 parameters: {error}; driven in float32")
            subject = Subject(factory, given, torch.float32)
            found = _names(subject, known, names or {})
            _try(subject, known, found)
    return _audited(subject, known, found, values or {}, notes)


def _audited(
    subject: Subject, rule: Rule, names: Names, values: Mapping[str, Any], notes: list[str]
) -> Audit:
    if "lr" not in names:
        raise InputError(
            f"{_name(subject.factory)} has no argument for the learning rate; name it: --map lr=..."
        )
    base = {**names.values(rule), **values}
    if "weight_decay" not in names and "weight_decay" in rule.hyperparameters:
        base["weight_decay"] = 0.0
        notes.append("it has no argument for weight decay")
    defaults = {**rule.hyperparameters, **rule.options}
    signature = signature_of(subject.factory)
    annotated = {**names.defaults, "lr": str(_annotation(signature, names))}
    search = Search(
        rule=rule,
        subject=subject,
        names=names,
        base=base,
        options=fixed(rule, names),
        readings=readings(rule, names, values),
    )
    for scenario in scenarios(rule, names, annotated):
        search.meet(play(rule, scenario, names))
    search.meet_average()
    reading, findings = search.reading, search.close()
    numbers = {k: v for k, v in base.items() if k in rule.hyperparameters and k not in values}
    return Audit(
        subject=_name(subject.factory),
        rule=rule.name,
        follows=not findings,
        dialect={k: v for k, v in reading.values.items() if v != defaults[k]},
        defaults={k: v for k, v in numbers.items() if v != defaults[k] and k not in ("lr",)},
        like=like(rule, reading) if not findings else (),
        per_group=reading.per_group,
        dtype=str(subject.dtype).removeprefix("torch."),
        precision=search.precision,
        findings=tuple(findings),
        rows=tuple(search.rows),
        arguments={
            name: argument if at is None else f"{argument}[{at}]"
            for name, (argument, at) in names.places.items()
        },
        notes=tuple(notes),
    )


def _annotation(signature: Mapping[str, inspect.Parameter], names: Names) -> Any:
    parameter = signature.get(names.places["lr"][0])
    return "" if parameter is None else parameter.annotation


def _name(factory: Any) -> str:
    name = getattr(factory, "__qualname__", None)
    return f"{factory.__module__}:{name}" if name else repr(factory)


def _names(subject: Subject, rule: Rule, renamed: Mapping[str, str]) -> Names:
    """Make one, to see what its groups hold."""
    missing = [
        k
        for k, p in signature_of(subject.factory).items()
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and k not in subject.given
    ]
    given = dict(subject.given)
    if "lr" in missing:
        missing.remove("lr")
        given["lr"] = 1e-2
    if missing:
        raise InputError(
            f"{_name(subject.factory)} needs {', '.join(missing)}, which no rule has a value for; "
            "give it: --set name=value, or arguments={...}"
        )
    probe = subject.tensors([np.ones((4, 4)), np.ones((4, 4))])
    with undisturbed(subject.dtype):
        try:
            made = subject.factory(probe, **given)
        except Exception as error:
            raise InputError(
                f"cannot make {_name(subject.factory)}: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(
            f"{_name(subject.factory)} made a {type(made).__name__}; "
            "expected a torch.optim.Optimizer"
        )
    return names_of(rule, subject.factory, made.param_groups[0], given=given, renamed=renamed)


def _try(subject: Subject, rule: Rule, names: Names) -> None:
    """Two plain steps, to see whether it runs at all with this dtype."""
    if "lr" not in names:
        return
    plan = play(rule, replace(scenarios(rule, names, {})[0]), names)
    try:
        subject.record(plan, names, stop=2)
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        if subject.dtype == torch.float64:
            raise UnsupportedError(message) from error
        raise InputError(f"{_name(subject.factory)} cannot take a step: {message}") from error
