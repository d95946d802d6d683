"""The ways in which optimizers are found to be wrong, each done to the rule from outside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from steepest.auditing.names import Names
from steepest.auditing.scenarios import Scenario
from steepest.auditing.walk import At, Change, Values
from steepest.rules import Rule

__all__ = ["changes"]


class _WithoutPower(float):
    """A coefficient whose powers are zero: 1 - beta**t is 1, the average stays what it is."""

    def __pow__(self, _: Any, __: Any = None) -> Any:
        return 0.0


class _Squared(float):
    """An ε that is added under the root to which it would be added: hypot instead of +."""

    __array_ufunc__ = None  # so that an array asks __radd__

    def __radd__(self, root: Any) -> Any:
        return np.sqrt(root * root + float(self))


class _Floor(float):
    """An ε that is the least that a denominator can be, where it should be added."""

    __array_ufunc__ = None

    def __radd__(self, root: Any) -> Any:
        return np.maximum(root, float(self))


def changes(
    rule: Rule, names: Names, scenario: Scenario, base: Values, options: Mapping[str, Any]
) -> list[Change]:
    """What could be wrong where this scenario deviates, the most usual first.

    Args:
        rule: The rule.
        names: Which of its values the optimizer has arguments for.
        scenario: Where it deviates.
        base: The rule's values at the optimizer's defaults.
        options: Values that are fixed by an argument: they may have no effect.
    """
    found: list[Change] = []
    numbers = {**rule.hyperparameters, **base}
    if scenario.reload:
        found += _reloaded(rule)
    if scenario.maximize:
        found += _maximised(scenario)
    if scenario.groups:
        found += _grouped(scenario)
    if scenario.missing:
        found += _missing(rule)
    if scenario.changing:
        found += _at_other_rates(scenario)
    if scenario.values.get("weight_decay"):
        found += list(_decayed(rule, scenario))
    if "eps" in rule.hyperparameters:
        found += list(_epsilon(rule))
    for name, value in options.items():
        now = {**base, **scenario.values}.get(name, value)
        for other in rule.choices.get(name, (True, False)):
            if other != now:
                text = f"{name}={now} is read as {name}={other}"
                found.append(Change(name, text, values=_set(name, other)))
    found += _ignored(names, scenario, numbers)
    if not scenario.reload:
        found += list(_at_the_start(rule, base))
    return found


def _ignored(names: Names, scenario: Scenario, numbers: Values) -> Iterator[Change]:
    """Arguments that change nothing: one value alone, or all that one argument holds."""
    held: dict[str, dict[str, float]] = {}
    for name in scenario.values:
        if name in numbers and name != "weight_decay":
            text = f"{name} is ignored: it stays {numbers[name]:g}"
            yield Change(name, text, values=_set(name, numbers[name]))
            held.setdefault(names.places[name][0], {})[name] = numbers[name]
    for argument, stay in held.items():
        if len(stay) > 1:
            shown = ", ".join(f"{value:g}" for value in stay.values())
            yield Change(
                argument,
                f"{argument} is ignored: it stays {shown}",
                values=lambda values, _, stay=stay: {**values, **stay},  # type: ignore[misc]
            )


def _set(name: str, value: Any) -> Any:
    return lambda values, _: {**values, name: value}


def _scaled(name: str, factor: float) -> Any:
    return lambda values, _: {**values, name: values[name] * factor}


def _reloaded(rule: Rule) -> Iterator[Change]:
    term = "save and load"
    yield Change(term, "the number of the step does not come through its state_dict", lost=("t",))
    for slot in rule.slots:
        yield Change(term, f"{slot} does not come through its state_dict", lost=(slot,))
    yield Change(term, "nothing of its state comes through its state_dict", lost=("t", *rule.slots))
    averages = tuple(rule.slots)
    yield Change(term, "all slots are lost, only the number of the step comes", lost=averages)


def _maximised(scenario: Scenario) -> Iterator[Change]:
    yield Change("maximize", "maximize is ignored", ascent=False)
    if scenario.values.get("weight_decay"):

        def grows(p: Any, g: Any, values: Values, at: At) -> Any:
            return g - values["weight_decay"] * p if at.up else g

        yield Change(
            "maximize",
            "maximize turns the sign of the L2 penalty too: the weights grow",
            values=lambda values, at: {**values, "weight_decay": 0.0} if at.up else values,
            gradient=grows,
        )


def _missing(rule: Rule) -> Iterator[Change]:
    term = "missing gradients"
    yield Change(term, "a missing gradient is taken for one of zeros", zeros=True)
    betas = [name for name in ("beta1", "beta2", "beta3") if name in rule.hyperparameters]

    def running(values: Values, at: At) -> Values:
        out = dict(values)
        for name in betas:
            beta = float(values[name])
            out[name] = _WithoutPower(beta * (1 - beta ** (at.t - 1)) / (1 - beta**at.t))
        return out

    if betas:
        yield Change(
            term,
            "the averages are corrected as they run, by the group's number of the step, "
            "so that they are others where a gradient was missing",
            values=running,
            per_group=True,
        )


def _grouped(scenario: Scenario) -> Iterator[Change]:
    for name in ("lr", *(k for k in scenario.values if k == "weight_decay")):
        yield Change(
            "groups",
            f"every group has the {name} of the first one",
            values=lambda values, at, name=name: {**values, name: at.leader[name]},  # type: ignore[misc]
        )

    def step_only(values: Values, at: At) -> Values:
        out = {**values, "lr": at.leader["lr"]}
        if "weight_decay" in values:
            out["weight_decay"] = values["weight_decay"] * values["lr"] / at.leader["lr"]
        return out

    yield Change(
        "groups", "every group has the lr of the first one, but in the decay", values=step_only
    )


def _at_other_rates(scenario: Scenario) -> Iterator[Change]:
    term = "lr in a tensor" if scenario.tensor else "learning rate"
    yield Change(
        term,
        "a changed learning rate is not seen: it stays what it was first",
        values=lambda values, at: {**values, "lr": at.first["lr"]},
    )
    yield Change(
        term,
        "the learning rate comes a step late",
        values=lambda values, at: {**values, "lr": at.before["lr"]},
    )


def _decayed(rule: Rule, scenario: Scenario) -> Iterator[Change]:
    term, off = "weight decay", _set("weight_decay", 0.0)
    yield Change(term, "weight decay is ignored", values=off)
    for other in rule.choices.get("decay", ()):
        text = f"the decay is {_DECAYS[other]} (decay={other})"
        yield Change(term, text, values=_set("decay", other))

    def penalty(p: Any, g: Any, values: Values, _: At) -> Any:
        return g + values["weight_decay"] * p

    def beside(p: Any, step: Any, values: Values, _: At) -> Any:
        return p + step - values["lr"] * values["weight_decay"] * p

    def alone(p: Any, step: Any, values: Values, _: At) -> Any:
        return p + step - values["weight_decay"] * p

    def shrunk(p: Any, values: Values, _: At) -> Any:
        return p * (1 - values["lr"] * values["weight_decay"])

    def shrinking(p: Any, step: Any, values: Values, _: At) -> Any:
        return (p + step) * (1 - values["lr"] * values["weight_decay"])

    known = rule.choices.get("decay", ())
    if "l2" not in known:
        yield Change(term, f"the decay is {_DECAYS['l2']}", values=off, gradient=penalty)
    if "decoupled" not in known:
        yield Change(term, f"the decay is {_DECAYS['decoupled']}", values=off, landed=beside)
    if "independent" not in known:
        yield Change(term, f"the decay is {_DECAYS['independent']}", values=off, landed=alone)
    text = "the parameter is shrunk by lr * weight_decay"
    yield Change(term, f"{text} before the step", values=off, seen=shrunk)
    yield Change(term, f"{text} after the step", values=off, landed=shrinking)
    yield Change(
        term,
        "the learning rate is in the decay once more (lr twice)",
        values=lambda values, _: {**values, "weight_decay": values["weight_decay"] * values["lr"]},
    )
    if scenario.changing:
        yield Change(
            term,
            "the decay keeps the learning rate of the first step",
            values=lambda values, at: {
                **values,
                "weight_decay": values["weight_decay"] * at.first["lr"] / values["lr"],
            },
        )

    def constant(p: Any, step: Any, values: Values, _: At) -> Any:
        return p + step - values["lr"] * values["weight_decay"]

    text = "lr * weight_decay is subtracted from every element, whatever its size"
    yield Change(term, text, values=off, landed=constant)
    yield Change(term, "the decay has the wrong sign", values=_scaled("weight_decay", -1.0))
    yield Change(term, "the decay is twice too strong", values=_scaled("weight_decay", 2.0))
    yield Change(term, "the decay is half as strong", values=_scaled("weight_decay", 0.5))
    yield Change(
        term,
        "tensors of fewer than two axes have no decay",
        values=lambda values, at: values if at.ndim > 1 else {**values, "weight_decay": 0.0},
    )
    yield Change(
        term,
        "the first step has no decay",
        values=lambda values, at: values if at.t > 1 else {**values, "weight_decay": 0.0},
    )


_DECAYS = {
    "l2": "an L2 penalty, part of the gradient",
    "decoupled": "decoupled: lr * weight_decay of the parameter",
    "independent": "independent of the learning rate: weight_decay of the parameter",
    "proximal": "proximal: the parameter over 1 + lr * weight_decay",
    "relative": "scaled as the step is",
}


def _epsilon(rule: Rule) -> Iterator[Change]:
    term = "eps"
    for other in rule.choices.get("eps_mode", ()):
        text = f"eps stands elsewhere (eps_mode={other})"
        yield Change(term, text, values=_set("eps_mode", other))
    yield Change(term, "eps is ignored", values=_set("eps", 0.0))
    if "beta2" in rule.hyperparameters:

        def hat(values: Values, at: At) -> Values:
            correction = math.sqrt(1 - float(values["beta2"]) ** max(at.t, 1))
            return {**values, "eps": values["eps"] / correction}

        def under(values: Values, at: At) -> Values:
            correction = 1 - float(values["beta2"]) ** max(at.t, 1)
            return {**values, "eps": _Squared(values["eps"] / correction)}

        yield Change(term, "eps is added before the bias correction (hat)", values=hat)
        if "exp_avg_var" not in rule.slots:  # AdaBelief adds it in the average too
            yield Change(
                term, "eps is added under the root, before the bias correction", values=under
            )
    if "exp_avg_var" not in rule.slots:
        yield Change(
            term,
            "eps is added under the root (inside)",
            values=lambda values, _: {**values, "eps": _Squared(values["eps"])},
        )
        yield Change(
            term,
            "eps is the least that the denominator can be, and not added to it",
            values=lambda values, _: {**values, "eps": _Floor(values["eps"])},
        )
    yield Change(
        term,
        "eps is squared",
        values=lambda values, _: {**values, "eps": values["eps"] ** 2},
    )
    yield Change(
        term,
        "the root of eps is taken",
        values=lambda values, _: {**values, "eps": math.sqrt(values["eps"])},
    )


class _NotBefore(int):
    """A number of a step that is taken where the one before it is asked for."""

    def __sub__(self, other: Any) -> Any:
        return int(self) if other == 1 else int(self) - other


def _of_one_rule(rule: Rule) -> Iterator[Change]:
    """What is known of some libraries."""
    if rule.bare.__name__ == "adopt":
        yield Change(
            "clipping",
            "it clips at t to the power of the exponent, where the rule has t - 1",
            time=lambda t, _: _NotBefore(t),
        )
    if "adapt" in rule.options:
        yield Change(
            "ratio of norms",
            "tensors of fewer than two axes have the plain rate and no decay",
            values=lambda values, at: (
                values if at.ndim > 1 else {**values, "adapt": "decayed", "weight_decay": 0.0}
            ),
        )
    if rule.bare.__name__ == "lamb":

        def outside(values: Values, at: At) -> Values:
            betas = {name: _WithoutPower(values[name]) for name in ("beta1", "beta2")}
            return {**values, **betas, "lr": values["lr"] / (1 - values["beta1"] ** at.t)}

        yield Change(
            "bias correction",
            "there is none of the second moment, and that of the first stands outside of the ratio",
            values=outside,
        )


def _at_the_start(rule: Rule, base: Values) -> Iterator[Change]:
    """What is wrong in every scenario, and from the first steps."""
    betas = [name for name in ("beta1", "beta2", "beta3") if name in rule.hyperparameters]
    moments = {"beta1": "first", "beta2": "second", "beta3": "third"}
    term = "bias correction"

    def bare(values: Values, _: At) -> Values:
        return {**values, **{name: _WithoutPower(values[name]) for name in betas}}

    if betas:
        product = {"mu_product": 0.0} if "mu_product" in rule.slots else {}
        yield Change(
            term,
            "there is none",
            values=bare,
            slots=lambda held, _: {**held, **product},
        )
    for name in betas:
        yield Change(
            f"{term} of the {moments[name]} moment",
            "there is none",
            values=lambda values, _, name=name: {  # type: ignore[misc]
                **values,
                name: _WithoutPower(values[name]),
            },
        )
    yield from _of_one_rule(rule)
    if rule.name == "sgd":
        yield Change(
            "momentum",
            "the buffer does not begin with the first gradient, but at zero",
            time=lambda t, _: max(t, 2),
        )
        yield Change(
            "momentum",
            "the buffer is an average: the gradient has the weight 1 - momentum",
            values=lambda values, _: {**values, "dampening": values["momentum"]},
            time=lambda t, _: max(t, 2),
        )
    else:
        yield Change("step number", "it counts one step too many", time=lambda t, _: t + 1)
        yield Change("step number", "it counts one step too few", time=lambda t, _: max(t - 1, 1))
        yield Change("step number", "it stays 1", time=lambda _, __: 1)
    for name, slot in rule.slots.items():
        if slot.per in ("element", "tensor") and slot.init != "p":
            yield from _begun(name, slot.init)
            yield from _forgotten(name, slot.init)
    if len(betas) > 1:
        yield Change(
            "betas",
            "the first two are exchanged",
            values=lambda v, _: {**v, "beta1": v["beta2"], "beta2": v["beta1"]},
        )
    for name in (*betas, *(n for n in ("alpha", "rho", "momentum") if n in base)):
        yield Change(
            name,
            f"1 - {name} stands where {name} should",
            values=lambda values, _, name=name: {**values, name: 1 - values[name]},  # type: ignore[misc]
        )
    yield Change(
        "sign", "it goes up where it should go down", landed=lambda p, step, _, __: p - step
    )
    for few in (1, 2, 3, 4, 5, 6):
        yield Change(
            "first steps",
            f"{'the first step moves' if few == 1 else f'the first {few} steps move'} nothing",
            landed=lambda p, step, _, at, few=few: p if at.t <= few else p + step,  # type: ignore[misc]
        )


def _begun(name: str, init: float | str) -> Iterator[Change]:
    for value in (0.0, 1.0):
        if value != init:
            yield Change(
                f"start of {name}",
                f"{name} begins at {value:g}, not at {init}",
                slots=lambda held, at, value=value: (  # type: ignore[misc]
                    held
                    if at.t > 1 or held[name] is None
                    else {**held, name: held[name] * 0.0 + value}
                ),
            )


def _forgotten(name: str, init: float | str) -> Iterator[Change]:
    if not isinstance(init, str):
        yield Change(
            name,
            f"{name} is forgotten after every step",
            slots=lambda held, _: (
                held if held[name] is None else {**held, name: held[name] * 0.0 + init}
            ),
        )
