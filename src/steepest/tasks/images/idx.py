"""MNIST's relatives (Fashion-MNIST, KMNIST, EMNIST …): pairs of IDX files, packed or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steepest.errors import DataError, InputError
from steepest.tasks.idx import parse
from steepest.tasks.images.found import Found

__all__ = ["read_idx"]


def read_idx(folder: Path) -> Found | None:
    """Images and labels from a folder with IDX files; None if it has none.

    The files are told by their names: ``*train*images*`` with ``*train*labels*``, and ``*t10k*`` or
    ``*test*`` likewise. Without the latter the test data are split off.

    Raises:
        DataError: If a file is damaged, or images and labels do not fit together.
        InputError: If it is not plain which files belong together.
    """
    files = [
        p
        for p in sorted(folder.iterdir())
        if p.is_file() and ("ubyte" in p.name or ".idx" in p.name) and p.suffix != ".md5"
    ]
    if not files:
        return None
    parts = [_pair(folder, files, ("train",))]
    if any(_is(p, ("t10k", "test")) for p in files):
        parts.append(_pair(folder, files, ("t10k", "test")))
    if len({images.shape[1:] for images, _ in parts}) > 1:
        shapes = " and ".join(str(images.shape[1:]) for images, _ in parts)
        raise DataError(f"{folder}: training and test images differ in shape: {shapes}")
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    values = np.unique(labels)
    numbers = np.searchsorted(values, labels)
    test = len(parts[1][1]) if len(parts) > 1 else 0
    return Found(
        images[:, None], numbers.tolist(), tuple(map(str, values.tolist())), test, "IDX files"
    )


def _is(path: Path, words: tuple[str, ...]) -> bool:
    return any(word in path.name.lower() for word in words)


def _pair(
    folder: Path, files: list[Path], words: tuple[str, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    of = " or ".join(f"'{word}'" for word in words)
    chosen = []
    for what in ("images", "labels"):
        found = [p for p in files if _is(p, words) and what in p.name.lower()]
        stems = {p.name.removesuffix(".gz") for p in found}
        if len(stems) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise InputError(
                f"{folder}: expected one IDX file of {what} with {of} in its name, found {names}; "
                "put the files of one data set into a folder of their own"
            )
        chosen.append(found[0])
    images, labels = (parse(_unpacked(path), name=path.name) for path in chosen)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{chosen[0].name} holds {images.shape} and {chosen[1].name} {labels.shape}; expected "
            "(images, height, width) and one label for each"
        )
    return images, labels


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error
