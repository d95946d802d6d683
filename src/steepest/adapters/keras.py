"""The rules as Keras 3 optimizers, on the torch and JAX backends.

Each is a `keras.optimizers.Optimizer` that is generated from the rule itself. Needs ``pip install
"steepest[keras]"``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from steepest.extras import need

if TYPE_CHECKING:
    import keras

__all__ = ["optimizer", "register"]


def optimizer(
    rule: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    *,
    dialect: str | None = None,
    auxiliary: Mapping[str, Any] | None = None,
    **values: Any,
) -> keras.optimizers.Optimizer:
    """A rule as a Keras optimizer: for ``model.compile``, or for a loop of one's own.

    Everything that Keras's base class does, it does: schedules, ``clipnorm``, ``clipvalue``,
    ``global_clipnorm``, ``use_ema``, ``loss_scale_factor``, ``gradient_accumulation_steps``,
    ``exclude_from_weight_decay``, saving inside of ``.keras`` files. Steps are counted from 1 for
    all variables together.

    Args:
        rule: A rule's name, with modifiers if wanted: ``"adamw"``, ``"cautious(adamw)"``. In the
            dialect ``"keras"`` also its class there: ``"Nadam"``.
        learning_rate: A number, a Keras schedule, or a function without arguments. Default: the
            rule's; in the dialect ``"keras"`` that of its class.
        dialect: Whose meaning the defaults are: None or ``"torch"`` for `torch.optim`'s (an epsilon
            of 1e-8 beside the root of Adam, an L2 penalty for ``weight_decay``), ``"keras"`` (1e-7,
            in another place, and a decay beside the step), or another library of
            docs/dialects.md.
        auxiliary: For a rule for matrices: values for the variables that are none (vectors,
            embeddings, the last layer), and ``lr_ratio``, their learning rate as a multiple.
        values: Hyperparameters and options under Keras's names (``beta_1``, ``epsilon``) or the
            rule's, and the arguments of Keras's base class.

    Raises:
        InputError: For an unknown name or a value that cannot be, or if Keras is not installed.
        UnsupportedError: For another backend than torch and JAX; on JAX for rules whose formula
            looks at the number of the step (``soap``, ``shampoo``).

    >>> import keras, steepest
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> adamw = steepest.keras.optimizer("adamw", learning_rate=1e-3, beta_1=0.95, epsilon=1e-7)
    >>> model.compile(optimizer=adamw, loss="mse")
    >>> isinstance(adamw, keras.optimizers.Optimizer), adamw.name
    (True, 'adamw')
    """
    need("keras", extra="keras")
    from steepest.adapters._keras_optimizer import RuleOptimizer

    return RuleOptimizer(rule, learning_rate, dialect=dialect, auxiliary=auxiliary, **values)


def register() -> None:
    """Let Keras load files that hold our optimizers; nothing else is needed before `optimizer`.

    Keras imports no module that a file names, so a process that loads a model has to say first that
    steepest's class may be in it.
    """
    need("keras", extra="keras")
    importlib.import_module("steepest.adapters._keras_optimizer")
