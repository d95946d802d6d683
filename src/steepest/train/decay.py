"""Parameters that no optimizer is to decay: biases and the gains of norms, as a rule.

Decay pulls a weight to zero. For a bias, or a gain whose neutral value is one, that is another
model and not a smaller one. What is spared is the task's decision (`Task.no_decay`) and the same
for every arm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn

__all__ = ["NoDecay", "spare_decay", "vectors"]

NoDecay: TypeAlias = Callable[[str, nn.Parameter], bool]


def vectors(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter has at most one dimension: every bias, every gain of a norm.

    >>> layer = nn.LayerNorm(3), nn.Linear(3, 2)
    >>> [vectors(name, p) for name, p in nn.Sequential(*layer).named_parameters()]
    [True, True, False, True]
    """
    return parameter.ndim <= 1


def spare_decay(optimizer: torch.optim.Optimizer, spared: Iterable[nn.Parameter]) -> None:
    """Move parameters into groups of their own, equal in everything but a weight decay of 0.

    An optimizer without weight decay is left as it is.

    Args:
        optimizer: Fresh: it has not stepped yet.
        spared: Those that are not to be decayed.

    >>> weight, bias = nn.Linear(3, 2).parameters()
    >>> optimizer = torch.optim.AdamW([weight, bias], lr=0.1)
    >>> spare_decay(optimizer, [bias])
    >>> [(g["weight_decay"], g["lr"], g["params"][0].ndim) for g in optimizer.param_groups]
    [(0.01, 0.1, 2), (0.0, 0.1, 1)]
    """
    ids = {id(p) for p in spared}
    for group in list(optimizer.param_groups):
        if not group.get("weight_decay"):
            continue
        places = [i for i, p in enumerate(group["params"]) if id(p) in ids]
        if len(places) == len(group["params"]):
            group["weight_decay"] = 0.0
        elif places:
            _split(optimizer, group, places)


def _split(optimizer: torch.optim.Optimizer, group: dict[str, Any], places: list[int]) -> None:
    columns = {key: group[key] for key in ("params", "param_names") if key in group}
    kept: dict[str, list[Any]] = {}
    moved: dict[str, list[Any]] = {}
    for key, values in columns.items():
        kept[key] = [value for i, value in enumerate(values) if i not in places]
        moved[key] = [values[i] for i in places]
    names = moved.pop("param_names", None)
    params = moved["params"] if names is None else list(zip(names, moved["params"], strict=True))
    rest = {key: value for key, value in group.items() if key not in columns}
    group.update(kept)
    optimizer.add_param_group({**rest, "params": params, "weight_decay": 0.0})
