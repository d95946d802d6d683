"""The task ``images``: from files of images to something that optimizers can be raced on."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from steepest.errors import DataError, InputError
from steepest.numbers import amount
from steepest.tasks.images.cifar import read_cifar
from steepest.tasks.images.folders import read_folders
from steepest.tasks.images.found import Found
from steepest.tasks.images.idx import read_idx
from steepest.tasks.images.network import small_convnet
from steepest.tasks.scores import ClassWeights, judged, name_part, sizes
from steepest.tasks.splitting import split
from steepest.train.decay import vectors
from steepest.train.task import Task

__all__ = ["images"]


def images(
    *,
    data: Path,
    size: int | None = None,
    flip: bool = False,
    crop: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    class_weights: ClassWeights = "auto",
    decay_all: bool = False,
    limit_mb: int = 2000,
    train_on: Literal["train", "all"] = "train",
) -> Task:
    """Images of classes, from a folder per class, IDX or CIFAR files; a small ConvNet.

    Args:
        data: A folder: one subfolder per class (or train/ and test/ with them), the IDX files of a
            relative of MNIST, or CIFAR's batches.
        size: Height and width to which images in folders are resized; without it as they are if
            they are equal, else 64.
        flip: Mirror half of the images in training.
        crop: Shift images in training by up to so many pixels.
        val: Share of the data that is held out for choices.
        test: Share of the data that is held out for the verdict, where no test data are published.
        split_seed: Another one splits otherwise.
        class_weights: Of the loss: balanced (every class counts the same), equal (every example
            does), or auto: balanced from a ratio of 2 between the largest and the smallest class.
        decay_all: Decay biases and gains of norms too, which no arm does otherwise.
        limit_mb: Most pixels that are read, in megabytes.
        train_on: ``"all"`` trains on the validation data too.
    """
    found = _read(data, size=size, limit_mb=limit_mb)
    if len(found.classes) < 2:
        raise DataError(f"{data} holds one class only, '{found.classes[0]}'; nothing to tell apart")
    keys = [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in found.images]
    published = len(keys) - found.test
    parts = split(
        keys[:published],
        found.labels[:published],
        names=found.classes,
        val=val,
        test=0.0 if found.test else test,
        seed=split_seed,
    )
    test_rows = parts.test or list(range(published, len(keys)))
    notes = [*found.notes]
    if parts.repeated:
        notes.append(
            f"duplicates: {amount(parts.repeated, 'image')} that stand there already; equal images "
            "are kept in one split"
        )
    seen = set(keys[:published])
    leaked = sum(key in seen for key in keys[published:])
    if leaked:
        notes.append(
            f"{amount(leaked, 'published test image')} stand among the training images too, as "
            "published"
        )
    counts = Counter(found.labels[i] for i in parts.train)
    loss, metrics, weighted = judged(counts, found.classes, class_weights)
    first = sorted(parts.train + parts.val) if train_on == "all" else parts.train
    x, y = torch.from_numpy(found.images), torch.tensor(found.labels)
    mean, std = _moments(x[parts.train])
    side = min(x.shape[-2:])
    make = functools.partial(
        small_convnet,
        channels=x.shape[1],
        side=side,
        classes=len(found.classes),
        mean=mean,
        std=std,
        flip=flip,
        crop=crop,
    )
    shape = f"{x.shape[-2]} x {x.shape[-1]}, {'grey' if x.shape[1] == 1 else 'in colour'}"
    return Task(
        name=f"images-{name_part(data.name)}",
        model=make,
        loss=loss,
        train=(x[first], y[first]),
        val=None if train_on == "all" else (x[parts.val], y[parts.val]),
        test=(x[test_rows], y[test_rows]),
        metrics=metrics,
        batch_size=64,
        eval_batch_size=500,
        describe=f"{len(keys):,} {found.kind} of {data.name} ({shape}), "
        f"{sizes(Counter(found.labels), found.classes)}; {len(first):,} to train, "
        f"{len(test_rows):,} to test; a small ConvNet",
        no_decay=None if decay_all else vectors,
        notes=(*notes, *weighted),
    )


def _read(data: Path, *, size: int | None, limit_mb: int) -> Found:
    if not data.is_dir():
        what = "is a file" if data.exists() else "does not exist"
        raise InputError(f"{data} {what}; data is the folder that holds the images")
    if size is not None and size < 4:
        raise InputError(f"size must be at least 4 pixels, got {size}")
    found = read_cifar(data) or read_idx(data)
    if found is None:
        found = read_folders(data, size=size, limit_mb=limit_mb)
    elif size is not None:
        raise InputError(
            f"size={size} is for folders of images; {found.kind} are taken as they are"
        )
    if found is None:
        inside = ", ".join(sorted(p.name for p in data.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{data} holds no images that can be read: neither a folder per class, nor IDX files "
            f"(train-images-idx3-ubyte.gz), nor CIFAR's (data_batch_1). There: {inside}"
        )
    return found


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, exact: by how often each byte occurs."""
    means, stds = [], []
    values = torch.arange(256, dtype=torch.float64)
    for channel in range(x.shape[1]):
        counts = torch.bincount(x[:, channel].flatten(), minlength=256).double()
        mean = (counts * values).sum() / counts.sum()
        means.append(mean)
        stds.append((counts * (values - mean) ** 2).sum().div(counts.sum()).sqrt())
    return torch.stack(means).float(), torch.stack(stds).float().clamp_min(1.0)
