"""The dialects of the first eleven rules, each against the algorithm of the library that has it.

Written as those libraries write them; the table in `rules/_dialects_frameworks.py` says how far the
rules were found to be from the libraries themselves.
"""

import numpy as np
import pytest

from steepest import rules
from steepest.testing.follow import follow, follow_oracle


@pytest.fixture
def is_like(case, distance):
    """Assert that a rule with these values does what a written-out algorithm does."""

    def check(name, algorithm, **values):
        run = case([(4, 3), (5,)], lr=1e-2, **values)
        path, _ = follow(rules.get(name), run.params, run.grads, run.values)
        expected = follow_oracle(algorithm, rules.get(name), run.params, run.grads, run.values)
        assert distance(path, expected) < 1e-12
        torch_like = [
            {k: v for k, v in values.items() if not isinstance(v, str)} for values in run.values
        ]
        plain, _ = follow(rules.get(name), run.params, run.grads, torch_like)
        return distance(path, plain)

    return check


def _moments(g, s, h):
    s["m"] = s.get("m", 0.0) + (g - s.get("m", 0.0)) * (1 - h.beta1)
    s["v"] = s.get("v", 0.0) + (g * g - s.get("v", 0.0)) * (1 - h.beta2)
    return s["m"], s["v"]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_of_keras(is_like, amsgrad):
    def keras(p, g, t, s, h):
        m, v = _moments(g, s, h)
        alpha = h.lr * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
        if h.amsgrad:
            v = s["v_hat"] = np.maximum(s.get("v_hat", 0.0), v)
        return p - p * h.weight_decay * h.lr - m * alpha / (np.sqrt(v) + h.eps)

    values = {"eps": 0.1, "weight_decay": 0.1, "amsgrad": amsgrad}
    assert is_like("adamw", keras, eps_mode="hat", **values) > 1e-3


def test_adam_with_eps_under_the_root_of_optax(is_like):
    def optax(p, g, t, s, h):
        m, v = _moments(g, s, h)
        return p - h.lr * m / (1 - h.beta1**t) / np.sqrt(v / (1 - h.beta2**t) + h.eps)

    assert is_like("adam", optax, eps_mode="inside", eps=0.1) > 1e-3


@pytest.mark.parametrize("eps_mode", ["outside", "inside", "hat"])
def test_amsgrad_of_optax_takes_the_largest_corrected_moment(is_like, eps_mode):
    def optax(p, g, t, s, h):
        m, v = _moments(g, s, h)
        c = 1 - h.beta2**t
        s["max"] = np.maximum(s.get("max", 0.0), v / c)
        root = {
            "outside": np.sqrt(s["max"]) + h.eps,
            "inside": np.sqrt(s["max"] + h.eps),
            "hat": np.sqrt(s["max"]) + h.eps / np.sqrt(c),
        }[h.eps_mode]
        return p - h.lr * m / (1 - h.beta1**t) / root

    assert is_like("adam", optax, amsgrad=True, max_of="corrected", eps_mode=eps_mode, eps=0.1)


def test_nadam_of_optax_has_a_constant_momentum(is_like):
    def optax(p, g, t, s, h):
        m, v = _moments(g, s, h)
        b = h.beta1
        ahead = b * m / (1 - b ** (t + 1)) + (1 - b) * g / (1 - b**t)
        return p - h.lr * ahead / (np.sqrt(v / (1 - h.beta2**t)) + h.eps)

    assert is_like("nadam", optax, momentum_schedule="constant", eps=0.1) > 1e-3


def test_nadam_of_mlcommons_corrects_both_terms_alike(is_like):
    def timm(p, g, t, s, h):
        m, v = _moments(g, s, h)
        ahead = m + (g - m) * (1 - h.beta1)
        below = np.sqrt(v) / np.sqrt(1 - h.beta2**t) + h.eps
        return p - h.lr / (1 - h.beta1**t) * ahead / below

    assert is_like("nadam", timm, momentum_schedule="mlcommons", eps=0.1) > 1e-3


