"""Parameters of 16 bits: slots of 32 beside them, and rounding that loses nothing on average.

A step of Adam moves a weight by about 1e-3 of its size; bfloat16 has steps of 4e-3 to 8e-3. Rounded
to nearest, most steps change nothing. Rounded up or down at random, with the nearer neighbour more
likely in proportion, they count on average. And a second moment that moves by 1 - beta2 = 1e-3 a
step stands still in bfloat16, but not in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from steepest.errors import InputError

__all__ = ["PRECISION", "check", "kept", "noise", "own", "plain", "release", "slot_dtype"]

PRECISION: dict[str, Any] = {"slot_dtype": None, "rounding": "nearest", "rounding_seed": 0}
"""Entries that a parameter group may have, and what they mean when they are absent.

* ``slot_dtype``: None, as the parameter; ``"float32"``: what is remembered of parameters of 16
  bits has 32.
* ``rounding``: ``"nearest"``; ``"stochastic"``: bfloat16 parameters and slots are rounded up or
  down at random. Only kernels on the CPU can do it.
* ``rounding_seed``: of the random numbers, which are a function of it, of the parameter's place
  in the optimizer, of its step, and of the element.
"""


@dataclass(frozen=True)
class _Kept:
    """A tensor that `torch.optim.Optimizer.load_state_dict` must not convert."""

    tensor: Tensor


def plain(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries with a dtype as its name, which any file format can hold."""
    given = entries.get("slot_dtype")
    if isinstance(given, torch.dtype):
        return {**entries, "slot_dtype": str(given).removeprefix("torch.")}
    return dict(entries)


def check(entries: Mapping[str, Any], *, owner: str) -> None:
    """Raise `InputError` unless these entries of a parameter group mean something."""
    given = {**PRECISION, **plain(entries)}
    if given["slot_dtype"] not in (None, "float32"):
        raise InputError(
            f"{owner}: slot_dtype must be torch.float32 or None (the parameter's own), "
            f"got {given['slot_dtype']!r}"
        )
    if given["rounding"] not in ("nearest", "stochastic"):
        raise InputError(
            f"{owner}: rounding must be 'nearest' or 'stochastic', got {given['rounding']!r}"
        )
    seed = given["rounding_seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError(f"{owner}: rounding_seed must be a whole number from 0, got {seed!r}")


def slot_dtype(group: Mapping[str, Any], p: Tensor) -> torch.dtype:
    """What the slots of a parameter are stored as."""
    half = p.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if half and group.get("slot_dtype") else p.dtype


def own(group: Mapping[str, Any], p: Tensor, slot: Tensor) -> Tensor:
    """A copy of a loaded slot, as the group has it; one of another type than p keeps its own."""
    same = slot.dtype is p.dtype
    return slot.to(device=p.device, dtype=slot_dtype(group, p) if same else slot.dtype, copy=True)


def noise(
    groups: Sequence[Mapping[str, Any]],
    group: Mapping[str, Any],
    members: Sequence[int],
    dtype: torch.dtype,
) -> list[int] | None:
    """The keys of parameters' random numbers; None if they are rounded to nearest.

    Args:
        groups: All parameter groups, since a key follows from the place among all parameters.
        group: The parameters' group.
        members: Their places in it.
        dtype: What they are stored as.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    if not half or group.get("rounding") != "stochastic":
        return None
    before = takewhile(lambda other: other is not group, groups)
    first = _mixed(group.get("rounding_seed", 0)) + sum(len(other["params"]) for other in before)
    return [_mixed(first + i) for i in members]


def kept(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state in which slots of float32 stay what they are, whatever the parameter is."""
    wide = {
        key
        for group in state_dict.get("param_groups", ())
        if group.get("slot_dtype")
        for key in group["params"]
    }
    if not wide:
        return dict(state_dict)
    state = {
        key: {name: _Kept(x) if _is_slot(x) else x for name, x in held.items()}
        if key in wide and isinstance(held, Mapping)
        else held
        for key, held in state_dict["state"].items()
    }
    return {**state_dict, "state": state}


def release(state: Mapping[Any, Any]) -> None:
    """Undo `kept`, in place."""
    for held in state.values():
        if isinstance(held, dict):
            held.update({k: x.tensor for k, x in held.items() if isinstance(x, _Kept)})


def _is_slot(x: object) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and x.is_floating_point()


def _mixed(x: int) -> int:
    """SplitMix64: one bit more or less in, half of the bits different out."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)
