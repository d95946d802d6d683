"""Training, validation and test data from one heap: stratified, fixed, and without leaks.

What belongs together (equal texts, equal images) goes into one split, so that nothing that is
tested on was trained on. Who goes where is a function of the contents and of the seed alone: not
of the order of the rows, nor of a library's random generator.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from steepest.errors import DataError, InputError

__all__ = ["Splits", "split"]


@dataclass(frozen=True)
class Splits:
    """Numbers of the examples, in their own order.

    Attributes:
        train: To train on.
        val: To choose by.
        test: To decide by.
        repeated: How many examples have the same contents as an earlier one.
        contradicting: How many different contents stand there with different labels.
    """

    train: list[int]
    val: list[int]
    test: list[int]
    repeated: int
    contradicting: int


def split(
    keys: Sequence[Hashable],
    labels: Sequence[int],
    *,
    names: Sequence[str],
    val: float,
    test: float,
    seed: int,
) -> Splits:
    """Split examples so that every class has its share in each part.

    Args:
        keys: What an example holds; equal keys stay together.
        labels: Number of its class.
        names: Of the classes, for messages.
        val: Share of the validation data, between 0 and 1.
        test: Share of the test data; 0 where they are published apart.
        seed: Another one splits otherwise.

    Raises:
        InputError: If the shares leave nothing to train on.
        DataError: If a class has fewer than three different examples.

    >>> parts = split("abcdefghij", [0] * 5 + [1] * 5, names="xy", val=0.2, test=0.2, seed=0)
    >>> len(parts.train), len(parts.val), len(parts.test)
    (6, 2, 2)
    """
    for name, share in (("val", val), ("test", test)):
        if not 0 < share < 1 and (name, share) != ("test", 0):
            raise InputError(f"{name} must be a share between 0 and 1, got {share:g}")
    if val + test >= 0.95:
        raise InputError(f"val={val:g} and test={test:g} leave too little to train on")
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    by_class: dict[int, list[tuple[bytes, list[int]]]] = defaultdict(list)
    contradicting = 0
    for key, members in groups.items():
        counts = Counter(labels[i] for i in members)
        contradicting += len(counts) > 1
        most = max(counts, key=lambda k: (counts[k], -k))
        digest = hashlib.blake2b(f"{seed}\0{key!r}".encode(), digest_size=16).digest()
        by_class[most].append((digest, members))
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for number in sorted(by_class):
        heaps = by_class[number]
        if len(heaps) < 3:
            raise DataError(
                f"class '{names[number]}' has {len(heaps)} different examples; a class needs 3, "
                "one each to train, to choose and to test"
            )
        _deal(sorted(heaps), parts, val=val, test=test)
    return Splits(
        train=sorted(parts["train"]),
        val=sorted(parts["val"]),
        test=sorted(parts["test"]),
        repeated=len(keys) - len(groups),
        contradicting=contradicting,
    )


def _deal(
    heaps: list[tuple[bytes, list[int]]], parts: dict[str, list[int]], *, val: float, test: float
) -> None:
    """One class: the test data first, then the validation data, the rest to train on."""
    total = sum(len(members) for _, members in heaps)
    at = 0
    for name, share, least_left in (("test", test, 2), ("val", val, 1)):
        wanted, got = round(share * total), 0
        if share == 0:
            continue
        while at < len(heaps) - least_left and (got == 0 or got < wanted):
            parts[name] += heaps[at][1]
            got += len(heaps[at][1])
            at += 1
    for _, members in heaps[at:]:
        parts["train"] += members
