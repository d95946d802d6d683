"""What a model or a loss keeps in Python, beside parameters and buffers: a pass may change it."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steepest.train.keyed import Counter, Keyed
from steepest.train.task import Task

__all__ = ["changed", "drawn", "kept_things"]

_PASSING = (
    type, types.ModuleType, types.BuiltinFunctionType, Task, torch.dtype, torch.device,
    Keyed, Counter,  # every pass begins to count its draws at 0
)  # fmt: skip


def kept_things(roots: Iterable[object]) -> list[tuple[str, Any, dict[str, Any]]]:
    """What objects keep in Python, beside the parameters, buffers and parts of modules."""
    return [(_name(root), root, _attributes(root)) for root in roots]


def drawn() -> tuple[object, ...]:
    """Where the global generators of Python, NumPy and torch are."""
    numpy: Any = np.random.get_state()
    return (
        random.getstate(),
        (*numpy[:1], numpy[1].tobytes(), *numpy[2:]),
        torch.default_generator.get_state().numpy().tobytes(),
    )


def changed(before: Iterable[tuple[str, Any, dict[str, Any]]]) -> str:
    """The first thing that is not what it was, in words; empty if there is none."""
    for name, thing, held in before:
        now = _attributes(thing)
        for key in [*held, *(k for k in now if k not in held)]:
            if key not in held or key not in now or held[key] != now[key]:
                return f"{name}.{key}"
    return ""


def _name(thing: object) -> str:
    if isinstance(thing, types.FunctionType):
        return thing.__name__
    return type(thing).__name__


def _attributes(thing: Any) -> dict[str, Any]:
    """What may change, as values that can be compared."""
    if isinstance(thing, Keyed):
        return {}
    if isinstance(thing, functools.partial):
        given = {"args": _value(thing.args, 3), "keywords": _value(thing.keywords, 3)}
        return _attributes(thing.func) | given
    if isinstance(thing, types.MethodType):
        return _attributes(thing.__func__) | _attributes(thing.__self__)
    if isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        held = dict(zip(thing.__code__.co_freevars, cells, strict=True))
        values = {name: _value(cell, 3) for name, cell in held.items()}
        names = {n for n in thing.__code__.co_names if n in thing.__globals__}
        return values | {n: _value(thing.__globals__[n], 2) for n in names}
    own = dict(getattr(thing, "__dict__", {}))
    if isinstance(thing, nn.Module):
        for name in ("_parameters", "_buffers", "_modules"):
            own.pop(name, None)
    return {name: _value(value, 3) for name, value in own.items()}


def _value(value: Any, depth: int) -> Any:
    """A copy that is equal as long as nothing in it has changed."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return value
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, types.CellType):
        try:
            return _value(value.cell_contents, depth)
        except ValueError:  # an empty cell
            return None
    if isinstance(value, _PASSING) or depth == 0:
        return id(value)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, Mapping):
        return [(id(k) if isinstance(k, Tensor) else k, _value(v, depth - 1))
                for k, v in value.items()]  # fmt: skip
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value(v, depth - 1) for v in value]
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict) and not isinstance(value, nn.Module):
        return id(value), [(k, _value(v, depth - 1)) for k, v in inside.items()]
    return id(value)
