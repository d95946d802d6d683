"""What the papers say, in float64 NumPy: the modern rules, written without looking at `rules`.

Every oracle is one step of one tensor, ``(p, g, t, s, h) -> p``, written as the paper's algorithm
changes its variables:

    p   the parameter            t   the number of this step, from 1
    g   its gradient             s   what is remembered: a dict, empty before the first step
    h   hyperparameters          -   attributes, under the rule's names

The two that need all tensors at once take lists, and ``None`` where a gradient is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["ORACLES_MODERN", "Oracle", "prodigy_step"]

Oracle = Callable[[Any, Any, int, dict[str, Any], Any], Any]


def _l2(p: Any, g: Any, h: Any) -> Any:
    return g + h.weight_decay * p if h.decay == "l2" else g


def _apply(p: Any, update: Any, h: Any) -> Any:
    """Subtract an update that is already multiplied by the rate, and decay p as told."""
    if h.decay == "decoupled":
        return (1 - h.lr * h.weight_decay) * p - update
    if h.decay == "independent":
        return (1 - h.weight_decay) * p - update
    if h.decay == "proximal":
        return (p - update) / (1 + h.lr * h.weight_decay)
    return p - update


def lion(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2302.06675, algorithm 2."""
    g = _l2(p, g, h)
    m = s.setdefault("m", np.zeros_like(p))
    c = h.beta1 * m + (1 - h.beta1) * g
    s["m"] = h.beta2 * m + (1 - h.beta2) * g
    return _apply(p, h.lr * np.sign(c), h)


