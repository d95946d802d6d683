"""A convolutional network of a size that fits the images."""

from __future__ import annotations

import math

from torch import Tensor, nn

from steepest.tasks.images.augment import Augment, Standardise

__all__ = ["small_convnet"]

_WIDTHS = (32, 64, 128, 128)
_LAST = 8  # pixels on a side that are left for the mean


class _Stage(nn.Sequential):
    """Convolution, batch norm, rectifier, and a pooling that halves the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )


def small_convnet(
    *,
    channels: int,
    side: int,
    classes: int,
    mean: Tensor,
    std: Tensor,
    flip: bool,
    crop: int,
) -> nn.Sequential:
    """Augmentation, standardised pixels, one to four stages, the mean over the rest, one layer.

    Args:
        channels: 1 or 3.
        side: The shorter side of the images; it decides how often they are halved.
        classes: How many.
        mean: Of each channel over the training data, in bytes.
        std: Likewise.
        flip: See `Augment`.
        crop: See `Augment`.

    >>> import torch
    >>> one = torch.ones(1)
    >>> net = small_convnet(channels=1, side=28, classes=10, mean=one, std=one, flip=False, crop=0)
    >>> net(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in net.parameters())
    19562
    """
    stages = max(1, min(len(_WIDTHS), math.ceil(math.log2(max(side, 2) / _LAST))))
    layers: list[nn.Module] = [Standardise(mean, std)]
    if flip or crop:
        layers.insert(0, Augment(flip=flip, crop=crop))
    inputs = channels
    for width in _WIDTHS[:stages]:
        layers.append(_Stage(inputs, width))
        inputs = width
    return nn.Sequential(*layers, _Mean(), nn.Dropout(0.1), nn.Linear(inputs, classes))


class _Mean(nn.Module):
    """The mean over height and width."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``[B, C]``."""
        return x_BCHW.mean((-2, -1))
