"""Whether a model that says "90 % sure" is right in 90 % of these cases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.errors import InputError

__all__ = ["Reliability", "calibration_error", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Examples in bins of equal width by how sure the model is of the class that it names.

    Attributes:
        confidence: Mean probability of the named class in each bin; NaN in an empty one.
        accuracy: How many of them were right, as a share; NaN in an empty one.
        count: Examples in each bin.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def error(self) -> float:
        r"""Expected calibration error, :math:`\sum_b \frac{n_b}{N} |a_b - c_b|`."""
        full = self.count > 0
        gap = (self.accuracy - self.confidence).abs()[full]
        return float((gap * self.count[full]).sum() / self.count.sum())


def reliability(probabilities: Tensor, targets: Tensor, *, bins: int = 15) -> Reliability:
    """Sort answers into bins by their confidence.

    Args:
        probabilities: [B, C] or [B, C, ...].
        targets: The right classes, [B] or [B, ...].
        bins: Of equal width between 0 and 1; the upper edge belongs to a bin.

    >>> found = reliability(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]), bins=2)
    >>> found.count, found.accuracy
    (tensor([0, 2]), tensor([   nan, 0.5000], dtype=torch.float64))
    """
    if bins < 1:
        raise InputError(f"a calibration error needs at least 1 bin, got {bins}")
    if not targets.numel():
        raise InputError("a calibration error needs at least one example, got none")
    sure, named = probabilities.double().max(1)
    right = (named == targets).double().flatten()
    sure = sure.flatten()
    place = ((sure * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    total = count.double()
    return Reliability(
        confidence=torch.bincount(place, weights=sure, minlength=bins) / total,
        accuracy=torch.bincount(place, weights=right, minlength=bins) / total,
        count=count,
    )


def calibration_error(probabilities: Tensor, targets: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error of the named class (Guo et al., arXiv:1706.04599, section 3).

    >>> calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 0, 1]))
    0.0
    """
    return reliability(probabilities, targets, bins=bins).error
