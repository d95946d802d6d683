"""Texts to token numbers, once: what was tokenised is kept in the user's cache folder.

    N    texts
    L    tokens of the longest

A file is named by a hash of everything that it depends on (the texts, the tokenizer, the length),
so it is never out of date, and it carries a hash of what it holds, so a damaged one is made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from steepest.kernels import cache
from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["tokenise"]

_VERSION = "1"  # of what is done to a text before its tokenizer sees it


def tokenise(
    texts: list[str],
    encode: Callable[[list[str]], Iterable[list[int]]],
    *,
    identity: str,
    length: int,
) -> tuple[Tensor, Tensor, str]:
    """Token numbers, from the cache if they are there.

    Args:
        texts: What to tokenise.
        encode: Texts to their token numbers, at most ``length`` each.
        identity: Of the tokenizer.
        length: Most tokens of a text.

    Returns:
        Tokens ``[N, L]`` and lengths ``[N]``, int32, and a note if they could not be kept.
    """
    key = hashlib.sha256(f"{_VERSION}\0{length}\0{identity}".encode())
    for text in texts:
        key.update(b"\0" + text.encode("utf-8", "surrogatepass"))
    try:
        path = cache.folder("tokens") / f"{key.hexdigest()}.safetensors"
    except KernelUnavailable as error:
        return *_padded(encode(texts)), f"tokens are not kept for the next time: {error}"
    found = _load(path)
    if found is not None:
        return *found, ""
    tokens, lengths = _padded(encode(texts))
    try:
        with cache.place(path) as made:
            held = {"tokens": tokens, "lengths": lengths}
            safetensors.torch.save_file(held, made, metadata={"sha256": _digest(tokens, lengths)})
    except OSError as error:
        return tokens, lengths, f"tokens are not kept for the next time: {error}"
    return tokens, lengths, ""


def _padded(rows: Iterable[list[int]]) -> tuple[Tensor, Tensor]:
    held = [np.asarray(row, dtype=np.int32) for row in rows]
    lengths = np.array([max(1, len(row)) for row in held], dtype=np.int32)
    tokens = np.zeros((len(held), int(lengths.max())), dtype=np.int32)
    for place, row in enumerate(held):
        tokens[place, : len(row)] = row
    return torch.from_numpy(tokens), torch.from_numpy(lengths)


def _load(path: Path) -> tuple[Tensor, Tensor] | None:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tokens, lengths = file.get_tensor("tokens"), file.get_tensor("lengths")
            wanted = (file.metadata() or {}).get("sha256")
    except (OSError, safetensors.SafetensorError):
        return None
    return (tokens, lengths) if _digest(tokens, lengths) == wanted else None


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
