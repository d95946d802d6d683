"""The modifiers: weight decay, clipping, centralised gradients, cautious steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steepest.rules._modifier import Modifier, Values
from steepest.rules._ops import centred, maximum, mean, minimum, norm, sign, size, sqrt, total

__all__ = ["DECAY", "DECOUPLED", "L2", "MODIFIERS", "PROXIMAL"]


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _penalised(p: Any, g: Any, values: Values, _: tuple[Any, ...]) -> Any:
    if values["decay"] != "l2" or _is_zero(values["weight_decay"]):
        return g
    return g + values["weight_decay"] * p


def _decayed(p: Any, _: Any, step: Any, values: Values) -> Any:
    decay, rate = values["decay"], values["weight_decay"]
    if decay == "l2" or _is_zero(rate):
        return step
    if decay == "independent":
        return step - rate * p
    rate = values["lr"] * rate
    shrunk = step - rate * p
    return shrunk / (1 + rate) if decay == "proximal" else shrunk


DECAY = Modifier(
    "decay",
    gradient=_penalised,
    step=_decayed,
    hyperparameters={"weight_decay": 0.0},
    options={"decay": "l2"},
    choices={"decay": ("l2", "decoupled", "independent", "proximal")},
    paper="arXiv:1711.05101",
)
r"""Weight decay λ, off by default, in one of its meanings (η: the learning rate of this step).

* ``l2``: :math:`g \leftarrow g + \lambda p`, the gradient of :math:`\tfrac{\lambda}{2}|p|^2`.
* ``decoupled``: :math:`\Delta \leftarrow \Delta - \eta \lambda p` beside the step, as torch.optim,
  Keras and optax have AdamW.
* ``independent``: :math:`\Delta \leftarrow \Delta - \lambda p`, whatever η is: the ``fixed_decay``
  of pytorch_optimizer. Loshchilov & Hutter (arXiv:1711.05101, algorithm 2) and Wortsman et al.
  (arXiv:2309.14322) mean by it :math:`\Delta - \eta_t \lambda p` with the *schedule's multiplier*
  :math:`\eta_t` and not with the rate: the same while the rate is constant; under a schedule give
  :math:`\eta_t \lambda` for λ. As in those papers λ is then of the order of η times the usual λ.
* ``proximal``: :math:`\Delta \leftarrow (\Delta - \eta \lambda p) / (1 + \eta \lambda)`, the
  implicit step that Adan takes (arXiv:2208.06677, algorithm 1).
"""

DECOUPLED = replace(DECAY, options={"decay": "decoupled"})
"""Weight decay for rules that have it beside the step from the start."""

PROXIMAL = replace(DECAY, options={"decay": "proximal"})
"""Weight decay for rules that take it as an implicit step."""

L2 = Modifier(
    "decay",
    gradient=_penalised,
    hyperparameters={"weight_decay": 0.0},
    options={"decay": "l2"},
    choices={"decay": ("l2",)},
)
"""Weight decay for rules whose memory has to move with the parameter: only an L2 penalty."""


def _clipped_by_value(_: Any, g: Any, values: Values, __: tuple[Any, ...]) -> Any:
    return minimum(maximum(g, -values["max_value"]), values["max_value"])


CLIP_VALUE = Modifier(
    "clip_value",
    gradient=_clipped_by_value,
    hyperparameters={"max_value": 1.0},
    paper="https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html",
)
r"""Each element of the gradient is clipped: :math:`g \leftarrow \max(-c, \min(c, g))`."""


def _clipped_by_norm(_: Any, g: Any, values: Values, __: tuple[Any, ...]) -> Any:
    return g * minimum(values["max_norm"] / (norm(g) + 1e-6), 1.0)


CLIP_NORM = Modifier(
    "clip_norm",
    gradient=_clipped_by_norm,
    hyperparameters={"max_norm": 1.0},
    kind="norms",
    paper="arXiv:1211.5063",
)
r"""The gradient of each tensor is clipped: :math:`g \leftarrow g \min(1, c / (|g| + 10^{-6}))`,
with the :math:`10^{-6}` of torch.nn.utils.clip_grad_norm_."""


def _square(_: Any, g: Any, __: Values) -> tuple[Any, ...]:
    return (total(g * g),)


def _clipped_globally(_: Any, g: Any, values: Values, totals: tuple[Any, ...]) -> Any:
    (square,) = totals
    return g * minimum(values["max_global_norm"] / (sqrt(square) + 1e-6), 1.0)


CLIP_GLOBAL_NORM = Modifier(
    "clip_global_norm",
    gradient=_clipped_globally,
    sums=_square,
    hyperparameters={"max_global_norm": 1.0},
    kind="norms",
    paper="arXiv:1211.5063",
)
r"""All gradients together are clipped, as torch.nn.utils.clip_grad_norm_ does it:
:math:`g \leftarrow g \min(1, c / (G + 10^{-6}))` with the norm :math:`G` of all gradients."""


def _centralised(_: Any, g: Any, __: Values, ___: tuple[Any, ...]) -> Any:
    return centred(g)


CENTRALISED = Modifier("centralised", gradient=_centralised, kind="norms", paper="arXiv:2004.01461")
r"""Gradient centralisation: from the gradient of every output unit its mean is subtracted,
:math:`g_i \leftarrow g_i - \tfrac1n \sum_j g_{ij}`, for tensors of two axes and more; the raw
gradient, before an L2 penalty is added."""


def _cautious(_: Any, g: Any, step: Any, values: Values) -> Any:
    agrees = maximum(-sign(step) * sign(g), 0.0)
    if values["caution_scale"] == "paper":
        return step * agrees * (size(g) / (total(agrees) + 1))
    return step * agrees / maximum(mean(agrees), 1e-3)


CAUTIOUS = Modifier(
    "cautious",
    step=_cautious,
    options={"caution_scale": "reference"},
    choices={"caution_scale": ("reference", "paper")},
    kind="norms",
    innermost=True,
    paper="arXiv:2411.16085",
)
r"""Only where the step goes down the gradient, and the rest larger for it; the decay is not masked.

:math:`\Delta \leftarrow \Delta \circ \phi \cdot s`, :math:`\phi = [\Delta \circ g < 0]`, where
``caution_scale`` says what :math:`s` is: the authors' code (and timm) has
:math:`1 / \max(\bar\phi, 10^{-3})`, their paper :math:`d / (|\phi|_0 + 1)`.
"""

MODIFIERS = {m.name: m for m in (CAUTIOUS, CENTRALISED, CLIP_GLOBAL_NORM, CLIP_NORM, CLIP_VALUE)}
"""What can be put around a rule by name: ``rules.get("cautious(adamw)")``."""
