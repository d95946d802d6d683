"""CIFAR-10 and CIFAR-100, as their authors publish them: pickles for Python, or binary records.

https://www.cs.toronto.edu/~kriz/cifar.html describes both. A pickle is a program. These are read by
an unpickler that knows arrays of numbers and nothing else, so whatever else is in a file is refused
before it runs.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import DataError
from steepest.tasks.images.found import Found

__all__ = ["read_cifar", "unpickled"]

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
# What an array of numbers is made of: in files of Python 2, and of Python 3 with old and new NumPy.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _Arrays(pickle.Unpickler):
    """An unpickler for numbers, texts, lists, dicts and arrays of numbers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        return super().find_class(module, name)


def unpickled(path: Path) -> dict[bytes, Any]:
    """The dictionary in a pickle that holds nothing but data.

    Raises:
        DataError: If it is no pickle, is cut short, or wants to make anything else.
    """
    try:
        found = _Arrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, ImportError, IndexError,
            AttributeError, KeyError) as error:  # fmt: skip
        raise DataError(
            f"{path} cannot be read as a CIFAR file: {str(error) or type(error).__name__}; only "
            "numbers, texts and arrays are read from a pickle"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected the dict of a CIFAR file")
    return {k.encode() if isinstance(k, str) else k: v for k, v in found.items()}


def read_cifar(folder: Path) -> Found | None:
    """CIFAR-10 or CIFAR-100 from a folder; None if it holds neither.

    Raises:
        DataError: If a file is missing or damaged.
    """
    for ending in ("", ".bin"):
        batches = [folder / f"data_batch_{i}{ending}" for i in range(1, 6)]
        if any(path.is_file() for path in batches):
            return _read(folder, batches, folder / f"test_batch{ending}", ending, fine=False)
        if (folder / f"train{ending}").is_file() and (folder / f"test{ending}").is_file():
            return _read(
                folder, [folder / f"train{ending}"], folder / f"test{ending}", ending, fine=True
            )
    return None


def _read(folder: Path, train: list[Path], test: Path, ending: str, *, fine: bool) -> Found:
    missing = [path.name for path in (*train, test) if not path.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)} of CIFAR; unpack the archive again")
    read = _binary if ending else _pickled
    parts = [read(path, fine=fine) for path in (*train, test)]
    images = np.concatenate([part[0] for part in parts])
    labels = [label for part in parts for label in part[1]]
    classes = _names(folder, ending, fine=fine, count=max(labels) + 1)
    name = "CIFAR-100" if fine else "CIFAR-10"
    return Found(images, labels, classes, len(parts[-1][1]), f"{name} files")


Part = tuple[NDArray[np.uint8], list[int]]


def _pickled(path: Path, *, fine: bool) -> Part:
    held = unpickled(path)
    key = b"fine_labels" if fine else b"labels"
    lacking = [k.decode() for k in (b"data", key) if k not in held]
    if lacking:
        raise DataError(f"{path} has no '{lacking[0]}', as a CIFAR file has")
    data, labels = held[b"data"], held[key]
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.shape != (len(labels), _PIXELS)
    ):
        raise DataError(
            f"{path}: its data must be bytes of shape ({len(labels)}, {_PIXELS}), got "
            f"{getattr(data, 'dtype', type(data).__name__)} {getattr(data, 'shape', '')}"
        )
    return data.reshape(-1, 3, _SIDE, _SIDE), [int(label) for label in labels]


def _binary(path: Path, *, fine: bool) -> Part:
    head = 2 if fine else 1  # CIFAR-100 has the coarse label before the fine one
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(data) or len(data) % (head + _PIXELS):
        raise DataError(
            f"{path} holds {len(data):,} bytes, no multiple of the {head + _PIXELS:,} of a record; "
            "it is cut short, or no CIFAR file"
        )
    records = data.reshape(-1, head + _PIXELS)
    return records[:, head:].reshape(-1, 3, _SIDE, _SIDE), records[:, head - 1].tolist()


def _names(folder: Path, ending: str, *, fine: bool, count: int) -> tuple[str, ...]:
    """The classes' names where the folder has them; else their numbers."""
    stem = "fine_label_names" if fine else ("batches.meta" if ending else "label_names")
    names: list[str] = []
    if ending:
        path = folder / f"{stem}.txt"
        if path.is_file():
            names = path.read_text(encoding="utf-8").split()
    else:
        path = folder / ("meta" if fine else "batches.meta")
        if path.is_file():
            found = unpickled(path).get(stem.encode(), [])
            names = [n.decode() if isinstance(n, bytes) else str(n) for n in found]
    return tuple(names) if len(names) >= count else tuple(map(str, range(count)))
