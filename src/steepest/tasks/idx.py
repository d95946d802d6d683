"""The IDX file format of MNIST, read once per process and checked against known contents."""

from __future__ import annotations

import gzip
import hashlib
import math
import threading
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steepest.errors import DataError

__all__ = ["parse", "read"]

_READ: dict[tuple[Path, str], NDArray[np.uint8]] = {}
_LOCK = threading.Lock()


def read(path: Path, *, md5: str) -> NDArray[np.uint8]:
    """The array in a gzip-compressed IDX file of bytes; read-only, shared by all callers.

    Args:
        path: The file.
        md5: Of the unpacked file, as its publisher states it.

    Raises:
        DataError: If the file is missing, cannot be unpacked, or holds something else.
    """
    key = (path, md5)
    with _LOCK:
        if key not in _READ:
            _READ[key] = parse(_unpack(path, md5), name=path.name)
        return _READ[key]


def _unpack(path: Path, md5: str) -> bytes:
    advice = "install steepest again"
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"the data file {path} is missing; {advice}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the data file {path} is damaged ({error}); {advice}") from error
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"the data file {path} is damaged: the MD5 of its contents is {found}, expected "
            f"{md5}; {advice}"
        )
    return data


def parse(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes: 0, 0, 8, number of dimensions, the sizes, the values.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]), name="three.idx").tolist()
    [5, 6, 7]
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(
            f"{name} is not an IDX file of bytes: it begins with {data[:4].hex(' ')}, expected "
            "00 00 08 and the number of dimensions"
        )
    rank = data[3]
    head = 4 + 4 * rank
    if len(data) < head:
        raise DataError(f"{name} announces {rank} sizes but ends before they do")
    shape = tuple(np.frombuffer(data, dtype=">u4", count=rank, offset=4).tolist())
    if len(data) != head + math.prod(shape):
        raise DataError(
            f"{name} announces {shape}, which is {math.prod(shape)} bytes, but holds "
            f"{len(data) - head}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)
