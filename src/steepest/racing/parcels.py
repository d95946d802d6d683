"""Tensors on their way between a race and its workers: bytes that are not unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import safetensors.torch
from torch import Tensor

from steepest.train.checkpoint import RunState

__all__ = [
    "StateParcel",
    "WeightsParcel",
    "pack_state",
    "pack_weights",
    "unpack_state",
    "unpack_weights",
]

WeightsParcel: TypeAlias = tuple[list[str], bytes]
StateParcel: TypeAlias = tuple[bytes, dict[str, Any]]


def pack_weights(weights: Mapping[str, Tensor]) -> WeightsParcel:
    """Named tensors; safetensors sorts them, and hashes see the model's order."""
    return list(weights), safetensors.torch.save(dict(weights))


def unpack_weights(parcel: WeightsParcel) -> dict[str, Tensor]:
    """What `pack_weights` was given.

    >>> import torch
    >>> list(unpack_weights(pack_weights({"b": torch.ones(1), "a": torch.zeros(1)})))
    ['b', 'a']
    """
    names, data = parcel
    found = safetensors.torch.load(data)
    return {name: found[name] for name in names}


def pack_state(state: RunState) -> StateParcel:
    """A run's state."""
    return safetensors.torch.save(state.tensors), state.meta


def unpack_state(parcel: StateParcel) -> RunState:
    """What `pack_state` was given."""
    tensors, meta = parcel
    return RunState(safetensors.torch.load(tensors), meta)
