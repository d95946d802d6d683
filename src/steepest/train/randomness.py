"""Where chance comes from: every random number of a run is a function of (seed, step) alone.

Three things draw on it. The *initial weights* come from torch's generators, seeded from the
seed. The *order of the batches* is a permutation per (seed, epoch). The *noise of a step* is
a key per (seed, step): counter-based dropout hashes it (see `steepest.train.keyed`), and
everything else that asks torch's global generator during the step finds it seeded from there.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

__all__ = ["batch_order", "derive", "isolated", "mix", "run_key", "seed_all", "seed_torch"]


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit number that depends on the seed and on what it is for, and on nothing else.

    The same on every machine and in every version: blake2b over the parts.

    >>> derive(0, "init")
    4186570775263033893
    >>> derive(0, "init") != derive(1, "init") != derive(1, "order", 0)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def batch_order(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which epoch ``epoch`` visits ``n`` examples: a permutation, int64, on the CPU.

    >>> batch_order(0, 0, 5).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


@overload
def mix(x: int) -> int: ...
@overload
def mix(x: Tensor) -> Tensor: ...
def mix(x: int | Tensor) -> int | Tensor:
    """A bijection of 32-bit integers in which every input bit flips every output bit half the time.

    Takes a signed 32-bit Python integer or an int32 tensor and treats both alike, so a key
    computed on the host and one computed for a whole population on the device are equal.
    The constants are the least biased of their kind that exhaustive search found:
    https://github.com/skeeto/hash-prospector (``[16 21f0aaad 15 d35a2d97 15]``, bias 0.107).

    >>> mix(1), int(mix(torch.tensor(1, dtype=torch.int32)))
    (114555507, 114555507)
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = _wrap(x * 0x21F0AAAD)
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = _wrap(x * (0xD35A2D97 - 2**32))
    return x ^ ((x >> 15) & 0x1FFFF)


def _signed(x: int) -> int:
    """What int32 arithmetic makes of Python's unbounded integers."""
    return (x + 2**31) % 2**32 - 2**31


def _wrap(x: int | Tensor) -> int | Tensor:
    return x if isinstance(x, Tensor) else _signed(x)


def run_key(seed: int) -> tuple[int, int]:
    """The two signed 32-bit words from which all dropout masks of a run descend."""
    value = derive(seed, "dropout")
    return _signed(value), _signed(value >> 31)


def seed_torch(value: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``.

    ``torch.manual_seed`` would do, but it visits every backend: 60 µs instead of 3.
    """
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)


def seed_all(value: int, device: torch.device) -> None:
    """Seed torch's, NumPy's and Python's global generators (datasets and factories use them)."""
    seed_torch(value, device)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Whatever happens inside, the user's global generators are afterwards what they were.

    >>> before = torch.initial_seed(), torch.get_rng_state()
    >>> with isolated(torch.device("cpu")):
    ...     seed_all(3, torch.device("cpu"))
    >>> bool((torch.get_rng_state() == before[1]).all()), torch.initial_seed() == before[0]
    (True, True)
    """
    python: Any = random.getstate()
    numpy: Any = np.random.get_state()
    cpu = torch.default_generator.get_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
