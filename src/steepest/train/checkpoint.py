"""Checkpoints: safetensors for the tensors, JSON for the rest, never pickle.

A file appears whole or not at all: written beside its place, synced, renamed, directory synced.
Its tensors are hashed, so a flipped bit is found when it is loaded and not in a verdict.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from steepest.errors import LedgerError, TaskError

__all__ = ["RunState", "load", "pack", "save", "unpack"]

_FORMAT = "1"


@dataclass(frozen=True)
class RunState:
    """Everything that a run needs to go on as if it had never stopped.

    Attributes:
        tensors: By name, on the CPU, contiguous, not shared with anything that trains on.
        meta: What JSON can hold.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    meta: dict[str, Any]


def pack(value: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Turn nested dicts, lists, tuples, numbers, strings, None and tensors into JSON and tensors.

    Args:
        value: What to pack, for example ``optimizer.state_dict()``.
        prefix: The path that names its tensors.
        tensors: Receives copies of the tensors.

    Returns:
        A value for JSON that `unpack` turns back, with the same types and bits.

    Raises:
        TaskError: For anything else, saying where it sits.

    >>> tensors = {}
    >>> packed = pack({0: {"step": torch.tensor(3.0), "betas": (0.9, 0.99)}}, "optimizer", tensors)
    >>> list(tensors)
    ['optimizer/0/step']
    >>> unpack(packed, tensors)
    {0: {'step': tensor(3.), 'betas': (0.9, 0.99)}}
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise TaskError(
                f"{prefix}: a checkpoint cannot hold a tensor of {value.dtype}, {value.layout}; "
                "only dense real ones"
            )
        name = prefix
        while name in tensors:
            name += "'"
        held = value.detach().to("cpu", copy=True)
        tensors[name] = held.contiguous()
        return {"tensor": name if held.is_contiguous() else [name, list(held.stride())]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        items = []
        for key, item in value.items():
            if type(key) not in (bool, int, float, str):
                raise TaskError(f"{prefix}: a checkpoint cannot hold the key {key!r:.60}")
            items.append([key, pack(item, f"{prefix}/{key}", tensors)])
        return {"dict": items}
    if type(value) in (list, tuple):
        items = [pack(item, f"{prefix}/{i}", tensors) for i, item in enumerate(value)]
        return {type(value).__name__: items}
    raise TaskError(
        f"{prefix}: a checkpoint holds numbers, strings, tensors, and lists, tuples and dicts of "
        f"them; got {type(value).__module__}.{type(value).__qualname__}"
    )


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if not isinstance(packed, dict):
        return packed
    ((kind, body),) = packed.items()
    if kind == "tensor":
        return tensors[body] if isinstance(body, str) else _laid_out(tensors[body[0]], body[1])
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in body}
    items = [unpack(item, tensors) for item in body]
    return tuple(items) if kind == "tuple" else items


def _laid_out(tensor: Tensor, stride: list[int]) -> Tensor:
    """With the memory layout that it had: products of matrices depend on it in their last bits."""
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def save(path: str | Path, state: RunState) -> None:
    """Write a checkpoint; afterwards either the old file or the whole new one is there."""
    path = Path(path)
    header = {
        "steepest": _FORMAT,
        "meta": json.dumps(state.meta),
        "sha256": _digest(state.tensors),
    }
    data = safetensors.torch.save(state.tensors, metadata=header)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LedgerError(
            f"cannot write the checkpoint {path}: {error.strerror}; free space or choose another "
            "folder, then resume"
        ) from error


def load(path: str | Path) -> RunState:
    """Read a checkpoint back.

    Raises:
        LedgerError: If the file is missing, cut short, changed, or not one of ours.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise LedgerError(f"the checkpoint {path} is missing; {_ADVICE}") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise LedgerError(f"the checkpoint {path} is damaged ({error}); {_ADVICE}") from error
    if header.get("steepest") != _FORMAT:
        raise LedgerError(
            f"{path} is no checkpoint of this version of steepest (format "
            f"{header.get('steepest')!r}, expected {_FORMAT!r}); {_ADVICE}"
        )
    if header.get("sha256") != _digest(tensors):
        raise LedgerError(
            f"the checkpoint {path} is damaged: its contents do not match its checksum; {_ADVICE}"
        )
    return RunState(tensors=tensors, meta=json.loads(header["meta"]))


_ADVICE = "delete it, and the run starts again from an earlier checkpoint or from its beginning"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
