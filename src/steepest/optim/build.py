"""From a rule's name to an optimizer, also for rules that torch.optim does not have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steepest.errors import unknown_name
from steepest.kernels import EngineName
from steepest.optim import faces
from steepest.optim._names import FLAGS, face_of
from steepest.optim.facade import Facade
from steepest.rules import get

__all__ = ["build", "from_rule"]

_TORCHS: dict[str, type[Facade]] = {
    face.rule_name: face
    for face in vars(faces).values()
    if isinstance(face, type) and issubclass(face, Facade) and face is not Facade
    if face is not faces.AdamW
} | {"adamw": faces.AdamW}

_GENERATED: dict[str, type[Facade]] = {}


def from_rule(name: str) -> type[Facade]:
    """The optimizer class of a rule: torch's face where torch has one, else a generated one.

    A generated class takes ``(params, lr=..., ...)``: the rule's hyperparameters and options at
    their defaults, two averages' coefficients as ``betas``, then torch's flags and ``engine``.

    Raises:
        InputError: If there is no such rule.

    >>> from steepest import optim
    >>> optim.from_rule("adamw") is optim.AdamW
    True
    """
    if name in _TORCHS:
        return _TORCHS[name]
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
            ``engine``.

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
    known = {k: p.default for k, p in signature.items() if k not in ("params", "engine")}
    engine: EngineName = values.pop("engine", "auto")
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
    optimizer = cls(params, **arguments, engine=engine)
    optimizer.defaults.update(extra)
    return optimizer


class _Generated(Facade):
    """An optimizer for a rule that torch.optim does not have."""

    def __init__(self, params: Any, *args: Any, engine: EngineName = "auto", **given: Any) -> None:
        names = list(self.entries())
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__}() takes at most {len(names)} values")
        given.update(zip(names, args, strict=False))
        for name in given:
            if name not in names:
                raise unknown_name(f"argument of {type(self).__name__}", name, names)
        super().__init__(params, {**self.entries(), **given}, engine=engine)

    @classmethod
    def entries(cls) -> dict[str, Any]:
        """What a parameter group holds at its defaults."""
        face = face_of(get(cls.rule_name))
        rule = face.rule
        values = {**rule.hyperparameters, **rule.options}
        entries = {
            key: values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)
            for key, names in face.keys.items()
        }
        if "decay" in rule.options:
            entries["decay"] = rule.options["decay"]
        return {**entries, **FLAGS}

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
    cls: type[_Generated] = type(
        title,
        (_Generated,),
        {"rule_name": name, "__doc__": rule.summary, "__module__": __name__},
    )
    kind = inspect.Parameter
    signature = inspect.Signature(
        [kind("params", kind.POSITIONAL_OR_KEYWORD)]
        + [kind(k, kind.POSITIONAL_OR_KEYWORD, default=v) for k, v in cls.entries().items()]
        + [kind("engine", kind.KEYWORD_ONLY, default="auto")]
    )
    setattr(cls, "__signature__", signature)  # noqa: B010  (mypy knows no such attribute)
    return cls
