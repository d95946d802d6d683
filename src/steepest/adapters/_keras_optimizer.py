"""The Keras optimizer that runs a rule; imported when Keras is there."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from steepest.adapters._auxiliary import auxiliary_of
from steepest.adapters._leaves import Follower, followers
from steepest.adapters._meaning import meant, row_of
from steepest.errors import UnsupportedError
from steepest.rules import Rule

__all__ = ["RuleOptimizer"]

_SPELLING = {
    "learning_rate": "lr",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "beta_2_decay": "beta2_decay",
    "clip_threshold": "d",
    "epsilon": "eps",
    "epsilon_1": "eps1",
    "epsilon_2": "eps2",
}
_SPELLING_OF = {"rmsprop": {"rho": "alpha"}}
"""Keras's names for the rules' hyperparameters."""

_BASE = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)
"""What Keras's base class does."""


@dataclass(frozen=True)
class _Settled:
    """What was asked for, and what it comes to.

    Attributes:
        asked: The arguments, for the configuration.
        rule: The main rule.
        values: Its hyperparameters and options that are not at their default.
        auxiliary: For a rule for matrices: the other rule, its values, and its learning rate as a
            multiple of the main one.
    """

    asked: Mapping[str, Any]
    rule: Rule
    values: Mapping[str, Any]
    auxiliary: tuple[Rule, Mapping[str, Any], float] | None


