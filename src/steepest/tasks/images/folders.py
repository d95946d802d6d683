"""A folder per class: ``flowers/rose/1.jpg``; or with splits, ``flowers/train/rose/1.jpg``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.errors import DataError, InputError
from steepest.extras import need
from steepest.tasks.images.found import Found

__all__ = ["read_folders"]

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_SIZE = 64  # of images that differ in size and for which none was asked
_GREY = ("1", "L", "LA", "I;16", "I", "F")


def read_folders(folder: Path, *, size: int | None, limit_mb: int) -> Found | None:
    """Images by class; None if the folder has no subfolder with images.

    Args:
        folder: Of the data set.
        size: Height and width to which all are resized; None: as they are if they are equal.
        limit_mb: Most megabytes of pixels that are read.

    Raises:
        DataError: If a file cannot be read as an image.
        InputError: If the classes of training and test folders differ, or the images are too many.
    """
    train, test = _sides(folder)
    if not train:
        return None
    pillow = need("PIL.Image", extra="images", what=f"reading the images in {folder}")
    classes = tuple(sorted(train))
    strange = sorted(set(test) - set(classes))
    if strange:
        raise InputError(
            f"{folder}: the class '{strange[0]}' is in the test folder only; classes to train on: "
            f"{', '.join(classes[:12])}"
        )
    paths = [
        (path, k)
        for side in (train, test)
        for k, c in enumerate(classes)
        for path in side.get(c, [])
    ]
    looks = [_look(pillow, path) for path, _ in paths]
    shapes = Counter(shape for shape, _ in looks)
    grey = all(is_grey for _, is_grey in looks)
    notes: tuple[str, ...] = ()
    if size is not None:
        height, width = size, size
    elif len(shapes) == 1:
        height, width = next(iter(shapes))
    else:
        height = width = _SIZE
        (h, w), _ = shapes.most_common(1)[0]
        notes = (
            f"{folder.name}: images are of {len(shapes)} sizes, most of {h} x {w}; all are resized "
            f"to {_SIZE} x {_SIZE} (size)",
        )
    megabytes = len(paths) * height * width * (1 if grey else 3) / 1e6
    if megabytes > limit_mb:
        raise InputError(
            f"{folder} holds {len(paths):,} images, {megabytes:,.0f} MB at {height} x {width}, and "
            f"limit_mb is {limit_mb}; say a smaller size, or limit_mb={int(megabytes) + 1}"
        )
    images = np.empty((len(paths), 1 if grey else 3, height, width), np.uint8)
    for place, (path, _) in enumerate(paths):
        images[place] = _pixels(pillow, path, (height, width), grey=grey)
    count = sum(len(files) for files in test.values())
    return Found(images, [k for _, k in paths], classes, count, "images in folders", notes)


Side = dict[str, list[Path]]


def _sides(folder: Path) -> tuple[Side, Side]:
    """Files by class, to train on and to test on."""
    inside = {p.name.lower(): p for p in folder.iterdir() if p.is_dir()}
    train = inside.get("train") or inside.get("training")
    if train is None:
        return _classes(folder), {}
    test = inside.get("test") or inside.get("testing") or inside.get("val") or inside.get("valid")
    return _classes(train), _classes(test) if test else {}


def _classes(folder: Path) -> Side:
    found = {}
    for inside in sorted(folder.iterdir()):
        if inside.is_dir():
            files = sorted(p for p in inside.rglob("*") if p.suffix.lower() in _ENDINGS)
            if files:
                found[inside.name] = files
    return found


def _look(pillow: Any, path: Path) -> tuple[tuple[int, int], bool]:
    """Height and width, and whether it is grey; from the file's head alone."""
    with _opened(pillow, path) as image:
        return (image.height, image.width), image.mode in _GREY


def _opened(pillow: Any, path: Path) -> Any:
    try:
        return pillow.open(path)
    except (OSError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _pixels(pillow: Any, path: Path, size: tuple[int, int], *, grey: bool) -> NDArray[np.uint8]:
    with _opened(pillow, path) as image:
        try:
            drawn = image.convert("L" if grey else "RGB")
            if (drawn.height, drawn.width) != size:
                drawn = drawn.resize(size[::-1], pillow.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from error
        pixels = np.asarray(drawn, dtype=np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