def test_nadam_of_keras_warms_up_within_some_hundred_steps(is_like):
    def keras(p, g, t, s, h):
        u_t = h.beta1 * (1.0 - 0.5 * 0.96**t)
        u_next = h.beta1 * (1.0 - 0.5 * 0.96 ** (t + 1))
        s["u"] = s.get("u", 1.0) * u_t
        m, v = _moments(g, s, h)
        m_hat = u_next * m / (1 - s["u"] * u_next) + (1 - u_t) * g / (1 - s["u"])
        return p - m_hat * h.lr / (np.sqrt(v / (1 - h.beta2**t)) + h.eps)

    is_like("nadam", keras, momentum_decay=1.0, eps=0.1)


@pytest.mark.parametrize("threshold", [4.0, 5.0])
@pytest.mark.parametrize("eps_mode", ["outside", "hat"])
def test_radam_of_optax_and_of_its_paper(is_like, threshold, eps_mode):
    def radam(p, g, t, s, h):
        m, v = _moments(g, s, h)
        rho_inf = 2 / (1 - h.beta2) - 1
        rho = rho_inf - 2 * t * h.beta2**t / (1 - h.beta2**t)
        m_hat = m / (1 - h.beta1**t)
        if rho <= h.threshold:
            return p - h.lr * m_hat
        r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        c = np.sqrt(1 - h.beta2**t)
        below = np.sqrt(v) / c + (h.eps if h.eps_mode == "outside" else h.eps / c)
        return p - h.lr * r * m_hat / below

    is_like("radam", radam, eps_mode=eps_mode, threshold=threshold, eps=0.1)


def test_adamax_of_keras(is_like):
    def keras(p, g, t, s, h):
        s["m"] = s.get("m", 0.0) + (g - s.get("m", 0.0)) * (1 - h.beta1)
        s["u"] = np.maximum(h.beta2 * s.get("u", 0.0), np.abs(g))
        return p - h.lr * s["m"] / ((1 - h.beta1**t) * (s["u"] + h.eps))

    assert is_like("adamax", keras, eps_mode="outside", eps=0.1) > 1e-6


def test_adagrad_of_keras_and_optax(is_like):
    def keras(p, g, t, s, h):
        s["a"] = s.get("a", h.initial_accumulator_value) + g * g
        return p - h.lr * g / np.sqrt(s["a"] + h.eps)

    assert is_like("adagrad", keras, eps_mode="inside", eps=0.1, initial_accumulator_value=0.1)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_rmsprop_of_keras_optax_and_tensorflow(is_like, centered, momentum, start):
    def keras(p, g, t, s, h):
        s["v"] = h.alpha * s.get("v", h.initial_accumulator_value) + (1 - h.alpha) * g * g
        below = s["v"] + h.eps
        if h.centered:
            s["a"] = h.alpha * s.get("a", 0.0) + (1 - h.alpha) * g
            below = below - s["a"] ** 2
        increment = h.lr * g / np.sqrt(below)
        if h.momentum:
            s["b"] = increment = h.momentum * s.get("b", 0.0) + increment
        return p - increment

    assert is_like(
        "rmsprop",
        keras,
        eps_mode="inside",
        lr_place="buffer",
        eps=0.1,
        momentum=momentum,
        centered=centered,
        initial_accumulator_value=start,
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_of_keras_has_the_rate_inside_the_velocity(is_like, nesterov):
    def keras(p, g, t, s, h):
        s["v"] = h.momentum * s.get("v", 0.0) - h.lr * g
        return p + (h.momentum * s["v"] - h.lr * g if h.nesterov else s["v"])

    assert is_like("sgd", keras, lr_place="buffer", momentum=0.9, nesterov=nesterov) > 1e-3


@pytest.mark.parametrize("name", ["adam", "nadam", "sgd", "rmsprop"])
def test_independent_decay_does_not_ask_for_the_rate(name):
    p, g = np.array([2.0]), np.zeros(1)
    rule = rules.get(name)
    _, slots = follow(rule, [p], [[g]], [{"lr": 0.0}])
    values = {"weight_decay": 0.25, "decay": "independent"}
    for lr in (0.0, 0.5):
        step, *_ = rule(p, g, *slots[0].values(), 2, lr=lr, **values)
        assert step.tolist() == [-0.5]