def signum(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1802.04434, algorithm 2 on one worker."""
    g = _l2(p, g, h)
    s["m"] = h.momentum * s.get("m", 0.0) + (1 - h.momentum) * g
    return _apply(p, h.lr * np.sign(s["m"]), h)


def adopt(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2411.02853, algorithms 1 and 2; v_0 is set by the gradient before the first step."""
    g = _l2(p, g, h)
    if t == 1:
        s["m"], s["v"] = np.zeros_like(p), g**2
        return _apply(p, 0.0, h)
    u = g / np.maximum(np.sqrt(s["v"]), h.eps)
    if h.clip:
        c = (t - 1) ** h.clip_exponent
        u = np.clip(u, -c, c)
    s["m"] = h.beta1 * s["m"] + (1 - h.beta1) * u
    s["v"] = h.beta2 * s["v"] + (1 - h.beta2) * g**2
    return _apply(p, h.lr * s["m"], h)


def adabelief(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2010.07468, algorithm 2; rectified as arXiv:1908.03265, algorithm 2."""
    g = _l2(p, g, h)
    b1, b2 = h.beta1, h.beta2
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0.0) + (1 - b2) * (g - s["m"]) ** 2 + h.eps
    belief = s["s"]
    if h.amsgrad:
        belief = s["max"] = np.maximum(s.get("max", 0.0), belief)
    m_hat = s["m"] / (1 - b1**t)
    if not h.rectify:
        return _apply(p, h.lr * m_hat / (np.sqrt(belief / (1 - b2**t)) + h.eps), h)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return _apply(p, h.lr * m_hat, h)
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return _apply(p, h.lr * r * m_hat * np.sqrt(1 - b2**t) / (np.sqrt(belief) + h.eps), h)


def adan(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2208.06677, algorithm 1, with the paper's betas, the weights of the new."""
    g = _l2(p, g, h)
    b1, b2, b3 = 1 - h.beta1, 1 - h.beta2, 1 - h.beta3
    before = s.get("g", g)
    ahead = 1 - b2 if h.difference == "beta2" else b2
    s["m"] = (1 - b1) * s.get("m", 0.0) + b1 * g
    s["v"] = (1 - b2) * s.get("v", 0.0) + b2 * (g - before)
    s["n"] = (1 - b3) * s.get("n", 0.0) + b3 * (g + ahead * (g - before)) ** 2
    s["g"] = g
    m, v, n = (s[name] / (1 - (1 - b) ** t) for name, b in zip("mvn", (b1, b2, b3), strict=True))
    return _apply(p, h.lr / (np.sqrt(n) + h.eps) * (m + ahead * v), h)


def ademamix(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2409.03137, algorithm 1, with its schedulers (appendix A.1)."""
    g = _l2(p, g, h)
    alpha, beta3 = h.alpha_slow, h.beta3
    if h.alpha_warmup:
        alpha = min(t * alpha / h.alpha_warmup, alpha)
    if h.beta3_warmup and t < h.beta3_warmup:
        start, end, part = np.log(h.beta1), np.log(h.beta3), t / h.beta3_warmup
        beta3 = np.exp(start * end / ((1 - part) * end + part * start))
    s["m1"] = h.beta1 * s.get("m1", 0.0) + (1 - h.beta1) * g
    s["m2"] = beta3 * s.get("m2", 0.0) + (1 - beta3) * g
    s["nu"] = h.beta2 * s.get("nu", 0.0) + (1 - h.beta2) * g**2
    m1, nu = s["m1"] / (1 - h.beta1**t), s["nu"] / (1 - h.beta2**t)
    return _apply(p, h.lr * (m1 + alpha * s["m2"]) / (np.sqrt(nu) + h.eps), h)


def _schedule_free(p: Any, u: Any, t: int, s: dict[str, Any], *, lr: Any, beta: Any, h: Any) -> Any:
    """arXiv:2405.15682, algorithm 1, with x kept instead of recovered."""
    s.setdefault("z", p)
    s.setdefault("x", p)
    s["largest"] = max(lr, s.get("largest", 0.0))
    weight = t**h.r * s["largest"] ** h.weight_lr_power
    s["sum"] = s.get("sum", 0.0) + weight
    c = weight / s["sum"] if s["sum"] else 0.0
    s["z"] = s["z"] - lr * u
    s["x"] = (1 - c) * s["x"] + c * s["z"]
    return (1 - beta) * s["z"] + beta * s["x"]


def _warm(t: int, h: Any) -> Any:
    return h.lr * min(t / h.warmup_steps, 1.0) if h.warmup_steps else h.lr


def schedulefree_sgd(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2405.15682, equations 3 to 5."""
    u = g + h.weight_decay * p
    return _schedule_free(p, u, t, s, lr=_warm(t, h), beta=h.momentum, h=h)


def schedulefree_adamw(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2405.15682, algorithm 1; ``denominator``: as the package corrects since version 1.3."""
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g**2
    lr, v = _warm(t, h), s["v"] / (1 - h.beta2**t)
    if h.correction == "rate":
        lr, v = lr * np.sqrt(1 - h.beta2**t), s["v"]
    u = g / (np.sqrt(v) + h.eps) + h.weight_decay * p
    return _schedule_free(p, u, t, s, lr=lr, beta=h.beta1, h=h)


def lamb(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1904.00962, algorithm 2."""
    s["m"] = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * g
    s["v"] = h.beta2 * s.get("v", 0.0) + (1 - h.beta2) * g**2
    m, v = s["m"] / (1 - h.beta1**t), s["v"] / (1 - h.beta2**t)
    r = m / (np.sqrt(v) + h.eps) + h.weight_decay * p
    w_norm, r_norm = np.linalg.norm(p), np.linalg.norm(r)
    trust = w_norm / r_norm if w_norm > 0 and r_norm > 0 else 1.0
    if h.trust_clip:
        trust = min(trust, 1.0)
    if h.adapt == "decayed" and h.weight_decay == 0:
        trust = 1.0
    return p - h.lr * trust * r


def lars(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1708.03888, algorithm 1; the options as timm and optax document them."""
    w = np.linalg.norm(p)
    total = g + h.weight_decay * p
    below = np.linalg.norm(total) if h.ratio == "joint" else np.linalg.norm(g)
    local = 1.0
    if w > 0 and below > 0 and not (h.adapt == "decayed" and h.weight_decay == 0):
        full = below if h.ratio == "joint" else below + h.weight_decay * w
        local = h.trust_coefficient * w / (full + h.eps)
    inside, outside = (h.lr, 1.0) if h.lr_place == "buffer" else (1.0, h.lr)
    v = inside * local * total
    if h.momentum:
        s["v"] = h.momentum * s.get("v", 0.0) + v
        v = v + h.momentum * s["v"] if h.nesterov else s["v"]
    return p - outside * v


def _rms(x: Any) -> Any:
    return np.sqrt(np.mean(x**2))


def adafactor(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1804.04235, algorithms 4 and 5; ``floor`` as torch.optim.Adafactor documents it."""
    b2 = 1 - t**h.beta2_decay
    g2 = g**2 + (h.eps1 if h.eps_mode == "added" else 0.0)
    if g.ndim >= 2:
        s["R"] = b2 * s.get("R", 0.0) + (1 - b2) * g2.mean(-1)
        s["C"] = b2 * s.get("C", 0.0) + (1 - b2) * g2.mean(-2)
        level = s["R"].mean(-1)[..., None, None]
        if h.eps_mode == "floor":
            level = np.maximum(level, h.eps1)
        v = np.einsum("...i,...j->...ij", s["R"], s["C"]) / level
    else:
        s["V"] = v = b2 * s.get("V", 0.0) + (1 - b2) * g2
    if h.eps_mode == "floor":
        v = np.maximum(v, h.eps1**2)
    u = g / np.sqrt(v)
    u = u / max(1.0, _rms(u) / h.d)
    rho = min(h.lr, 1 / np.sqrt(t)) if h.rate == "relative" else h.lr
    alpha = rho if h.rate == "plain" else max(h.eps2, _rms(p)) * rho
    u = alpha * u
    if h.beta1:
        s["m"] = u = h.beta1 * s.get("m", 0.0) + (1 - h.beta1) * u
    return p * (1 - (h.lr if h.decay == "decoupled" else alpha) * h.weight_decay) - u


def prodigy_step(
    params: list[Any], grads: list[Any], times: list[int], state: dict[Any, Any], h: Any
) -> list[Any]:
    """arXiv:2306.06101, algorithm 4 (with η), over all tensors; ε with the new d, as prodigyopt.

    Tensors whose gradient is None are left alone.
    """
    b1, b2 = h.beta1, h.beta2
    b3 = h.beta3 or np.sqrt(b2)
    d = state.setdefault("d", h.d0)
    state.setdefault("max", h.d0)
    live = [i for i, g in enumerate(grads) if g is not None]
    if not live:
        return list(params)
    g = {i: grads[i] + (h.weight_decay * params[i] if h.decay == "l2" else 0.0) for i in live}
    start = state.setdefault("start", {})
    for i in live:
        start.setdefault(i, params[i])
    rate = {}
    for i in live:
        fix = np.sqrt(1 - b2 ** times[i]) / (1 - b1 ** times[i]) if h.use_bias_correction else 1.0
        rate[i] = d * h.lr * fix
    inner = sum(d / h.d0 * rate[i] * np.sum(g[i] * (start[i] - params[i])) for i in live)
    state["r"] = b3 * state.get("r", 0.0) + inner
    for i in live:
        own = state.setdefault(("own", i), {})
        own["m"] = b1 * own.get("m", 0.0) + (1 - b1) * d * g[i]
        own["v"] = b2 * own.get("v", 0.0) + (1 - b2) * d**2 * g[i] ** 2
        along = d if h.safeguard_warmup else rate[i]
        own["s"] = b3 * own.get("s", 0.0) + d / h.d0 * along * g[i]
    length = sum(np.abs(state["own", i]["s"]).sum() for i in live)
    if length > 0:
        hat = h.d_coef * state["r"] / length
        now = max(d, hat) if d == h.d0 else d
        state["max"] = max(state["max"], hat)
        state["d"] = min(state["max"], now * h.growth_rate)
    new = list(params)
    for i in live:
        own = state["own", i]
        u = rate[i] * own["m"] / (np.sqrt(own["v"]) + state["d"] * h.eps)
        shrink = rate[i] * h.weight_decay if h.decay == "decoupled" else 0.0
        new[i] = params[i] - u - shrink * params[i]
    return new


def muon(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """https://kellerjordan.github.io/posts/muon/ by the singular values, not by products."""
    g = _l2(p, g, h)
    s["b"] = h.momentum * s.get("b", 0.0) + (1 - h.momentum) * g
    u = s["b"]
    if h.nesterov:
        late, now = (t + 1, t) if h.correct_bias else (np.inf, np.inf)
        u = (1 - h.momentum) * g / (1 - h.momentum**now) + h.momentum * s["b"] / (
            1 - h.momentum**late
        )
    left, sizes, right = np.linalg.svd(u, full_matrices=False)
    sizes = sizes / max(np.linalg.norm(u), h.eps)
    for _ in range(int(h.ns_steps)):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    m, n = p.shape
    factor = {
        "original": max(1, m / n) ** 0.5,
        "match_rms_adamw": 0.2 * max(m, n) ** 0.5,
        "rms_to_rms": (m / n) ** 0.5,
        "none": 1.0,
    }[h.adjust_lr_fn]
    return _apply(p, h.lr * factor * (left * sizes) @ right, h)


def _inverse_root(x: Any, power: Any) -> Any:
    """By the singular values, which are the eigenvalues of such a matrix."""
    left, sizes, right = np.linalg.svd(x)
    return left @ np.diag(sizes ** (-1 / power)) @ right


def shampoo(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:1802.09568, algorithm 1: L_0 = εI, R_0 = εI."""
    g = _l2(p, g, h)
    m, n = p.shape
    s["L"] = s.get("L", h.eps * np.eye(m)) + g @ g.T
    s["R"] = s.get("R", h.eps * np.eye(n)) + g.T @ g
    if (t - 1) % h.update_freq == 0:
        s["L4"], s["R4"] = _inverse_root(s["L"], h.root), _inverse_root(s["R"], h.root)
    if h.momentum:
        s["m"] = g = h.momentum * s.get("m", 0.0) + (1 - h.momentum) * g
    return _apply(p, h.lr * s["L4"] @ g @ s["R4"], h)


def soap(p: Any, g: Any, t: int, s: dict[str, Any], h: Any) -> Any:
    """arXiv:2409.11321, algorithm 3, and the authors' order of things (first step skipped)."""
    g = _l2(p, g, h)
    b = h.shampoo_beta
    s["L"] = b * s.get("L", 0.0) + (1 - b) * (g @ g.T)
    s["R"] = b * s.get("R", 0.0) + (1 - b) * (g.T @ g)
    if t == 1:
        s["QL"], s["QR"] = (np.linalg.eigh(s[x])[1][:, ::-1] for x in "LR")
        s["M"], s["V"] = np.zeros_like(p), np.zeros_like(p)
        return _apply(p, 0.0, h)
    k = t - 1
    s["M"] = h.beta1 * s["M"] + (1 - h.beta1) * g
    s["V"] = h.beta2 * s["V"] + (1 - h.beta2) * (s["QL"].T @ g @ s["QR"]) ** 2
    ratio = (s["QL"].T @ s["M"] @ s["QR"]) / (np.sqrt(s["V"]) + h.eps)
    scale = h.lr * np.sqrt(1 - h.beta2**k) / (1 - h.beta1**k) if h.correct_bias else h.lr
    new = _apply(p, scale * s["QL"] @ ratio @ s["QR"].T, h)
    if k % h.precondition_frequency == 0:
        for side, moment, axis in (("QL", "L", 0), ("QR", "R", 1)):
            sizes = np.diag(s[side].T @ s[moment] @ s[side])
            order = np.argsort(-sizes)
            s["V"] = np.take(s["V"], order, axis=axis)
            s[side] = np.linalg.qr(s[moment] @ s[side][:, order])[0]
    return new


ORACLES_MODERN: Mapping[str, Oracle] = {
    oracle.__name__: oracle
    for oracle in (
        adabelief,
        adafactor,
        adan,
        ademamix,
        adopt,
        lamb,
        lars,
        lion,
        muon,
        schedulefree_adamw,
        schedulefree_sgd,
        shampoo,
        signum,
        soap,
    )
}
"""One step of one tensor, by the rule's name. Prodigy's is `prodigy_step`."""


def values_of(rule: Any, **values: Any) -> SimpleNamespace:
    """All hyperparameters and options of a rule as the attributes that an oracle reads."""
    return SimpleNamespace(**{**rule.hyperparameters, **rule.options, **values})
