"""What an optimizer is put through: one thing at a time, then everything at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.auditing.names import Names
from steepest.rules import Rule

__all__ = ["STEPS", "Array", "Play", "Scenario", "play", "scenarios"]

Array = NDArray[Any]

STEPS = 120
_RELOAD = 50
_DECAY, _EPS = 0.1, 0.1
_SHAPES: list[tuple[int, ...]] = [(4, 3), (5,), (2, 3, 2)]
_MATRICES: list[tuple[int, ...]] = [(6, 4), (5, 5), (4, 6)]
# the first gradient of an oblong matrix leaves some of the eigenvectors open
_SQUARES: list[tuple[int, ...]] = [(6, 6), (5, 5), (4, 4)]
_OTHER: dict[str, float] = {
    "beta1": 0.8,
    "beta2": 0.97,
    "beta3": 0.95,
    "rho": 0.8,
    "alpha": 0.9,
    "momentum_decay": 0.02,
    "lambd": 0.01,
    "t0": 20.0,
    "power": 0.6,
    "lr_decay": 0.1,
    "initial_accumulator_value": 0.5,
    "eta_minus": 0.6,
    "eta_plus": 1.3,
    "step_max": 0.05,
    "beta2_decay": -0.7,
    "eps2": 0.5,
    "alpha_slow": 3.0,
    "trust_coefficient": 0.01,
    "shampoo_beta": 0.9,
}
"""Values that are not what the constructor has, to see whether it looks at its arguments."""


@dataclass(frozen=True)
class Scenario:
    """One thing that an optimizer is put through.

    Attributes:
        name: What it is called in the report.
        values: Values of the rule that differ from the optimizer's defaults.
        changing: The learning rate changes every step.
        missing: One tensor has no gradient in some of the steps, the first among them.
        groups: Two groups with values of their own.
        reload: In the middle, a fresh instance takes over from the ``state_dict``.
        maximize: The optimizer's own flag.
        tensor: The learning rate is handed over in a tensor, which is written into.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    changing: bool = False
    missing: bool = False
    groups: bool = False
    reload: bool = False
    maximize: bool = False
    tensor: bool = False


@dataclass(frozen=True)
class Play:
    """A scenario with its numbers.

    Attributes:
        scenario: The scenario.
        start: The tensors at the start; exact in float32, as the gradients are.
        grads: For every step the gradient of every tensor, None where it has none.
        groups: For every tensor the number of its group.
        values: For every group the values that are set, learning rate included.
        rates: For every step the factor on the learning rate.
        reload: The number of steps before the fresh instance, or None.
    """

    scenario: Scenario
    start: Sequence[Array]
    grads: Sequence[Sequence[Array | None]]
    groups: tuple[int, ...]
    values: tuple[Mapping[str, Any], ...]
    rates: tuple[float, ...]
    reload: int | None


def scenarios(rule: Rule, names: Names, arguments: Mapping[str, Any]) -> list[Scenario]:
    """Everything that this optimizer can be put through.

    Args:
        rule: The rule.
        names: Which of the rule's values can be set.
        arguments: The optimizer's arguments and the entries of its groups, for its flags.
    """
    read = names.values(rule)
    quiet = {"weight_decay": 0.0} if "weight_decay" in read else {}
    decay = {"weight_decay": _DECAY} if quiet else {}
    eps = {"eps": _EPS} if "eps" in read else {}
    momentum = {"momentum": 0.9} if read.get("momentum") == 0 else {}
    out = [Scenario("plain", quiet)]
    if momentum:
        out.append(Scenario("momentum", {**quiet, **momentum}))
    if "dampening" in read:
        out.append(Scenario("dampening", {**quiet, **momentum, "dampening": 0.3}))
    for option, value in read.items():
        if isinstance(value, bool):
            with_it = momentum if option == "nesterov" else {}
            out.append(Scenario(f"{option}={not value}", {**quiet, **with_it, option: not value}))
    other = {name: value for name, value in _OTHER.items() if name in read and read[name] != value}
    if other:
        out.append(Scenario("other coefficients", {**quiet, **other}))
    if eps:
        out.append(Scenario("large eps", {**quiet, **eps}))
    out.append(Scenario("changing lr", {**quiet, **momentum}, changing=True))
    if decay:
        out += [
            Scenario("weight decay", decay),
            Scenario("weight decay, changing lr", decay, changing=True),
        ]
    out += [
        Scenario("missing gradients", quiet, missing=True),
        Scenario("save and load", {**quiet, **momentum}, reload=True),
        Scenario("groups", decay, groups=True),
    ]
    if "maximize" in arguments:
        out.append(Scenario("maximize", quiet, maximize=True))
        if decay:
            out.append(Scenario("maximize, weight decay", decay, maximize=True))
    if "Tensor" in str(arguments.get("lr", "")):
        out.append(Scenario("lr in a tensor", quiet, changing=True, tensor=True))
    everything = {**decay, **eps, **momentum}
    out.append(
        Scenario("everything", everything, changing=True, missing=True, groups=True, reload=True)
    )
    return out


def play(rule: Rule, scenario: Scenario, names: Names) -> Play:
    """The numbers of a scenario, the same in every process."""
    rng = np.random.default_rng(0)
    shapes = _SHAPES
    if rule.kind == "matrix":
        sides = any(slot.per in ("left", "right") for slot in rule.slots.values())
        shapes = _SQUARES if sides else _MATRICES
    start = [_single(rng.normal(size=shape)) for shape in shapes]
    grads: list[list[Array | None]] = [
        [_single(np.exp(rng.normal()) * rng.normal(size=shape)) for shape in shapes]
        for _ in range(STEPS)
    ]
    if scenario.missing:
        for step in (0, 1, *range(7, STEPS, 8), *range(60, 70)):
            grads[step][0] = None
    lr = max(rule.hyperparameters["lr"], 1e-2) if rule.kind != "matrix" else 1e-2
    values = {**scenario.values, "lr": lr}
    second = dict(values)
    if scenario.groups and not rule.has_totals:  # which share one rate
        second["lr"] = 3 * lr if lr < 0.5 else lr / 3
        if second.get("weight_decay"):
            second["weight_decay"] = 3 * second["weight_decay"]
    wave = 1 + 0.9 * np.sin(np.arange(STEPS) / 7) if scenario.changing else np.ones(STEPS)
    return Play(
        scenario=scenario,
        start=start,
        grads=grads,
        groups=(0, 0, 1) if scenario.groups else (0, 0, 0),
        values=(values, second) if scenario.groups else (values,),
        rates=tuple(map(float, wave)),
        reload=_RELOAD if scenario.reload else None,
    )


def _single(x: Array) -> Array:
    """Rounded to what float32 can hold, so that every dtype starts from the same numbers."""
    return np.asarray(x, np.float32).astype(np.float64)
