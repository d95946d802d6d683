"""What is compared: an optimizer with its settings and its schedule.

An arm is a rule of ours, anybody's ``torch.optim.Optimizer`` class, or a function that makes an
optimizer. It is checked when it is written down, not when the race reaches it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from steepest import rules, schedules
from steepest.errors import InputError, LedgerError, unknown_name
from steepest.racing import grammar, lookup
from steepest.tune import Space, preset
from steepest.values import write_value

if TYPE_CHECKING:
    from steepest.schedules import Schedule

__all__ = ["Arm", "OptimizerFactory", "check_source", "parse", "resolve", "restore"]

OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]

# torch packs these into tuples; rules have one name per number.
_TUPLES: dict[str, tuple[str, str]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
}


@dataclass(frozen=True)
class Arm:
    """One side of a race.

    Attributes:
        label: How tables and pictures call it; unique in a race.
        text: Its canonical text; two arms with the same text are the same optimizer.
        kind: ``rule`` (a formula of ours), ``class`` (anybody's class) or ``factory`` (a function).
        name: The rule's name, ``package.module:Class``, or the function's name.
        values: The hyperparameters that are fixed; the others have the optimizer's defaults, or
            are searched.
        schedule: What multiplies the learning rate over the steps; None: nothing.
        source: Hash of the source code behind a class or a function that is not of an installed
            package, so that a resumed race notices that it was edited.
        space: What is searched; None for an arm with a setting.
        preset: The space, and the schedule unless one was written, are those of the rule's preset.
        target: The class or the function itself; None for a rule.

    >>> arm = parse("adam(lr=1e-3, betas=(0.9, 0.99)) + cosine(warmup=0.05)")
    >>> arm.kind, dict(arm.values)
    ('rule', {'lr': 0.001, 'beta1': 0.9, 'beta2': 0.99})
    """

    label: str
    text: str
    kind: Literal["rule", "class", "factory"]
    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    source: str = ""
    space: Space | None = None
    preset: bool = False
    target: Callable[..., torch.optim.Optimizer] | None = field(
        default=None, repr=False, compare=False
    )

    def at(self, values: Mapping[str, Any]) -> Arm:
        """One setting of an arm that is searched, as an arm with a setting.

        Args:
            values: All values, as `steepest.tune.Space.at` gives them.

        >>> arm = parse("sgd(lr=1e-2..1, momentum=0.9)")
        >>> arm.at(arm.space.at([0.5])).text
        'sgd(lr=0.1, momentum=0.9)'
        """
        if self.kind == "rule":
            values = _rule_values(rules.get(self.name), values)
        text = _text(self.name, values, self.schedule)
        return replace(self, text=text, values=dict(values), space=None, preset=False)

    def middle(self) -> Arm:
        """The middle of the space; the arm itself where nothing is searched."""
        return self if self.space is None else self.at(self.space.at([0.5] * self.space.dim))

    def untuned(self) -> Arm:
        """What is searched at the optimizer's defaults; what was written stays.

        Raises:
            InputError: If the optimizer has no defaults for it.

        >>> parse("sgd(lr=1e-2..1, momentum=0.9)").untuned().text
        'sgd(momentum=0.9)'
        """
        usual = self.preset and self.text == self.name  # nobody wrote the schedule
        arm = replace(self, schedule=None if usual else self.schedule).at(self.values)
        _build(arm)
        return arm

    def factory(self) -> OptimizerFactory:
        """A function that makes this arm's optimizer for some parameters."""
        if self.space is not None:
            raise InputError(
                f"the arm '{self.label}' is searched, so it is no one optimizer; a setting of it "
                f"is: {self.middle().text}"
            )
        if self.kind == "rule":
            from steepest import optim

            return functools.partial(optim.build, self.name, **self.values)
        return functools.partial(cast("OptimizerFactory", self.target), **self.values)

    def settings(self) -> dict[str, Any]:
        """Everything about the arm as plain values, for the ledger."""
        return {
            "label": self.label,
            "text": self.text,
            "kind": self.kind,
            "name": self.name,
            "values": {k: v if _is_plain(v) else repr(v) for k, v in self.values.items()},
            "schedule": self.schedule.spec() if self.schedule else None,
            "source": self.source,
            "space": self.space.spec() if self.space else None,
        }

    def learning_rate(self) -> float | None:
        """The rate before any schedule, where it is known without building the optimizer."""
        if "lr" in self.values:
            return float(self.values["lr"])
        return rules.get(self.name).hyperparameters.get("lr") if self.kind == "rule" else None


def parse(text: str, *, label: str | None = None) -> Arm:
    """The arm that a text describes, checked.

    Args:
        text: See the grammar in `steepest.racing.grammar`: ``adam()``, ``sgd(lr=0.1)``,
            ``adam(lr=1e-3) + cosine(warmup=0.05)``, ``package.module:Class(lr=1e-3)``; and what
            is to be searched: ``adam(lr=1e-4..1e-1)``, or ``adam`` for the rule's preset space.
        label: How it is called; default: its canonical text.

    Raises:
        InputError: For a text that cannot be read, an unknown name, or a value that the optimizer
            refuses.

    >>> parse("sgd(momentum=.9, lr=1e-1)").label
    'sgd(lr=0.1, momentum=0.9)'
    >>> parse("adm(lr=1e-3)")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown rule 'adm'; did you mean 'adam'? Known: ...
    >>> parse("adam(lr=-1)")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: adam: lr must be >= 0, got -1; to maximise pass maximize=True
    """
    written = grammar.read(text)
    head, values = written.head, written.arguments or {}
    schedule = None if written.schedule is None else schedules.parse(written.schedule)
    if ":" in head:
        if written.arguments is None:
            raise InputError(
                f"the bare name '{head}' asks for a search over its preset space, and only rules "
                f"have one; write {head}() for its defaults, or what is searched: "
                f"{head}(lr=1e-4..1e-1)"
            )
        arm = _class_arm(lookup.optimizer_class(head), name=lookup.absolute(head), values=values)
        return _finished(arm, label, schedule=schedule, shown=head)
    rule = rules.get(head)
    if written.arguments is None:
        return _preset_arm(head, schedule, label)
    found = Arm("", "", "rule", head, _rule_values(rule, values))
    return _finished(found, label, schedule=schedule)


def resolve(arms: Iterable[Any] | Mapping[str, Any]) -> tuple[Arm, ...]:
    """The arms of a race, from any of the ways to write them.

    Args:
        arms: Texts, `Arm`, optimizer classes or factories ``(params) -> Optimizer``; or a mapping
            from labels to these.

    Raises:
        InputError: For fewer than one arm, an arm that cannot be, or a label that is given twice.

    >>> [arm.label for arm in resolve({"a": "adam()", "b": torch.optim.Adagrad})]
    ['a', 'b']
    """
    if isinstance(arms, (str, Arm)) or not isinstance(arms, Iterable):
        raise InputError(f"arms must be a list or a mapping from labels, got {arms!r}")
    if isinstance(arms, Mapping):
        found = tuple(_resolve_one(value, label=str(key)) for key, value in arms.items())
    else:
        found = tuple(_resolve_one(value, label=None) for value in arms)
    if not found:
        raise InputError('a race needs at least one arm, got none; for example ["adam()", "sgd()"]')
    labels = [arm.label for arm in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(
            f"two arms are called '{twice[0]}'; leave one out, or give them different labels "
            f'(label=arm on the command line, {{"label": arm}} in Python)'
        )
    return found


def _resolve_one(value: Any, *, label: str | None) -> Arm:
    if isinstance(value, Arm):
        return replace(value, label=label) if label else value
    if isinstance(value, str):
        return parse(value, label=label)
    if isinstance(value, functools.partial) and _is_class(value.func) and not value.args:
        return _finished(_class_arm(value.func, values=value.keywords), label)
    if _is_class(value):
        return _finished(_class_arm(value, values={}), label)
    if isinstance(value, torch.optim.Optimizer):
        raise InputError(
            f"an arm makes a new optimizer for every run, but {type(value).__name__} is one that "
            "exists already; pass the class, or lambda params: Optimizer(params, ...)"
        )
    if isinstance(value, type) or not callable(value):
        raise InputError(
            "an arm is a text, an optimizer class or a function (params) -> Optimizer, "
            f"got {value!r}"
        )
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if label is None and "<lambda>" in name:
        raise InputError('a lambda has no name to show; give it one: arms={"my label": lambda ...}')
    text = f"{getattr(value, '__module__', '?')}:{name}"
    source = lookup.source_hash(value)
    return Arm(label or name, text, "factory", name, {}, source=source, target=value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _is_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def _class_arm(cls: Any, *, values: Mapping[str, Any], name: str | None = None) -> Arm:
    shown = name or f"{cls.__module__}:{cls.__qualname__}"
    accepted = inspect.signature(cls).parameters
    known = [p.name for p in list(accepted.values())[1:] if p.kind is not p.VAR_KEYWORD]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for key in values:
        if key not in known and not takes_any:
            raise unknown_name(f"hyperparameter of {shown}", key, known)
    source = lookup.source_hash(cls)
    return Arm("", "", "class", shown, dict(values), source=source, target=cls)


def _rule_values(rule: rules.Rule, written: Mapping[str, Any]) -> dict[str, Any]:
    """What was written, under the rule's own names and in its order."""
    known = [*rule.hyperparameters, *rule.options]
    values: dict[str, Any] = {}
    for key, value in written.items():
        names = _TUPLES.get(key, ())
        if key not in known and names and set(names) <= set(known):
            if not isinstance(value, tuple) or len(value) != len(names):
                raise InputError(
                    f"{rule.name}: {key} must be ({', '.join(names)}), got {write_value(value)}"
                )
            values |= dict(zip(names, value, strict=True))
        elif key in known:
            values[key] = value
        else:
            raise unknown_name(f"hyperparameter of {rule.name}", key, known)
    return {key: values[key] for key in known if key in values}


def _text(name: str, arguments: Mapping[str, Any] | Space, schedule: Schedule | None) -> str:
    """The canonical text of an arm."""
    if isinstance(arguments, Space):
        inside = str(arguments)
    else:
        inside = ", ".join(f"{k}={write_value(v)}" for k, v in arguments.items())
    text = f"{name}({inside})"
    return text if schedule is None else f"{text} + {schedule.spec()}"


def _preset_arm(name: str, schedule: Schedule | None, label: str | None) -> Arm:
    """A bare name: its preset space, and its preset schedule unless one was written."""
    usual = preset(name)
    text = name if schedule is None else f"{name} + {schedule.spec()}"
    if schedule is None and usual.schedule is not None:
        schedule = schedules.parse(usual.schedule)
    arm = Arm(label or text, text, "rule", name, schedule=schedule, space=usual.space, preset=True)
    _build_some(arm)
    return arm


def _finished(
    arm: Arm, label: str | None, *, schedule: Schedule | None = None, shown: str | None = None
) -> Arm:
    """With its space and its canonical text, after some optimizers of it were built.

    Args:
        arm: With all that was written in its values.
        label: How it is to be called; None: by its text.
        schedule: Of its learning rate.
        shown: Its name in the label, if that is not the name in its text.
    """
    space = Space.of(arm.values, rule=arm.name if arm.kind == "rule" else None)
    arguments = space if space.dim else arm.values
    text = _text(arm.name, arguments, schedule)
    label = (label or _text(shown or arm.name, arguments, schedule)).strip()
    arm = replace(arm, text=text, label=label, schedule=schedule)
    if space.dim:
        fixed = {key: value for key, value in space.fixed.items() if key in arm.values}
        arm = replace(arm, space=space, values=fixed)
    _build_some(arm)
    return arm


def _build_some(arm: Arm) -> None:
    """Raise `InputError` unless the optimizer can be built: of a space, its middle and two ends."""
    if arm.space is None:
        _build(arm)
        return
    for unit in (0.0, 0.5, 1.0):
        _build(arm.at(arm.space.at([unit] * arm.space.dim)))


def _build(arm: Arm) -> None:
    """Raise `InputError` unless the optimizer of a setting can be built."""
    if arm.kind == "rule":
        rules.get(arm.name).check(arm.values)
    try:
        arm.factory()([torch.nn.Parameter(torch.zeros(2, 2))])
    except InputError:
        raise
    except Exception as error:  # whatever the constructor of a stranger's class raises
        raise InputError(
            f"the optimizer of the arm '{arm.text}' cannot be built: "
            f"{type(error).__name__}: {error}; change its arguments"
        ) from error


def restore(settings: Mapping[str, Any]) -> Arm:
    """The arm that `Arm.settings` described, found again by its text.

    Raises:
        InputError: If it was a Python object that has no name to find it by.
        LedgerError: If its source code is not what it was.
    """
    label, text = str(settings["label"]), str(settings["text"])
    try:
        if settings["kind"] == "factory":
            arm = _resolve_one(lookup.function(text), label=label)
        else:
            arm = parse(text, label=label)
    except InputError as error:
        raise InputError(
            f"the arm '{label}' cannot be made again from its text '{text}': {error}. If it was "
            "given as a Python object, go on from Python: call steepest.race with the same "
            "arguments and the same out"
        ) from error
    check_source(arm, settings)
    if (arm.space.spec() if arm.space else None) != settings.get("space"):
        raise LedgerError(
            f"the space of the arm '{label}' is {settings['space']} in the ledger and {arm.space} "
            "here; it was planned by a steepest with another preset. Resume with that version, or "
            "race again with another --out"
        )
    return arm


def check_source(arm: Arm, settings: Mapping[str, Any]) -> None:
    """Raise `LedgerError` if the code behind an arm was edited since the race began."""
    if arm.source != settings["source"]:
        raise LedgerError(
            f"the source code of the arm '{arm.label}' ({arm.name}) has changed since the race "
            "began; results from before and after cannot be compared. Undo the change to resume, "
            "or race again with another --out"
        )
