"""Dropout whose masks are a function of (seed, step, element), not of a generator.

    mask   hash(i, k) >= p             i: number of the decision, k: key of the step

Torch's dropout advances a global generator; `steepest.train.keyed` says why ours does not.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from steepest.errors import TaskError
from steepest.train.keyed import Counter, Keyed
from steepest.train.recurrent import key_recurrent

__all__ = ["KeyedDropout", "key_dropout"]

_SELU_FLOOR = -1.7580993408473766  # -scale * alpha of SELU, https://arxiv.org/abs/1706.02515
_KINDS: dict[type[nn.Module], str] = {
    nn.Dropout: "element",
    nn.Dropout1d: "channel1d",
    nn.Dropout2d: "channel2d",
    nn.Dropout3d: "channel3d",
    nn.AlphaDropout: "alpha",
    nn.FeatureAlphaDropout: "feature_alpha",
}


class KeyedDropout(Keyed):
    """What stands in for a dropout layer of torch, with the same meaning in train and eval mode.

    Attributes:
        p: Probability of dropping.
        kind: Which of torch's six dropout layers it stands in for.
    """

    def __init__(
        self, p: float, *, kind: str, key: Tensor, counter: Counter, inplace: bool = False
    ) -> None:
        super().__init__()
        self.p = float(p)
        self.kind = kind
        self.inplace = inplace
        self.share(key, counter)

    def extra_repr(self) -> str:
        """As torch prints it, and which kind it is."""
        return f"p={self.p}, kind={self.kind}"

    def forward(self, x: Tensor) -> Tensor:
        """Drop in train mode, pass on in eval mode."""
        if not self.training or self.p == 0.0:
            return x
        shape = self._mask_shape(x)
        keep = self.keep(self.p, shape, x.device)
        if "alpha" in self.kind:
            return self._alpha(x, keep)
        noise = keep.to(x.dtype)
        if self.p < 1.0:
            noise = noise.mul_(1.0 / (1.0 - self.p))
        return x.mul_(noise) if self.inplace else x * noise

    def _mask_shape(self, x: Tensor) -> list[int]:
        """One decision per element, or one per channel with the rest of the shape ones."""
        shape = list(x.shape)
        if self.kind in ("element", "alpha"):
            return shape
        spatial = {"channel1d": 1, "channel2d": 2, "channel3d": 3}.get(self.kind, len(shape) - 2)
        if self.kind == "channel2d" and len(shape) == 3:
            spatial = 1  # torch takes a 3-d input of Dropout2d for [batch, channel, length]
        lead = len(shape) - spatial
        if lead < 1 or lead > 2:
            raise TaskError(
                f"dropout over channels ({self.kind}) expects [batch, channel, ...], got an "
                f"input of shape {tuple(shape)}"
            )
        return shape[:lead] + [1] * spatial

    def _alpha(self, x: Tensor, keep: Tensor) -> Tensor:
        """Keep mean and variance of a self-normalising network (arXiv:1706.02515, section 3)."""
        if self.p == 1.0:
            return x.mul_(0.0) if self.inplace else x * 0.0
        a = 1.0 / math.sqrt((1.0 - self.p) * (1.0 + self.p * _SELU_FLOOR**2))
        noise = keep.to(x.dtype)
        shift = (1.0 - noise) * (_SELU_FLOOR * a) + (-a * _SELU_FLOOR * self.p)
        noise = noise * a
        return x.mul_(noise).add_(shift) if self.inplace else x * noise + shift


class _Restart:
    """The hook before a forward pass; an object, so that a deep copy of the model has its own."""

    def __init__(self, counter: Counter, layers: list[Keyed]) -> None:
        self.counter = counter
        self.layers = layers

    def __call__(self, module: nn.Module, args: object) -> None:
        self.counter.taken = 0
        for layer in self.layers:
            layer.starts.clear()


def key_dropout(model: nn.Module) -> Tensor | None:
    """Replace torch's dropout layers inside ``model`` by keyed ones, in place.

    Recurrent modules that drop between their layers stay where they are and become keyed. Layers
    that are `Keyed` already get the model's key too.

    Only exact classes are replaced: a subclass may mean something else, and draws from the
    global generator, which engines seed per step. The names of parameters and the keys of
    ``state_dict`` stay as they are. Call it after moving the model to its device.

    Returns:
        The key, an int32 tensor ``[2]`` that all such layers share (write to it before each
        step); None if nothing drops.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    >>> key = key_dropout(model)
    >>> key.shape, list(model.state_dict())
    (torch.Size([2]), ['0.weight', '0.bias'])
    """
    if type(model) in _KINDS:
        raise TaskError("the model is a single dropout layer: there is nothing to train")
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    key = torch.zeros(2, dtype=torch.int32, device=device)
    counter = Counter()
    replaced: dict[int, KeyedDropout] = {}
    for parent in list(model.modules()):
        key_recurrent(parent)
        for name, child in parent._modules.items():  # named_children() skips repetitions
            kind = None if child is None else _KINDS.get(type(child))
            if child is None or kind is None:
                continue
            if id(child) not in replaced:
                old = cast("nn.Dropout", child)
                new = KeyedDropout(old.p, kind=kind, key=key, counter=counter, inplace=old.inplace)
                replaced[id(child)] = new.train(child.training)
            parent._modules[name] = replaced[id(child)]
    drawing: list[Keyed] = [m for m in model.modules() if isinstance(m, Keyed)]
    if not drawing:
        return None
    for layer in drawing:
        layer.share(key, counter)
    model.register_forward_pre_hook(_Restart(counter, drawing))
    return key
