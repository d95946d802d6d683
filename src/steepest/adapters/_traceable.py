"""Whether JAX can trace a rule's formula; imported when JAX is there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from steepest.adapters._leaves import Follower
from steepest.rules import Rule

__all__ = ["check_traceable"]


def check_traceable(rule: Rule) -> str | None:
    """Why JAX cannot trace a rule's formula; None if it can."""
    follower = Follower(rule, {})
    shape = (4, 3)
    p = jax.ShapeDtypeStruct(shape, jnp.float32)
    slots = {
        name: jax.ShapeDtypeStruct(own, jnp.float32)
        for name, (own, _) in follower.starts(shape).items()
    }
    values = {**rule.hyperparameters, **rule.options}

    def once(p: Any, g: Any, slots: Any, t: Any) -> Any:
        totals = follower.sums(p, g, slots, t, values)
        return follower.step(p, g, slots, t, values, totals)

    try:
        jax.eval_shape(once, p, p, slots, jax.ShapeDtypeStruct((), jnp.int32))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError):
        return "its formula does other work in some steps than in others, which jax.jit cannot know"
    return None
