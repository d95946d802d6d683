"""What many rules have in common, written once: a modifier takes a formula and returns one."""

from __future__ import annotations

from typing import Any

from steepest.rules._rule import Formula, Modifier

__all__ = ["DECAY"]


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _decayed(formula: Formula) -> Formula:
    r"""Weight decay λ in one of its meanings.

    * ``l2``: :math:`g \leftarrow g + \lambda p`, the gradient of :math:`\tfrac{\lambda}{2}|p|^2`;
    * ``decoupled``: :math:`\Delta \leftarrow \Delta - \eta \lambda p` beside the step
      (Loshchilov & Hutter, arXiv:1711.05101, as torch.optim couples it with the rate η);
    * ``independent``: :math:`\Delta \leftarrow \Delta - \lambda p`, whatever the rate is.
    """

    def decayed(p: Any, g: Any, *slots_t: Any, weight_decay: Any, decay: str, **values: Any) -> Any:
        if _is_zero(weight_decay):
            return formula(p, g, *slots_t, **values)
        if decay == "l2":
            return formula(p, g + weight_decay * p, *slots_t, **values)
        step, *slots = formula(p, g, *slots_t, **values)
        rate = values["lr"] * weight_decay if decay == "decoupled" else weight_decay
        return step - rate * p, *slots

    decayed.__doc__ = formula.__doc__
    return decayed


DECAY = Modifier(
    "weight decay",
    _decayed,
    hyperparameters={"weight_decay": 0.0},
    options={"decay": "l2"},
    choices={"decay": ("l2", "decoupled", "independent")},
)
"""Weight decay, off by default, meaning an L2 penalty unless told otherwise."""
