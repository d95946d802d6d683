"""Where ε stands under a gradient that is divided by the root of its second moment."""

from __future__ import annotations

from typing import Any

from steepest.rules._ops import sqrt

__all__ = ["EPS_MODES", "root"]

EPS_MODES = ("outside", "inside", "hat")


def root(moment: Any, eps: Any, *, eps_mode: str, correction: Any = None) -> Any:
    r"""The root of a second moment v, with its bias correction c and with ε against zero.

    * ``outside``: :math:`\sqrt{v/c} + \epsilon`, the Adam paper's algorithm 1, torch, optax;
    * ``hat``: :math:`(\sqrt{v} + \epsilon) / \sqrt{c}`, the :math:`\hat\epsilon` at the end of the
      Adam paper's section 2, TensorFlow, Keras;
    * ``inside``: :math:`\sqrt{v/c + \epsilon}`, optax's ``eps_root``, Keras's RMSprop and Adagrad.

    >>> [root(4.0, 1.0, eps_mode=mode, correction=0.25) for mode in ("outside", "hat")]
    [5.0, 6.0]
    >>> root(15.0, 1.0, eps_mode="inside")
    4.0
    """
    if eps_mode == "hat" and correction is not None:
        return (sqrt(moment) + eps) / sqrt(correction)
    corrected = moment if correction is None else moment / correction
    return sqrt(corrected + eps) if eps_mode == "inside" else sqrt(corrected) + eps