@keras.saving.register_keras_serializable(package="steepest")
class RuleOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """A rule as a Keras optimizer; make one with `steepest.keras.optimizer`."""

    def __init__(
        self,
        rule: str,
        learning_rate: Any = None,
        *,
        dialect: str | None = None,
        auxiliary: Mapping[str, Any] | None = None,
        weight_decay: float | None = None,
        name: str | None = None,
        **values: Any,
    ) -> None:
        backend = keras.backend.backend()
        if backend not in ("torch", "jax"):
            raise UnsupportedError(
                f"rules run on torch and JAX, and Keras runs on {backend} here; set "
                "KERAS_BACKEND=torch or KERAS_BACKEND=jax before Keras is imported"
            )
        base = {key: values.pop(key) for key in _BASE if key in values}
        asked = {
            "rule": rule,
            "dialect": dialect,
            "auxiliary": dict(auxiliary) if auxiliary else None,
            "weight_decay": weight_decay,
            **values,
        }
        rate, beside, settled = _settle(asked, learning_rate)
        if backend == "jax":
            _check_traceable(settled)
        title = name or re.sub(r"\W+", "_", rule.lower()).strip("_")
        super().__init__(learning_rate=rate, weight_decay=beside, name=title, **base)
        self._settled = settled

    def build(self, variables: Sequence[Any]) -> None:
        """Make the slots of every variable."""
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        settled = self._settled
        second = settled.auxiliary[:2] if settled.auxiliary else None
        named = [(v.path.replace("/", "."), tuple(v.shape)) for v in variables]
        self._followers = followers(
            (settled.rule, settled.values), second, named, outputs_last=True
        )
        self._slots: list[dict[str, Any]] = []
        self._copies: list[list[str]] = []
        common: dict[str, Any] = {}
        for v, follower in zip(variables, self._followers, strict=True):
            own: dict[str, Any] = {}
            copies = []
            if not self._overwrite_variable_with_gradient(v):
                for name, (shape, start) in follower.starts(v.shape).items():
                    per = follower.rule.slots[name].per
                    if per == "all" and name in common:
                        own[name] = common[name]
                        continue
                    own[name] = self._slot(v, name, shape, per, 0.0 if start == "p" else start)
                    if start == "p":
                        own[name].assign(ops.copy(v))  # JAX gives buffers away, and each once
                        copies.append(name)
                    if per == "all":
                        common[name] = own[name]
            self._slots.append(own)
            self._copies.append(copies)

    def _slot(self, v: Any, name: str, shape: tuple[int, ...], per: str, start: Any) -> Any:
        if not isinstance(start, (int, float)):  # a schedule
            start = float(ops.convert_to_numpy(self.learning_rate))
        begin = keras.initializers.Constant(start)
        if per == "element":
            return self.add_variable_from_reference(v, name=name, initializer=begin)
        single = per in ("tensor", "all")
        dtype = _working(v.dtype) if single else v.dtype
        path = name if per == "all" else f"{v.path.replace('/', '_')}_{name}"
        return self.add_variable(shape=shape, initializer=begin, dtype=dtype, name=path)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        # The last call before the first step: weights may have been loaded since the slots were
        # made as copies of them.
        first = ops.equal(ops.convert_to_tensor(self.iterations), 0)
        for v in variables:
            i = self._get_variable_index(v)
            for name in self._copies[i]:
                slot = self._slots[i][name]
                p, held = ops.convert_to_tensor(v), ops.convert_to_tensor(slot)
                self.assign(slot, ops.stop_gradient(ops.where(first, p, held)))
        super()._apply_weight_decay(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable; rules that sum over all variables take all at once."""
        self._backend_update_step([gradient], [variable], learning_rate)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        indices = [self._get_variable_index(v) for v in trainable_variables]
        follow = [self._followers[i] for i in indices]
        t = _step_number(self.iterations)
        jobs: list[Any] = []
        for v, g, i in zip(trainable_variables, grads, indices, strict=True):
            p = _wide(v)
            slots = {
                name: _wide(x, single=self._followers[i].rule.slots[name].per in ("tensor", "all"))
                for name, x in self._slots[i].items()
            }
            gradient = ops.cast(ops.stop_gradient(g), p.dtype)
            jobs.append((p, gradient, slots, t, self._now(follow[len(jobs)], v, learning_rate)))
        parts = [f.sums(*job) for f, job in zip(follow, jobs, strict=True) if f.rule.has_totals]
        totals = tuple(sum(column[1:], start=column[0]) for column in zip(*parts, strict=True))
        for v, i, follower, job in zip(trainable_variables, indices, follow, jobs, strict=True):
            step, new = follower.step(*job, totals=totals)
            self.assign(v, ops.cast(job[0] + step, v.dtype))
            for name, value in new.items():
                slot = self._slots[i][name]
                self.assign(slot, ops.cast(value, slot.dtype))

    def _now(self, follower: Follower, v: Any, learning_rate: Any) -> dict[str, Any]:
        """The hyperparameters and options of this step for a variable."""
        lr = ops.cast(ops.convert_to_tensor(learning_rate), _working(v.dtype))
        if self._settled.auxiliary and follower.rule.name != self._settled.rule.name:
            lr = lr * self._settled.auxiliary[2]
        values = {**follower.values, "lr": lr}
        if "weight_decay" in follower.rule.hyperparameters and not self._use_weight_decay(v):
            values["weight_decay"] = 0.0
        return values

    def get_config(self) -> dict[str, Any]:
        """What makes the same optimizer again, without its state."""
        config = super().get_config()
        return {**config, **self._settled.asked}


def _settle(asked: Mapping[str, Any], rate: Any) -> tuple[Any, float | None, _Settled]:
    """The learning rate, the decay that is Keras's own work, and the rest."""
    about = ("rule", "dialect", "auxiliary")
    name, dialect, auxiliary = (asked[key] for key in about)
    given = {k: v for k, v in asked.items() if k not in about and v is not None}
    if isinstance(rate, (int, float)):
        given["learning_rate"] = rate = float(rate)
    spelling = {**_SPELLING, **_SPELLING_OF.get(name.lower(), {})}
    rule, values = meant(name, given, dialect=dialect, spelling=spelling)
    beside = None
    if dialect == "keras" and rule.kind != "matrix":
        # Keras shrinks the variable before the step, and LAMB and Adafactor measure it then
        beside = values.get("weight_decay", rule.hyperparameters["weight_decay"]) or None
        values["weight_decay"] = 0.0
    if rate is None:
        rate = _default_rate(rule, name, values, dialect)
    values["lr"] = rate
    second = auxiliary_of(rule, values, auxiliary, dialect=dialect, spelling=spelling)
    return rate, beside, _Settled(asked, rule, values, second)


def _default_rate(rule: Rule, name: str, values: Mapping[str, Any], dialect: str | None) -> Any:
    """The rule's own default; in the dialect of Keras that of its class."""
    row = row_of(name, values, dialect=dialect)
    if row is None or dialect != "keras":
        return rule.hyperparameters["lr"]
    module, attribute = row.path.split(":")
    cls = getattr(importlib.import_module(module), attribute)
    return inspect.signature(cls).parameters["learning_rate"].default


def _check_traceable(settled: _Settled) -> None:
    from steepest.adapters._traceable import check_traceable

    second = settled.auxiliary
    for one in (settled.rule, second[0]) if second else (settled.rule,):
        reason = check_traceable(one)
        if reason is not None:
            raise UnsupportedError(
                f"{one.name} cannot run on Keras's JAX backend: {reason}; on the torch backend it "
                "can (KERAS_BACKEND=torch)"
            )


def _step_number(iterations: Any) -> Any:
    """The number of this step, from 1, in a form in which powers of it keep their digits."""
    done = ops.convert_to_tensor(iterations)
    if keras.backend.backend() == "jax":
        return done + 1
    return int(done) + 1 if done.device.type == "cpu" else done.double() + 1


def _working(dtype: str) -> str:
    """What is computed with: at least 32 bits."""
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _wide(x: Any, *, single: bool = False) -> Any:
    value = ops.stop_gradient(ops.convert_to_tensor(x))
    if single and keras.backend.backend() == "torch":
        return value.double()
    return ops.cast(value, _working(x.dtype))
