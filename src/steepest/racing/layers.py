"""How far apart the arms ended, layer by layer, and how far apart two seeds of one arm end.

a, b  final parameters of two runs     a tensor per layer, flattened, float64
s     their start                      the same for all arms of one seed
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steepest.errors import LedgerError

__all__ = ["LayerDifference", "Weights", "layer_differences"]


@dataclass(frozen=True)
class LayerDifference:
    r"""A layer of two arms, averaged over the seeds that both finished.

    Attributes:
        arm_a: One arm.
        arm_b: The other; the same as ``arm_a`` for the yardstick, which compares neighbouring
            seeds of one arm.
        layer: Name of the parameter.
        mean_difference: Mean of :math:`a - b` over the elements.
        relative_distance: :math:`\|a - b\| / \|a\|`.
        cosine: Cosine between :math:`a - s_a` and :math:`b - s_b`, the two ways that were gone.
        n: Number of seeds, or of pairs of seeds for the yardstick.
    """

    arm_a: str
    arm_b: str
    layer: str
    mean_difference: float
    relative_distance: float
    cosine: float
    n: int

    @property
    def is_yardstick(self) -> bool:
        """Two seeds of one arm, not two arms."""
        return self.arm_a == self.arm_b


@dataclass(frozen=True)
class Weights:
    """Where the weights of one finished run lie."""

    arm: str
    seed: int
    final: Path
    start: Path


def layer_differences(runs: Iterable[Weights]) -> list[LayerDifference]:
    """Every pair of arms and every arm with itself over seeds, for every layer.

    Reads one layer of all runs at a time, so a model that fits into memory a few times is enough.
    """
    runs = list(runs)
    arms = list(dict.fromkeys(run.arm for run in runs))
    found: list[LayerDifference] = []
    with ExitStack() as stack:
        files = {
            path: _open(path, stack)
            for run in runs
            for path in dict.fromkeys((run.final, run.start))
        }
        layers = files[runs[0].final].keys() if runs else []
        for layer in layers:
            ends = {(r.arm, r.seed): _flat(files[r.final], layer, r.final) for r in runs}
            ways = {
                (r.arm, r.seed): ends[r.arm, r.seed] - _flat(files[r.start], layer, r.start)
                for r in runs
            }
            for a, b in itertools.combinations_with_replacement(arms, 2):
                pairs = _pairs(a, b, ends)
                if pairs:
                    numbers = [_compare(ends[p], ends[q], ways[p], ways[q]) for p, q in pairs]
                    mean, distance, cosine = np.mean(numbers, axis=0).tolist()
                    found.append(LayerDifference(a, b, layer, mean, distance, cosine, len(pairs)))
    return found


Key = tuple[str, int]


def _pairs(a: str, b: str, ends: Mapping[Key, Tensor]) -> list[tuple[Key, Key]]:
    """The runs to compare: equal seeds of two arms, neighbouring seeds of one."""
    seeds_a = [seed for arm, seed in ends if arm == a]
    if a == b:
        return [((a, s), (a, t)) for s, t in itertools.pairwise(seeds_a)]
    return [((a, s), (b, s)) for s in seeds_a if (b, s) in ends]


def _compare(a: Tensor, b: Tensor, way_a: Tensor, way_b: Tensor) -> tuple[float, float, float]:
    difference = a - b
    norms = way_a.norm() * way_b.norm()
    return (
        float(difference.mean()),
        float(difference.norm() / a.norm()),
        float(torch.dot(way_a, way_b) / norms),
    )


def _open(path: Path, stack: ExitStack) -> Any:
    try:
        return stack.enter_context(safe_open(path, "pt"))
    except (OSError, SafetensorError) as error:
        raise LedgerError(
            f"the weights {path} cannot be read ({error}); the layers cannot be compared without "
            "them; restore the file, or race again with another --out"
        ) from error


def _flat(file: Any, layer: str, path: Path) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(layer)
    except SafetensorError as error:
        raise LedgerError(f"{path} has no layer '{layer}'; it belongs to another race") from error
    return tensor.flatten().double()
