"""What the papers say, in float64 NumPy: the rules that torch.optim has too.

Written from the papers and torch's documentation, without looking at `rules`; one step of one
tensor each, ``(p, g, t, s, h) -> p``, as in `steepest.testing.oracles_modern`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from steepest.testing.oracles_modern import ORACLES_MODERN, Oracle, _apply, _l2

__all__ = ["ORACLES"]


def sgd(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Sutskever et al. 2013 as torch has it: b ← μ b + (1 - τ) g, with b = g at first."""
    g = _l2(p, g, h)
    if h.momentum == 0:
        return _apply(p, h.lr * g, h)
    s["b"] = h.momentum * s["b"] + (1 - h.dampening) * g if "b" in s else g
    return _apply(p, h.lr * (g + h.momentum * s["b"] if h.nesterov else s["b"]), h)


def adagrad(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Duchi et al. 2011, the diagonal version; torch's rate η / (1 + (t - 1) η_d)."""
    g = _l2(p, g, h)
    s["sum"] = s.get("sum", h.initial_accumulator_value) + g**2
    rate = h.lr / (1 + (t - 1) * h.lr_decay)
    return _apply(p, rate * g / (np.sqrt(s["sum"]) + h.eps), h)


def rmsprop(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Tieleman & Hinton 2012, lecture 6e; centred as arXiv:1308.0850, equations 38 to 41."""
    g = _l2(p, g, h)
    s["n"] = h.alpha * s.get("n", 0.0) + (1 - h.alpha) * g**2
    variance = s["n"]
    if h.centered:
        s["g"] = h.alpha * s.get("g", 0.0) + (1 - h.alpha) * g
        variance = s["n"] - s["g"] ** 2
    s["b"] = h.momentum * s.get("b", 0.0) + g / (np.sqrt(variance) + h.eps)
    return _apply(p, h.lr * s["b"], h)


def adadelta(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1212.5701, algorithm 1: RMS[x] = sqrt(E[x²] + ε)."""
    g = _l2(p, g, h)
    s["g2"] = h.rho * s.get("g2", 0.0) + (1 - h.rho) * g**2
    dx = -np.sqrt(s.get("x2", 0.0) + h.eps) / np.sqrt(s["g2"] + h.eps) * g
    s["x2"] = h.rho * s.get("x2", 0.0) + (1 - h.rho) * dx**2
    return _apply(p, -h.lr * dx, h)


def adam(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1412.6980, algorithm 1; AMSGrad's maximum of the uncorrected moment, as torch."""
    g = _l2(p, g, h)
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g**2
    v = s["v"]
    if h.amsgrad:
        v = s["vmax"] = np.maximum(s.get("vmax", 0.0), v)
    m_hat, v_hat = s["m"] / (1 - h.beta1**t), v / (1 - h.beta2**t)
    return _apply(p, h.lr * m_hat / (np.sqrt(v_hat) + h.eps), h)


def nadam(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Dozat 2016, algorithm 2, with the schedule of μ from its section 3."""
    g = _l2(p, g, h)

    def mu(i: int) -> float:
        return float(h.beta1 * (1 - 0.5 * 0.96 ** (i * h.momentum_decay)))

    product = np.prod([mu(i) for i in range(1, t + 1)])
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["n"] = h.beta2 * s.get("n", 0.0) + (1 - h.beta2) * g**2
    m_hat = mu(t + 1) * s["m"] / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
    return _apply(p, h.lr * m_hat / (np.sqrt(s["n"] / (1 - h.beta2**t)) + h.eps), h)


def radam(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1908.03265, algorithm 2, with torch's threshold of 5."""
    g = _l2(p, g, h)
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g**2
    m_hat = s["m"] / (1 - h.beta1**t)
    rho_inf = 2 / (1 - h.beta2) - 1
    rho = rho_inf - 2 * t * h.beta2**t / (1 - h.beta2**t)
    if rho <= 5:
        return _apply(p, h.lr * m_hat, h)
    adaptive = np.sqrt(1 - h.beta2**t) / (np.sqrt(s["v"]) + h.eps)
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return _apply(p, h.lr * m_hat * r * adaptive, h)


def adamax(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1412.6980, algorithm 2; torch adds ε to |g|."""
    g = _l2(p, g, h)
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["u"] = np.maximum(h.beta2 * s.get("u", 0.0), np.abs(g) + h.eps)
    return _apply(p, h.lr / (1 - h.beta1**t) * s["m"] / s["u"], h)


def asgd(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Polyak & Juditsky 1992, with the rates of Bottou's SGD that torch documents."""
    g = _l2(p, g, h)
    eta = s.get("eta", h.lr)
    p = (1 - h.lambd * eta) * p - eta * g
    s["ax"] = s.get("ax", 0.0) + s.get("mu", 1.0) * (p - s.get("ax", 0.0))
    s["eta"] = h.lr / (1 + h.lambd * h.lr * t) ** h.power
    s["mu"] = 1 / max(1.0, t - h.t0)
    return p


def rprop(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """Riedmiller & Braun 1993, without weight backtracking (the variant called iRprop-)."""
    before = s.get("g", np.zeros_like(p))
    size = s.get("size", np.full_like(p, h.lr))
    same, turned = g * before > 0, g * before < 0
    size = np.where(same, size * h.eta_plus, np.where(turned, size * h.eta_minus, size))
    s["size"] = np.clip(size, h.step_min, h.step_max)
    s["g"] = np.where(turned, 0.0, g)
    return p - np.sign(s["g"]) * s["size"]


ORACLES: Mapping[str, Oracle] = {
    **{
        oracle.__name__: oracle
        for oracle in (adadelta, adagrad, adam, adamax, asgd, nadam, radam, rmsprop, rprop, sgd)
    },
    "adamw": adam,  # with the defaults of the rule adamw: decay="decoupled"
    **ORACLES_MODERN,
}
"""One step of one tensor, by the rule's name."""
