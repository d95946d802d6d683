"""Dropout whose masks are a function of (seed, step, element), not of a generator.

    k      key of the step             int32 [2], one buffer shared by all layers of a model
    i      number of the decision      int32, counted through all layers of one forward pass
    mask   hash(i, k) >= p

torch's dropout advances a global generator, so the mask of one run depends on who drew before
it. Here the key is a buffer of the model: an engine writes the key of (seed, step) into it
before the step, and a population stacks one key per member and maps over it. Counting goes by
shapes only, and inside `vmap` shapes are those of one member: member and solo run count alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from steepest.errors import TaskError
from steepest.train.randomness import mix

__all__ = ["KEY", "Keyed", "KeyedDropout", "key_dropout", "step_words"]

KEY = "steepest_key"
"""The buffer's name: not in any ``state_dict``, and left out of hashes and checkpoints."""

_LAP = 2**32 - 1
_SELU_FLOOR = -1.7580993408473766  # -scale * alpha of SELU, https://arxiv.org/abs/1706.02515
_KINDS: dict[type[nn.Module], str] = {
    nn.Dropout: "element",
    nn.Dropout1d: "channel1d",
    nn.Dropout2d: "channel2d",
    nn.Dropout3d: "channel3d",
    nn.AlphaDropout: "alpha",
    nn.FeatureAlphaDropout: "feature_alpha",
}


def step_words(key: Sequence[int] | Tensor, step: int) -> Tensor:
    """The key of one step, from the run's key (see `steepest.train.randomness.run_key`).

    Args:
        key: Two integers, or an int32 tensor ``[M, 2]`` with one key per member.
        step: Number of the step, from 0.

    Returns:
        An int32 tensor ``[2]`` or ``[M, 2]``.
    """
    first, second = mix(step & 0x7FFFFFFF), mix(~(step & 0x7FFFFFFF))
    if isinstance(key, Tensor):
        return torch.stack((mix(key[..., 0] ^ first), mix(key[..., 1] ^ second)), dim=-1)
    return torch.tensor((mix(key[0] ^ first), mix(key[1] ^ second)), dtype=torch.int32)


class Counter:
    """How many decisions the layers of one model took in this forward pass.

    A pass starts at 0 again, so that a closure that runs the model twice in one step meets the
    same masks twice.
    """

    def __init__(self) -> None:
        self.taken = 0

    def take(self, n: int) -> int:
        """The number of the first of ``n`` fresh decisions, all in one lap of 2**32."""
        if (self.taken & _LAP) + n > _LAP:
            self.taken = (self.taken | _LAP) + 1
        start = self.taken
        self.taken += n
        return start


class Keyed(nn.Module):
    """A layer whose chance is a function of (seed, step, element): base of dropout, augmentation.

    Attributes:
        starts: Where in the count its calls of this forward pass began.
    """

    steepest_key: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter()
        self.starts: list[int] = []
        self.register_buffer(KEY, torch.zeros(2, dtype=torch.int32), persistent=False)

    def share(self, key: Tensor, counter: Counter) -> None:
        """Draw by the key and in the count of a whole model."""
        self.counter = counter
        self.steepest_key = key

    def draw(self, n: int, device: torch.device) -> Tensor:
        """So many fresh int32 numbers, uniform in their high bits."""
        if n >= 2**31:
            raise TaskError(f"{n} random numbers at once; steepest counts up to 2**31 - 1")
        start = self._start(n)
        lap, start = start >> 32, (start & _LAP) - 2**31
        first, second = self.steepest_key.unbind(0)
        # Three multiplications with the second key word in between; who compares reads the
        # high bits, so the last xor-shift of `mix` is not needed. In place once the key is in,
        # because every pass over the elements costs a read and a write.
        x = torch.arange(start, start + n, dtype=torch.int32, device=device) ^ first
        x.mul_(0x2C1B3C6D)
        x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).add_(second, alpha=2 * lap + 1)
        x.mul_(0x297A2D39)
        return x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0x21F0AAAD)

    def _start(self, n: int) -> int:
        """Where this call's decisions begin; a recomputation in the backward pass repeats them."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            if len(self.starts) != 1:
                raise TaskError(
                    f"a layer that draws ({self}) runs {len(self.starts)} times per forward pass "
                    "under activation checkpointing, so what to recompute is ambiguous; use one "
                    "module per call"
                )
            return self.starts[0]
        self.starts.append(self.counter.take(n))
        return self.starts[-1]


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
        if self.p == 1.0:
            keep = torch.zeros(shape, dtype=torch.bool, device=x.device)
        else:
            keep = self._keep(shape, x.device)
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

    def _keep(self, shape: list[int], device: torch.device) -> Tensor:
        threshold = min(round(self.p * 2**32), 2**32 - 1) - 2**31
        return (self.draw(math.prod(shape), device) >= threshold).view(shape)

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

    Layers that are `Keyed` already get the model's key too.

    Only exact classes are replaced: a subclass may mean something else, and draws from the
    global generator, which engines seed per step. The names of parameters and the keys of
    ``state_dict`` stay as they are. Call it after moving the model to its device.

    Returns:
        The key, an int32 tensor ``[2]`` that all replaced layers share (write to it before each
        step); None if there was no dropout layer.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    >>> key = key_dropout(model)
    >>> key.copy_(step_words((1, 2), 0)).shape, list(model.state_dict())
    (torch.Size([2]), ['0.weight', '0.bias'])
    """
    if type(model) in _KINDS:
        raise TaskError("the model is a single dropout layer: there is nothing to train")
    device = next((t.device for t in model.parameters()), torch.device("cpu"))
    key = torch.zeros(2, dtype=torch.int32, device=device)
    counter = Counter()
    replaced: dict[int, KeyedDropout] = {}
    for parent in list(model.modules()):
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
