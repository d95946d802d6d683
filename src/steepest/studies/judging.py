"""How good an ensemble is, and its members by themselves, on the splits of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steepest.studies.setting import Setting
from steepest.train.calibration import reliability
from steepest.train.ensembles import (
    Ensemble,
    check_classes,
    mean_log_probabilities,
    predict,
    score,
    uncertainty,
)

__all__ = ["check_is_classifier", "judge_members"]

_BINS = 15


def check_is_classifier(setting: Setting, model: nn.Module) -> None:
    """Raise `TaskError` before anything is trained, unless the task is one of classes."""
    where = f"task '{setting.task.name}': {setting.decides}"
    outputs, targets = predict(
        setting.task, setting.decides, model.eval(), device=torch.device(setting.device)
    )
    check_classes(outputs, targets, where=where)


def judge_members(setting: Setting, models: Sequence[nn.Module], *, last: int) -> dict[str, Any]:
    """All numbers of one ensemble.

    Args:
        setting: Whose splits.
        models: The members, in their order.
        last: How many of them, from the end, the ensemble has.

    Returns:
        ``ensemble`` and ``single``: by metric, the ensemble's value and the members' values;
        ``sizes``: what decides, for ensembles of the last 1, 2, … members; ``chosen``: the member
        that is best where choices are made (on the validation data if there are any);
        ``uncertainty``: means over the split that decides, of right and of wrong answers;
        ``reliability``: confidence, accuracy and count by bins, of the ensemble and of the
        members; ``how``: whether the members were asked at once.
    """
    device = torch.device(setting.device)
    task = setting.task
    ensemble = Ensemble(list(models))
    metric, higher = task.primary
    found: dict[str, Any] = {"ensemble": {}, "single": {}, "sizes": []}
    for split in setting.splits:
        logs_KNC, targets = predict(task, split, ensemble.log_probabilities, device=device, dim=1)
        kept = logs_KNC[-last:]
        found["ensemble"] |= _numbers(setting, ensemble, split, kept, targets)
        for one in logs_KNC:
            for name, value in _numbers(setting, ensemble, split, one[None], targets).items():
                found["single"].setdefault(name, []).append(value)
        if split != setting.decides:
            continue
        for size in range(1, len(models) + 1):
            numbers = _numbers(setting, ensemble, split, logs_KNC[-size:], targets)
            found["sizes"].append(numbers[f"{split}_{metric}"])
        found["reliability"] = {
            "ensemble": _bins([mean_log_probabilities(kept)], targets),
            "members": _bins(list(kept), targets),
        }
        if len(kept) > 1:
            found["uncertainty"] = _uncertainty(kept, targets)
    choices = found["single"][f"{setting.splits[0]}_{metric}"]
    found["chosen"] = int(np.argmax(choices) if higher else np.argmin(choices))
    found["how"] = ensemble.how
    return found


def _numbers(
    setting: Setting, ensemble: Ensemble, split: str, logs_KNC: Tensor, targets: Any
) -> dict[str, float]:
    mean = mean_log_probabilities(logs_KNC)
    numbers = dict(score(setting.task, ensemble.like_members(mean), targets))
    numbers["calibration_error"] = reliability(mean.exp(), targets, bins=_BINS).error
    return {f"{split}_{name}": value for name, value in numbers.items()}


def _uncertainty(logs_KNC: Tensor, targets: Tensor) -> dict[str, dict[str, float]]:
    """Means over all answers, and over those that are right and those that are wrong."""
    sure = uncertainty(logs_KNC)
    right = mean_log_probabilities(logs_KNC).argmax(1) == targets
    parts = {"all": torch.ones_like(right), "right": right, "wrong": ~right}
    return {
        name: {key: float(value[mask].mean()) for key, value in vars(sure).items()}
        for name, mask in parts.items()
        if mask.any()
    }


def _bins(logs: Sequence[Tensor], targets: Tensor) -> dict[str, list[float]]:
    """Sums by bins, which add up over members and seeds."""
    sums = {"count": np.zeros(_BINS), "confidence": np.zeros(_BINS), "right": np.zeros(_BINS)}
    for one in logs:
        found = reliability(one.exp(), targets, bins=_BINS)
        count = found.count.double()
        sums["count"] += count.numpy()
        sums["confidence"] += (found.confidence.nan_to_num() * count).numpy()
        sums["right"] += (found.accuracy.nan_to_num() * count).numpy()
    return {name: values.tolist() for name, values in sums.items()}
