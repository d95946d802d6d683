"""Losses and metrics of ready-made classification tasks.

B    examples
K    classes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ClassWeights", "accuracy", "class_loss", "judged", "macro_f1", "name_part", "sizes"]

ClassWeights = Literal["auto", "equal", "balanced"]
Scores = Mapping[str, Callable[[Tensor, Tensor], float]]

_UNBALANCED = 2.0  # largest class over smallest, from which classes are weighted


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The fraction of examples whose largest output is at the target.

    >>> accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    return (outputs.argmax(dim=1) == targets).double().mean().item()


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN), each class counting the same.

    Classes that neither occur nor are predicted are left out.

    >>> outputs = torch.eye(2)[[0, 0, 0, 1]]
    >>> macro_f1(outputs, torch.tensor([0, 0, 1, 1]))        # (4/5 + 2/3) / 2
    0.7333...
    """
    predicted, classes = outputs.argmax(dim=1), outputs.shape[1]
    right = torch.bincount(targets[predicted == targets], minlength=classes).double()
    found = torch.bincount(predicted, minlength=classes) + torch.bincount(
        targets, minlength=classes
    )
    present = found > 0
    return (2 * right[present] / found[present]).mean().item()


class _Weighted:
    """Cross-entropy in which every class weighs the same over the training data."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = torch.tensor(weights)
        self._on: dict[torch.device, Tensor] = {}

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.device not in self._on:
            self._on[outputs.device] = self.weights.to(outputs.device)
        each = F.cross_entropy(outputs, targets, reduction="none")
        return (each * self._on[outputs.device][targets]).mean()


def class_loss(counts: Sequence[int] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy; with the sizes of the classes, weighted by N / (K n_k).

    The weights' mean over the training examples is 1, and a batch is averaged over its examples
    and not over its weights, so that the loss of a split does not depend on its batches.

    Args:
        counts: Training examples of each class; None: every example weighs the same.

    >>> loss = class_loss([30, 10])
    >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])) / torch.tensor(2.0).log()
    tensor(1.3333)
    """
    if counts is None:
        return F.cross_entropy
    total = sum(counts)
    return _Weighted([total / (len(counts) * n) for n in counts])


def judged(
    counts: Mapping[int, int], classes: Sequence[str], weights: ClassWeights
) -> tuple[Callable[[Tensor, Tensor], Tensor], Scores, tuple[str, ...]]:
    """The loss, the metrics (the first decides) and a note, by how unequal the classes are.

    Args:
        counts: Training examples by class.
        classes: Their names.
        weights: What was asked for.
    """
    weighted = weights == "balanced" or (
        weights == "auto" and max(counts.values()) > _UNBALANCED * min(counts.values())
    )
    if not weighted:
        return class_loss(None), {"accuracy": accuracy, "macro_f1": macro_f1}, ()
    note = (
        f"classes are of unequal size ({sizes(counts, classes)} to train): the loss weights them "
        "equally, and macro-F1 decides"
    )
    loss = class_loss([counts[k] for k in range(len(classes))])
    return loss, {"macro_f1": macro_f1, "accuracy": accuracy}, (note,)


def sizes(counts: Mapping[int, int], classes: Sequence[str]) -> str:
    """Classes with their sizes; of many classes the largest and the smallest.

    >>> sizes({0: 700, 1: 1300}, ["ham", "spam"])
    'ham 700, spam 1,300'
    """
    if len(classes) <= 6:
        return ", ".join(f"{name} {counts[k]:,}" for k, name in enumerate(classes))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    (most, many), (least, few) = ordered[0], ordered[-1]
    return f"{len(ordered)} classes from {classes[most]} {many:,} to {classes[least]} {few:,}"


def name_part(name: str) -> str:
    """A file's name as part of a task's, which names folders.

    >>> name_part("my ads (2)")
    'my-ads--2-'
    """
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name) or "data"
