"""One step of a rule over a tree of JAX arrays; imported when optax is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steepest.adapters._leaves import Follower
from steepest.adapters.optax import RuleState
from steepest.errors import InputError, UnsupportedError
from steepest.rules import Rule

__all__ = ["Engine"]

Follow = Callable[[list[tuple[str, tuple[int, ...]]]], list[Follower]]


class Engine:
    """What `transform` has settled, as the two functions of a transformation."""

    def __init__(
        self, rule: Rule, values: Mapping[str, Any], follow: Follow, mask: Any, ratio: float
    ) -> None:
        self.rule = rule
        self.rate = values["lr"]
        self.follow = follow
        self.mask = mask
        self.ratio = ratio

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """The pair of functions."""
        return optax.GradientTransformationExtraArgs(self._init, self._update)

    def _followers(self, params: Any) -> list[Follower]:
        named = [
            (jax.tree_util.keystr(path, simple=True, separator="."), tuple(jnp.shape(leaf)))
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        ]
        return self.follow(named)

    def _init(self, params: Any) -> RuleState:
        held, tree = jax.tree_util.tree_flatten(params)
        leaves = [_checked(leaf) for leaf in held]
        count = jnp.zeros((), jnp.int32)
        columns: dict[str, list[Any]] = {}
        common: dict[str, Any] = {}
        for i, (p, follower) in enumerate(zip(leaves, self._followers(params), strict=True)):
            for name, (shape, init) in follower.starts(p.shape).items():
                start = init(count) if callable(init) else init
                per = follower.rule.slots[name].per
                if per == "all":
                    common[name] = jnp.asarray(start, jnp.result_type(float))
                    continue
                dtype = jnp.result_type(float) if per == "tensor" else p.dtype
                slot = jnp.array(p) if start == "p" else jnp.full(shape, start, dtype)
                columns.setdefault(name, [optax.MaskedNode()] * len(leaves))[i] = slot
        whole = {name: jax.tree_util.tree_unflatten(tree, c) for name, c in columns.items()}
        return RuleState(count, {**whole, **common})

    def _update(
        self, updates: Any, state: RuleState, params: Any = None, **_: Any
    ) -> tuple[Any, RuleState]:
        if params is None:
            raise InputError(
                f"{self.rule.name}: update needs the parameters: "
                "transformation.update(gradients, state, params)"
            )
        held, tree = jax.tree_util.tree_flatten(params)
        leaves = [jnp.asarray(leaf) for leaf in held]
        follow = self._followers(params)
        shared = {n for f in follow for n, slot in f.rule.slots.items() if slot.per == "all"}
        common = {name: x for name, x in state.slots.items() if name in shared}
        columns = {n: tree.flatten_up_to(x) for n, x in state.slots.items() if n not in shared}
        slots = [
            common | {n: c[i] for n, c in columns.items() if not isinstance(c[i], optax.MaskedNode)}
            for i in range(len(leaves))
        ]
        grads = [jnp.asarray(g) for g in tree.flatten_up_to(updates)]
        values = self._values(leaves, follow, self._decays(params), state.count)
        jobs = [
            (_wide(p), _wide(g), {name: _wide(x) for name, x in own.items()}, state.count + 1, v)
            for p, g, own, v in zip(leaves, grads, slots, values, strict=True)
        ]
        parts = [f.sums(*job) for f, job in zip(follow, jobs, strict=True) if f.rule.has_totals]
        totals = tuple(sum(column[1:], start=column[0]) for column in zip(*parts, strict=True))
        steps = []
        for i, (follower, job) in enumerate(zip(follow, jobs, strict=True)):
            step, new = follower.step(*job, totals=totals)
            steps.append(step.astype(leaves[i].dtype))
            for name, value in new.items():
                cast = jnp.asarray(value).astype(slots[i][name].dtype)
                if name in shared:
                    common[name] = cast
                else:
                    columns[name][i] = cast
        whole = {name: jax.tree_util.tree_unflatten(tree, c) for name, c in columns.items()}
        kept = {name: {**whole, **common}[name] for name in state.slots}
        return jax.tree_util.tree_unflatten(tree, steps), RuleState(state.count + 1, kept)

    def _decays(self, params: Any) -> list[bool]:
        """Whether each parameter decays."""
        if self.mask is None:
            return [True] * len(jax.tree_util.tree_leaves(params))
        mask = self.mask(params) if callable(self.mask) else self.mask
        tree = jax.tree_util.tree_structure(params)
        if jax.tree_util.tree_structure(mask) != tree:
            raise InputError(
                "mask must be a tree of booleans like the parameters', or a function that makes "
                "one from them"
            )
        return [bool(leaf) for leaf in jax.tree_util.tree_leaves(mask)]

    def _values(
        self, leaves: Sequence[Any], follow: Sequence[Follower], decays: Sequence[bool], count: Any
    ) -> list[dict[str, Any]]:
        """The hyperparameters and options of this step, for each parameter."""
        found = []
        for p, follower, decay in zip(leaves, follow, decays, strict=True):
            values = {
                name: _number(value(count) if callable(value) else value, _working(p.dtype))
                for name, value in {**follower.values, "lr": self.rate}.items()
            }
            if follower.rule.name != self.rule.name:
                values["lr"] = values["lr"] * self.ratio
            if not decay and "weight_decay" in follower.rule.hyperparameters:
                values["weight_decay"] = 0.0
            found.append(values)
        return found


def _checked(leaf: Any) -> Any:
    """A parameter as an array."""
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise UnsupportedError(
            "complex parameters: wrap the transformation in "
            "optax.contrib.split_real_and_imaginary(...)"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UnsupportedError(f"parameters of type {dtype} cannot be trained; mask them out")
    return jnp.asarray(leaf)


def _working(dtype: Any) -> Any:
    """What is computed with: at least 32 bits."""
    return jnp.promote_types(dtype, jnp.float32)


def _wide(x: Any) -> Any:
    return x.astype(_working(x.dtype))


def _number(value: Any, dtype: Any) -> Any:
    """A schedule's or a traced number in the precision of the computation."""
    return value.astype(dtype) if isinstance(value, jax.Array) else value
