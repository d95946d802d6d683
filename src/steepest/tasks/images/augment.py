"""Flips and shifted crops, drawn on the device as a function of (seed, step, example).

    B, C, H, W    images, channels, height, width

It is the model's first layer, at work in train mode only, and draws by the same counter as dropout:
so a member of a population sees the very images that its run alone would see.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.train.keyed import Keyed

__all__ = ["Augment", "Standardise"]

_MOST = 60  # pixels; so that a product stays within 31 bits


class Augment(Keyed):
    """Mirror half of the images, and shift each by up to some pixels; what moves in is black.

    Args:
        flip: Mirror left and right, with probability 1/2.
        crop: Most pixels of a shift in each direction; equal to padding by so many and cropping.

    >>> Augment(flip=False, crop=1)(torch.ones(5, 1, 3, 3)).shape
    torch.Size([5, 1, 3, 3])
    """

    def __init__(self, *, flip: bool, crop: int) -> None:
        super().__init__()
        if not 0 <= crop <= _MOST:
            raise InputError(f"crop must be 0 to {_MOST} pixels, got {crop}")
        self.flip = flip
        self.crop = crop

    def extra_repr(self) -> str:
        """Its settings."""
        return f"flip={self.flip}, crop={self.crop}"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Augment in train mode, pass on in eval mode."""
        if not self.training:
            return x_BCHW
        B, _, H, W = x_BCHW.shape
        chance = self.draw(3 * B, x_BCHW.device).view(3, B)
        if self.flip:
            mirrored = (chance[0] < 0)[:, None, None, None]
            x_BCHW = torch.where(mirrored, x_BCHW.flip(-1), x_BCHW)
        if self.crop:
            x_BCHW = _shifted(x_BCHW, self._shift(chance[1]), H, dim=-2)
            x_BCHW = _shifted(x_BCHW, self._shift(chance[2]), W, dim=-1)
        return x_BCHW

    def _shift(self, chance_B: Tensor) -> Tensor:
        """Whole numbers from -crop to crop, equally likely (but for 1 in 2^24)."""
        high = (chance_B >> 8).bitwise_and(0xFFFFFF)
        return (high * (2 * self.crop + 1) >> 24) - self.crop


def _shifted(x_BCHW: Tensor, by_B: Tensor, size: int, *, dim: int) -> Tensor:
    places = torch.arange(size, device=x_BCHW.device) + by_B[:, None]
    shape = (-1, 1, size, 1) if dim == -2 else (-1, 1, 1, size)
    inside = ((places >= 0) & (places < size)).view(shape)
    index = places.clamp(0, size - 1).view(shape).expand(x_BCHW.shape)
    return x_BCHW.gather(dim, index) * inside


class Standardise(nn.Module):
    """Bytes to numbers with mean 0 and standard deviation 1 per channel over the training data.

    Args:
        mean: Of each channel, in bytes.
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1).clone())
        self.register_buffer("std", std.view(-1, 1, 1).clone())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Numbers around zero."""
        return (x_BCHW.to(self.mean.dtype) - self.mean) / self.std
