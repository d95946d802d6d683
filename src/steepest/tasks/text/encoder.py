"""A small transformer that reads tokens, for texts without a pretrained encoder.

    B, T    texts and tokens of a batch
    D       width
    H       heads
    K       classes

Blocks are pre-norm (arXiv:2002.04745), which trains without warmup; the text is the mean over its
tokens. Attention is written out, so that dropout and masks are the same inside a population.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SmallEncoder"]


class _Block(nn.Module):
    """Self-attention and a feed-forward net, each beside a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.drop1 = nn.Dropout(dropout)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, seen_B11T: Tensor) -> Tensor:
        """The texts, each token informed by the others."""
        x_BTD = x_BTD + self.drop1(self._attend(self.norm1(x_BTD), seen_B11T))
        hidden = nn.functional.gelu(self.up(self.norm2(x_BTD)))
        result: Tensor = x_BTD + self.drop2(self.down(hidden))
        return result

    def _attend(self, x_BTD: Tensor, seen_B11T: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = self.mix(x_BTD).view(B, T, 3, self.heads, D // self.heads).unbind(2)
        score_BHTT = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(D // self.heads)
        weight_BHTT = score_BHTT.masked_fill(~seen_B11T, -math.inf).softmax(-1)
        mixed_BTD = torch.einsum("bhij,bjhd->bihd", weight_BHTT, v).reshape(B, T, D)
        result: Tensor = self.out(mixed_BTD)
        return result


class SmallEncoder(nn.Module):
    """Token numbers to classes.

    Args:
        vocabulary: How many tokens there are.
        classes: How many classes.
        length: Most tokens of a text.
        width: Of the embeddings.
        heads: Of each attention.
        depth: Blocks.
        dropout: Probability, after the embeddings and in every block.

    >>> model = SmallEncoder(vocabulary=100, classes=3, length=16)
    >>> model(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        classes: int,
        length: int,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)  # as in BERT, arXiv:1810.04805
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of the classes, ``[B, K]``."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x_BTD = self.drop(self.tokens(input_ids) + self.places(places))
        seen_B11T = attention_mask.bool()[:, None, None, :]
        for block in self.blocks:
            x_BTD = block(x_BTD, seen_B11T)
        mask_BT1 = attention_mask[..., None].to(x_BTD.dtype)
        mean_BD = (self.norm(x_BTD) * mask_BT1).sum(1) / mask_BT1.sum(1)
        return self.out(mean_BD)  # type: ignore[no-any-return]
