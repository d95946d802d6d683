"""The rules as optax gradient transformations.

Each is generated from the rule itself: the formula runs on JAX arrays, so it jits, vmaps,
differentiates and shards like any other optax transformation. Needs ``pip install
"steepest[optax]"``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from steepest.adapters._auxiliary import auxiliary_of
from steepest.adapters._leaves import Follower, followers
from steepest.adapters._meaning import meant, row_of
from steepest.errors import InputError, UnsupportedError
from steepest.extras import need
from steepest.rules import Rule

if TYPE_CHECKING:
    import optax

__all__ = ["RuleState", "averaged", "transform"]

_SPELLING = {
    "learning_rate": "lr",
    "b1": "beta1",
    "b2": "beta2",
    "b3": "beta3",
    "initial_scale": "initial_accumulator_value",
}
"""optax's names for the rules' hyperparameters."""


class RuleState(NamedTuple):
    """What a transformation remembers.

    Attributes:
        count: How many steps were done: an int32 scalar.
        slots: By name a tree like the parameters', with an empty node where a parameter has no
            such slot; for what there is one number of in all, that number.
    """

    count: Any
    slots: dict[str, Any]


def transform(
    rule: str,
    learning_rate: float | Callable[[Any], Any] | None = None,
    *,
    dialect: str | None = None,
    mask: Any = None,
    auxiliary: Mapping[str, Any] | None = None,
    outputs_last: bool = True,
    **values: Any,
) -> optax.GradientTransformationExtraArgs:
    """A rule as an optax transformation; its updates are what is added to the parameters.

    The parameters must be handed to ``update``. A slot has its parameter's dtype; parameters of 16
    bits are computed with in 32. Steps are counted from 1 for all parameters together. As in optax
    itself, ``1 - beta**t`` is computed in the precision of JAX's default float.

    Args:
        rule: A rule's name, with modifiers if wanted: ``"adadelta"``, ``"cautious(adamw)"``. In a
            dialect also that library's own name: ``"nadamw"``.
        learning_rate: A number, or a schedule: a function of the number of steps done so far.
            Default: the rule's; the dialect ``"optax"`` has one only where optax has.
        dialect: Whose meaning the defaults are: None or ``"torch"`` for `torch.optim`'s,
            ``"optax"``, or another library of docs/dialects.md.
        mask: Where weight decay applies: a tree of booleans like the parameters', or a function
            that makes one from them. Default: everywhere.
        auxiliary: For a rule for matrices: values for the parameters that are none (vectors,
            embeddings, the last layer), and ``lr_ratio``, their learning rate as a multiple.
        outputs_last: A layer's weights end with the axis of its outputs, as in Flax and Haiku;
            False for Equinox. Matters to rules for matrices and to ``centralised``.
        values: Hyperparameters and options under the rule's names or optax's (``b1``). A
            hyperparameter may be a function of the number of steps done, too.

    Returns:
        The transformation; its state is a `RuleState`.

    Raises:
        InputError: For an unknown name or a value that cannot be, or if optax is not installed.
        UnsupportedError: For rules whose formula looks at the number of the step (``soap``,
            ``shampoo``): under ``jax.jit`` nobody can.

    >>> import jax.numpy as jnp, optax, steepest
    >>> adadelta = steepest.optax.transform("adadelta", learning_rate=0.5)
    >>> params = {"w": jnp.ones(3)}
    >>> state = adadelta.init(params)
    >>> updates, state = adadelta.update({"w": jnp.full(3, 0.1)}, state, params)
    >>> print(optax.apply_updates(params, updates)["w"])
    [0.998... 0.998... 0.998...]
    """
    need("optax", extra="optax")
    from steepest.adapters._optax_engine import Engine
    from steepest.adapters._traceable import check_traceable

    given = dict(values)
    if learning_rate is not None:
        given["learning_rate"] = learning_rate
    chosen, own = meant(rule, given, dialect=dialect, spelling=_SPELLING)
    if "lr" not in own:
        own["lr"] = _default_rate(chosen, rule, own, dialect)
    second = auxiliary_of(chosen, own, auxiliary, dialect=dialect, spelling=_SPELLING)
    for one in (chosen, *(second[:1] if second else ())):
        reason = check_traceable(one)
        if reason is not None:
            raise UnsupportedError(
                f"{one.name} cannot be an optax transformation: {reason}; train it with "
                f"steepest.optim in torch, or take muon"
            )
    ratio = second[2] if second else 1.0

    def follow(named: list[tuple[str, tuple[int, ...]]]) -> list[Follower]:
        return followers(
            (chosen, own), second[:2] if second else None, named, outputs_last=outputs_last
        )

    engine = Engine(chosen, own, follow, mask, ratio)
    return engine.transformation()


def _default_rate(rule: Rule, name: str, values: Mapping[str, Any], dialect: str | None) -> Any:
    """The rule's own default; in the dialect of optax the one that its function has, if any."""
    row = row_of(name, values, dialect=dialect)
    if row is None or dialect != "optax":
        return rule.hyperparameters["lr"]
    module, attribute = row.path.split(":")
    function = getattr(importlib.import_module(module), attribute)
    default = inspect.signature(function).parameters["learning_rate"].default
    if default in (inspect.Parameter.empty, None):
        raise InputError(f"{module}.{attribute} has no default learning rate: give learning_rate=")
    return default


def averaged(
    rule: str, params: Any, state: Any, *, dialect: str | None = None, **values: Any
) -> Any:
    """The averaged parameters of a rule that keeps them: evaluate these, and train the others.

    Args:
        rule: The name that `transform` was given.
        params: The parameters that are trained.
        state: The transformation's state.
        dialect: As given to `transform`.
        values: As given to `transform`.

    Raises:
        InputError: If the rule averages nothing, or the state is not a `RuleState`.

    >>> import jax.numpy as jnp, steepest
    >>> free = steepest.optax.transform("schedulefree_sgd", learning_rate=1.0)
    >>> w = jnp.zeros(1)
    >>> state = free.init(w)
    >>> for _ in range(2):
    ...     step, state = free.update(jnp.ones(1), state, w)
    ...     w = w + step
    >>> print(averaged("schedulefree_sgd", w, state))      # the mean of -1 and -2
    [-1.5]
    """
    jax = need("jax", extra="optax")
    chosen, own = meant(rule, values, dialect=dialect, spelling=_SPELLING)
    if chosen.average is None:
        raise InputError(f"{chosen.name} keeps no average of the parameters")
    if not isinstance(state, RuleState):
        raise InputError(
            f"expected the RuleState of the transformation, got {type(state).__name__}; in a chain "
            "it is one of the elements of the state"
        )
    leaves, tree = jax.tree_util.tree_flatten(params)
    columns = {
        name: tree.flatten_up_to(column)
        for name, column in state.slots.items()
        if chosen.slots[name].per != "all"
    }
    found = [
        chosen.averaged(p, {name: column[i] for name, column in columns.items()}, own)
        for i, p in enumerate(leaves)
    ]
    return jax.tree_util.tree_unflatten(tree, found)
