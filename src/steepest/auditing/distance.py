"""How far an optimizer is from a reading of its rule, and how much of that is rounding."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from steepest.auditing.scenarios import Play
from steepest.auditing.subject import Recording
from steepest.auditing.walk import Reading, Values, walk
from steepest.rules import Rule

__all__ = ["Distance", "Tolerances", "distance", "fits", "tolerances"]

_EPS64, _EPS32 = 2.0**-52, 2.0**-23


@dataclass(frozen=True)
class Distance:
    """The largest distance over all steps and elements, over the distance travelled.

    Attributes:
        off: That number; infinite where one of the two is not finite.
        since: The first step, from 1, that is further off than rounding; None if none is.
    """

    off: float
    since: int | None


@dataclass(frozen=True)
class Tolerances:
    """What rounding explains in one scenario, as a part of the distance travelled.

    The formula itself is run in float32; its distance from float64 shows how much it amplifies
    rounding. A float64 optimizer may be 64 times what that makes in float64 away, since it may
    round at other places and more often; never less than 8 times one rounding per step.

    Attributes:
        levels: The precision inside to its tolerance, from the highest to the lowest.
    """

    levels: dict[str, float]


def _apart(
    rule: Rule, plan: Play, base: Values, reading: Reading, recording: Recording
) -> Iterator[float]:
    way = max(recording.way, 1e-300)
    with np.errstate(all="ignore"):
        walked = walk(rule, plan, base, reading)
        for theirs, (ours, _) in zip(recording.path, walked, strict=False):
            worst = max(float(np.abs(a - b).max()) for a, b in zip(theirs, ours, strict=True))
            yield worst / way if math.isfinite(worst) else math.inf


def fits(
    rule: Rule,
    plan: Play,
    base: Values,
    reading: Reading,
    recording: Recording,
    tolerance: float,
) -> bool:
    """Whether the optimizer stays within the tolerance; gives up at the first step that is not."""
    try:
        apart = _apart(rule, plan, base, reading, recording)
        return all(off <= tolerance for off in apart)
    except (ArithmeticError, TypeError, ValueError):  # a change that makes no sense for this rule
        return False


def distance(
    rule: Rule,
    plan: Play,
    base: Values,
    reading: Reading,
    recording: Recording,
    tolerance: float,
) -> Distance:
    """How far the optimizer goes away from a reading, and since when."""
    apart = list(_apart(rule, plan, base, reading, recording))
    since = next((step for step, off in enumerate(apart, 1) if not off <= tolerance), None)
    return Distance(max(apart, default=0.0), since)


def tolerances(
    rule: Rule, plan: Play, base: Values, reading: Reading, *, dtype: torch.dtype
) -> Tolerances:
    """What rounding explains, by running the formula itself in lower precision."""
    exact = list(_tensors(walk(rule, plan, base, reading)))
    way = max(
        float(np.abs(x - p).max())
        for tensors in exact
        for x, p in zip(tensors, plan.start, strict=True)
    )
    way = max(way, 1e-300)
    with np.errstate(all="ignore"):
        single = _far(exact, _tensors(walk(rule, plan, base, reading, dtype=np.float32)), way)
    steps = len(plan.grads)
    levels = {}
    if dtype == torch.float64:
        levels["float64"] = max(64 * single * _EPS64 / _EPS32, 8 * steps * _EPS64)
    levels["float32"] = min(max(16 * single, 8 * steps * _EPS32), 1e-3)
    if "ns_steps" in rule.hyperparameters:  # which most run in bfloat16, also for float64
        levels["bfloat16"] = min(3 * _in_bfloat16(rule, plan, base, reading, exact, way), 0.05)
    return Tolerances(levels)


def _tensors(walked: Any) -> Iterator[list[Any]]:
    for tensors, _ in walked:
        yield tensors


def _far(exact: list[list[Any]], other: Iterator[list[Any]], way: float) -> float:
    worst = 0.0
    for xs, ys in zip(exact, other, strict=True):
        for x, y in zip(xs, ys, strict=True):
            far = float(np.abs(x - y).max()) / way
            worst = max(worst, far if math.isfinite(far) else 1.0)
    return worst


def _in_bfloat16(
    rule: Rule, plan: Play, base: Values, reading: Reading, exact: list[list[Any]], way: float
) -> float:
    """How far matrix products in bfloat16 lead away."""

    def product(*args: Any, **values: Any) -> tuple[Any, ...]:
        p, g, *slots, t = (torch.tensor(x).float() if _is_array(x) else x for x in args)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = rule(p, g, *slots, t, **values)
        return tuple(x.double().numpy() if isinstance(x, torch.Tensor) else x for x in out)

    low: Any = _Instead(rule, product)
    with contextlib.suppress(RuntimeError):
        return _far(exact, _tensors(walk(low, plan, base, reading)), way)
    return 0.0


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray)


class _Instead:
    """A rule whose formula is computed by something else."""

    def __init__(self, rule: Rule, call: Any) -> None:
        self.rule, self.call = rule, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def __call__(self, *args: Any, **values: Any) -> Any:
        return self.call(*args, **values)
