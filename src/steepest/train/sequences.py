"""Sequences of different lengths: batches of similar ones, padded no further than they need.

    N      sequences
    L      tokens of the longest
    B, T   sequences and tokens of a batch

The sequences, sorted by length, are cut into shelves of some batches each. An epoch takes every
shelf's sequences in an order drawn for (seed, epoch), batch by batch, and the batches of all
shelves in an order drawn for the epoch. A batch is padded up to its shelf's longest sequence. So
what a batch holds is a function of (seed, step), the same for every arm, and its *shape* one of
the step alone: members of a population with different seeds have equal shapes, and a dropout
mask, which counts elements, is the one that the run alone would draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from steepest.errors import TaskError
from steepest.train.data import Batch, TensorSource
from steepest.train.randomness import batch_order, derive

__all__ = ["SequenceSource", "Sequences"]

_SHELVES = 16  # at most
_BATCHES = 4  # of a shelf, at least: who is with whom in a batch is to be left to chance
_MULTIPLE = 8  # tokens; what matrix units like, and few shapes for whoever compiles


class Sequences(Dataset[Any]):
    """Token numbers with one target each; as model inputs ``input_ids`` and ``attention_mask``.

    Args:
        tokens: ``[N, L]``, int32, filled up at the right end with anything.
        lengths: ``[N]``, int32: how many tokens of each row count.
        targets: ``[N, ...]``.

    >>> data = Sequences(torch.tensor([[5, 6, 0], [7, 0, 0]]), torch.tensor([2, 1]), torch.ones(2))
    >>> x, y = data[1]
    >>> x["input_ids"], x["attention_mask"]
    (tensor([7, 0, 0]), tensor([1, 0, 0]))
    """

    def __init__(self, tokens: Tensor, lengths: Tensor, targets: Tensor) -> None:
        if tokens.ndim != 2 or len(tokens) != len(lengths) or len(tokens) != len(targets):
            raise TaskError(
                "sequences need tokens [N, L], lengths [N] and targets [N, ...], got "
                f"{tuple(tokens.shape)}, {tuple(lengths.shape)} and {tuple(targets.shape)}"
            )
        if len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= tokens.shape[1]:
            raise TaskError(
                f"lengths of sequences must be 1 to {tokens.shape[1]}, got {int(lengths.min())} to "
                f"{int(lengths.max())}"
            )
        self.tokens = tokens.to(torch.int32)
        self.lengths = lengths.to(torch.int32)
        self.targets = targets

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Batch:
        """One example, padded to the longest of all."""
        source = self.open(torch.device("cpu"))
        x, y = source.padded(torch.tensor([index]), self.tokens.shape[1])
        return {name: tensor[0] for name, tensor in x.items()}, y[0]

    def open(self, device: torch.device) -> SequenceSource:
        """The examples by number, on a device."""
        return SequenceSource(self, device)

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        return self.tokens, self.lengths, self.targets


class SequenceSource(TensorSource):
    """Sequences on a device; a batch is padded up to its longest."""

    def __init__(self, data: Sequences, device: torch.device) -> None:
        super().__init__((data.tokens, data.targets), device)
        self._lengths = data.lengths.to(device)
        self._padded = _rounded(data.lengths)  # on the host, where shapes are decided
        self._shelves: list[tuple[Tensor, int]] = []
        self._batch_size = 0

    @property
    def rows(self) -> None:
        """None: a batch is also padded and masked."""
        return None

    def order(self, seed: int, epoch: int, batch_size: int) -> Tensor:
        """All full batches of the epoch, each from one shelf; those left over at the end."""
        if batch_size != self._batch_size:
            self._shelve(batch_size)
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        batches: list[Tensor] = []
        left_over: list[Tensor] = []
        for members, count in self._shelves:
            drawn = members[torch.randperm(len(members), generator=generator)]
            batches += torch.split(drawn[: count * batch_size], batch_size)
            left_over.append(drawn[count * batch_size :])
        places = batch_order(0, epoch, len(batches)).tolist()  # of the epoch alone
        return torch.cat([*(batches[i] for i in places), *left_over])

    def _shelve(self, batch_size: int) -> None:
        """Cut into shelves of whole batches; the few left over are spread over them."""
        batches, extra = divmod(self.examples, batch_size)
        count = max(1, min(_SHELVES, batches // _BATCHES))
        by_length = self._lengths.cpu().sort(stable=True).indices
        padded = _rounded(self._lengths.cpu())
        self._shelves, at = [], 0
        for shelf in range(count):
            whole = batches // count + (shelf < batches % count)
            size = whole * batch_size + extra // count + (shelf < extra % count)
            members = by_length[at : at + size]
            padded[members] = padded[members].max()
            self._shelves.append((members, whole))
            at += size
        self._padded, self._batch_size = padded, batch_size

    def batch(self, indices: Tensor) -> Batch:
        """``{"input_ids": [B, T], "attention_mask": [B, T]}`` and the targets."""
        return self.padded(indices, int(self._padded[indices.cpu()].max()))

    def padded(self, indices: Tensor, length: int) -> Batch:
        """The same, with so many tokens each."""
        indices = indices.to(self.device)
        tokens = self.x.index_select(0, indices)[:, :length].long()
        lengths = self._lengths.index_select(0, indices)
        mask = torch.arange(tokens.shape[1], device=self.device) < lengths[:, None]
        return (
            {"input_ids": tokens, "attention_mask": mask.long()},
            self.y.index_select(0, indices),
        )


def _rounded(lengths: Tensor) -> Tensor:
    """Up to the next multiple."""
    return (lengths + _MULTIPLE - 1) // _MULTIPLE * _MULTIPLE
