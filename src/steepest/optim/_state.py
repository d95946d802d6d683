"""Optimizer state that notices when somebody writes into it.

Looking up the state of 2,000 parameters costs 0.3 ms per step, more than the step itself may
cost; so what was looked up is kept until the state has been written into.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["State", "filled", "with_plain_numbers"]

_WRITES = (
    "__setitem__",
    "__delitem__",
    "__ior__",
    "clear",
    "pop",
    "popitem",
    "setdefault",
    "update",
)


class _Writes:
    """A number that grows with every write."""

    def __init__(self) -> None:
        self.count = 0


def _noticing(cls: type[dict[Any, Any]]) -> type[dict[Any, Any]]:
    """Make every writing method of a dict class count."""

    def noticed(name: str) -> Any:
        write = getattr(dict, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.writes.count += 1
            return write(self, *args, **kwargs)

        method.__name__ = name
        return method

    for name in _WRITES:
        setattr(cls, name, noticed(name))
    return cls


@_noticing
class _ParameterState(dict[str, Any]):
    """The state of one parameter."""

    writes = _Writes()  # until it belongs to a State

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class State(defaultdict[Any, Any]):
    """``optimizer.state``: parameter to its state, with `writes` counting the changes.

    >>> state = State({})
    >>> before = state.writes.count
    >>> state["weight"]["step"] = 1
    >>> state.writes.count > before
    True
    """

    def __init__(self, entries: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        self.writes = _Writes()
        super().__init__(dict)
        for key, value in dict(entries).items():
            self[key] = value

    def __missing__(self, key: Any) -> Any:
        self[key] = {}
        return self[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, dict):
            value = _ParameterState(value)
            value.writes = self.writes
        self.writes.count += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.writes.count += 1
        super().__delitem__(key)

    def clear(self) -> None:
        """Forget everything."""
        self.writes.count += 1
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Remove and return the state of one parameter."""
        self.writes.count += 1
        return super().pop(*args)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last parameter and its state."""
        self.writes.count += 1
        return super().popitem()

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The state of a parameter, set to the default if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, other: Any) -> State:  # type: ignore[misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set the state of several parameters."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return defaultdict, (dict,), None, None, iter(self.items())

    def plain(self) -> dict[Any, Any]:
        """The same in ordinary dicts, as `torch.optim.Optimizer.state_dict` has it."""
        return {k: dict(v) if isinstance(v, dict) else v for k, v in self.items()}


def filled(zeros: Tensor, value: Any) -> Tensor:
    """The tensor with that value everywhere; in both parts of complex numbers."""
    real = torch.view_as_real(zeros) if zeros.is_complex() else zeros
    if isinstance(value, Tensor) or value != 0:
        with torch.no_grad():
            real.copy_(torch.as_tensor(value)) if isinstance(value, Tensor) else real.fill_(value)
    return zeros


def with_plain_numbers(state_dict: Mapping[str, Any], numbers: Collection[str]) -> dict[str, Any]:
    """A saved state with single numbers as floats: torch would round those beside bfloat16 weights.

    Args:
        state_dict: What an optimizer saved.
        numbers: The names of what is one number per parameter.
    """
    if not isinstance(state_dict.get("state"), Mapping):
        return dict(state_dict)
    state = {
        key: {
            name: value.item()
            if name in numbers and isinstance(value, Tensor) and value.numel() == 1
            else value
            for name, value in held.items()
        }
        if isinstance(held, Mapping)
        else held
        for key, held in state_dict["state"].items()
    }
    return {**state_dict, "state": state}
