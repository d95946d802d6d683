"""From a rule's name to an optimizer, also for rules that torch.optim does not have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steepest.errors import unknown_name
from steepest.kernels import EngineName
from steepest.optim import faces, layerwise, matrix, modern, schedulefree
from steepest.optim._names import FLAGS, entries_of, face_of
from steepest.optim._precision import PRECISION, plain
from steepest.optim.averaging import Averaged
from steepest.optim.facade import Facade
from steepest.optim.routing import Routed
from steepest.rules import get

__all__ = ["build", "from_rule"]

_OWN: dict[str, type[Facade]] = {
    cls.rule_name: cls
    for module in (faces, modern, layerwise, schedulefree, matrix)
    for cls in map(module.__dict__.__getitem__, module.__all__)
}

_GENERATED: dict[str, type[Facade]] = {}

_NOT_IN_GROUPS = ("params", "engine", "auxiliary")
"""Arguments of optimizers that are no entries of their parameter groups."""


def from_rule(name: str) -> type[Facade]:
    """The optimizer class of a rule: the one written down here, else a generated one.

    Generated ones are those of modified rules (``cautious(adamw)``) and of rules that a user has
    registered. They take ``(params, lr=..., ...)``: the rule's hyperparameters and options at
    their defaults, two averages' coefficients as ``betas``, then torch's flags and ``engine``.

    Raises:
        InputError: If there is no such rule.

    >>> from steepest import optim
    >>> optim.from_rule("adamw") is optim.AdamW
    True
    """
    if name in _OWN:
        return _OWN[name]
    if name not in _GENERATED:
        _GENERATED[name] = _generated(name)
    return _GENERATED[name]


def build(name: str, params: Any, **values: Any) -> Facade:
    """An optimizer from the name of its rule and values under the rule's names.

    Args:
        name: The rule's name.
        params: Parameters, named parameters or parameter groups.
        values: Hyperparameters and options as the rule calls them (``beta1=0.8``,
            ``decay="decoupled"``) or as torch does (``betas=(0.8, 0.99)``); torch's flags;
            ``engine``; for matrix rules ``auxiliary``; and for parameters of 16 bits
            ``slot_dtype=torch.float32``, ``rounding="stochastic"``, ``rounding_seed``, which are
            entries of parameter groups too.

    Raises:
        InputError: For an unknown name or a value outside its domain.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(3))
    >>> build("sgd", [weight], lr=0.1, momentum=0.9).param_groups[0]["momentum"]
    0.9
    >>> build("adam", [weight], beta=0.9)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown hyperparameter of adam 'beta'; did you mean 'betas'? ...
    """
    cls = from_rule(name)
    signature = inspect.signature(cls).parameters
    known = {k: p.default for k, p in signature.items() if k not in _NOT_IN_GROUPS}
    known |= {k: FLAGS[k] for k in ("maximize", "capturable", "differentiable") if k not in known}
    known |= {key: PRECISION[key] for key in PRECISION if key in values}
    values = plain(values)
    apart = {key: values.pop(key) for key in _NOT_IN_GROUPS[1:] if key in values}
    if cls is faces.AdamW:
        known["decoupled_weight_decay"] = True
    entries = face_of(get(name)).entries(values, keys=known)
    arguments = {key: value for key, value in entries.items() if key in signature}
    extra = {key: value for key, value in entries.items() if key not in signature}
    if cls is faces.AdamW and extra.pop("decoupled_weight_decay", True) is False:
        extra["decay"] = "l2"
    if extra and not isinstance(params, Tensor):
        groups = list(params)
        if groups and not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        params = [{**extra, **group} for group in groups]
    optimizer = cls(params, **arguments, **apart)
    optimizer.defaults.update(extra)
    return optimizer


class _Generated(Facade):
    """An optimizer for a rule that torch.optim does not have."""

    def __init__(self, params: Any, *args: Any, engine: EngineName = "auto", **given: Any) -> None:
        routing = {}
        if isinstance(self, Routed):
            routing["auxiliary"] = given.pop("auxiliary", None)
        names = list(self.entries())
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__}() takes at most {len(names)} values")
        given.update(zip(names, args, strict=False))
        for name in given:
            if name not in names:
                raise unknown_name(f"argument of {type(self).__name__}", name, names)
        super().__init__(params, {**self.entries(), **given}, engine=engine, **routing)

    @classmethod
    def entries(cls) -> dict[str, Any]:
        """What a parameter group holds at its defaults."""
        return entries_of(get(cls.rule_name))

    def __reduce__(self) -> tuple[Any, ...]:
        # a class that is made at run time is not found by its name
        return _blank, (self.rule_name,), self.__getstate__()


def _blank(name: str) -> Facade:
    cls = from_rule(name)
    return cls.__new__(cls)


def _generated(name: str) -> type[Facade]:
    rule = get(name)
    title = "".join(
        part.capitalize() for part in name.replace("(", "_").replace(")", "").split("_")
    )
    bases: tuple[type, ...] = (_Generated,)
    if rule.kind == "matrix":
        bases = (_Generated, Routed)
    elif rule.average is not None:
        bases = (_Generated, Averaged)
    cls: type[_Generated] = type(
        title,
        bases,
        {"rule_name": name, "__doc__": rule.summary, "__module__": __name__},
    )
    kind = inspect.Parameter
    signature = inspect.Signature(
        [kind("params", kind.POSITIONAL_OR_KEYWORD)]
        + [kind(k, kind.POSITIONAL_OR_KEYWORD, default=v) for k, v in cls.entries().items()]
        + [kind("auxiliary", kind.KEYWORD_ONLY, default=None)] * issubclass(cls, Routed)
        + [kind("engine", kind.KEYWORD_ONLY, default="auto")]
    )
    setattr(cls, "__signature__", signature)  # noqa: B010  (mypy knows no such attribute)
    return cls
