"""What the audit says of optimizers that are right, and how it behaves towards its caller."""

from __future__ import annotations

import functools
import json

import pytest
import torch

import steepest
from steepest import optim
from steepest.errors import InputError

RULES = [
    ("SGD", "sgd"),
    ("Adagrad", "adagrad"),
    ("RMSprop", "rmsprop"),
    ("Adadelta", "adadelta"),
    ("Adam", "adam"),
    ("AdamW", "adamw"),
    ("NAdam", "nadam"),
    ("RAdam", "radam"),
    ("Adamax", "adamax"),
    ("ASGD", "asgd"),
    ("Rprop", "rprop"),
    ("Adafactor", "adafactor"),
]


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[rule for _, rule in RULES])
def test_torchs_own_classes_follow_their_rules_to_rounding(name, rule):
    found = steepest.audit(getattr(torch.optim, name), rule)
    assert found.exit_code == 0, found.sentence()
    assert found.off < 1e-13
    assert (found.dtype, found.precision, found.per_group) == ("float64", "float64", False)
    assert {k: v for k, v in found.dialect.items() if k != "eps1"} == {}
    assert f"torch.optim:{name}" in found.like


@pytest.mark.slow
def test_torchs_muon_follows_it_to_the_rounding_of_bfloat16():
    found = steepest.audit(torch.optim.Muon, "muon")
    assert found.follows
    assert found.precision == "bfloat16"
    assert 1e-4 < found.off < 2e-2
    assert "adjust_lr_fn" not in found.dialect


@pytest.mark.parametrize(
    "name", ["lion", "ademamix", "schedulefree_adamw", "lamb", "prodigy", "cautious(adamw)"]
)
def test_our_own_faces_are_audited_as_anybodys(name):
    face = functools.partial(optim.from_rule(name), engine="eager")
    assert steepest.audit(face, name).follows


def test_adam_that_is_asked_for_as_something_else_is_not_it():
    found = steepest.audit(torch.optim.Adam, "nadam")
    assert found.exit_code == 3
    assert found.findings[0].scenario == "plain"
    assert found.findings[0].since == 1
    assert "exp_avg, exp_avg_sq" in found.findings[0].text


def test_a_dialect_is_told_by_its_options():
    class Hat(torch.optim.Optimizer):
        def __init__(self, params, learning_rate=1e-3, b1=0.8, b2=0.99, epsilon=1e-7, wd=0.0):
            self.t = 0
            names = {"learning_rate": learning_rate, "epsilon": epsilon, "wd": wd}
            super().__init__(params, {**names, "b1": b1, "b2": b2, "step": 0})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                group["step"] += 1
                b1, b2, t = group["b1"], group["b2"], group["step"]
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    s = self.state[p]
                    s["m"] = b1 * s.get("m", 0 * p) + (1 - b1) * p.grad
                    s["v"] = b2 * s.get("v", 0 * p) + (1 - b2) * p.grad**2
                    root = (s["v"].sqrt() + group["epsilon"]) / (1 - b2**t) ** 0.5
                    lr = group["learning_rate"]
                    p.sub_(lr * s["m"] / (1 - b1**t) / root + lr * group["wd"] * p)

    found = steepest.audit(Hat, "adam")
    assert found.follows
    assert found.dialect == {"eps_mode": "hat", "decay": "decoupled"}
    assert found.per_group
    assert found.defaults == {"beta1": 0.8, "beta2": 0.99, "eps": 1e-7}
    assert found.like == ("keras.optimizers:Adam",)
    assert found.arguments["weight_decay"] == "wd"
    assert "counting steps per group" in found.sentence()


def test_one_that_computes_in_float32_is_told_so():
    class Single(torch.optim.Adagrad):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    p.copy_(p.float())

    found = steepest.audit(Single, "adagrad")
    assert found.follows
    assert (found.dtype, found.precision) == ("float64", "float32")


def test_one_that_cannot_do_float64_is_driven_in_float32():
    class OnlySingle(torch.optim.SGD):
        def step(self, closure=None):
            if any(p.dtype is torch.float64 for g in self.param_groups for p in g["params"]):
                raise RuntimeError("no kernel for double")
            super().step(closure)

    found = steepest.audit(OnlySingle, "sgd")
    assert found.follows
    assert found.dtype == "float32"
    assert "no kernel for double" in found.notes[0]


def test_an_option_that_is_refused_is_no_mistake():
    class Plain(torch.optim.SGD):
        def __init__(self, params, lr=0.1, nesterov=False):
            if nesterov:
                raise NotImplementedError("no Nesterov here")
            super().__init__(params, lr=lr)

    found = steepest.audit(Plain, "sgd")
    assert found.follows
    assert [row.note for row in found.rows if row.note] == ["refused: no Nesterov here"]


def test_a_function_and_coefficients_of_the_new_are_understood():
    def adam(params, betas=(0.1, 0.001), **given):
        return torch.optim.Adam(params, betas=tuple(1 - b for b in betas), **given)

    found = steepest.audit(adam, "adam")
    assert found.follows
    assert found.off < 1e-12


def test_the_caller_keeps_generator_dtype_and_threads():
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    steepest.audit(torch.optim.SGD, "sgd")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]


def test_twice_the_same_audit_is_the_same_and_plain_values():
    first, second = (steepest.audit(torch.optim.Adagrad, "adagrad").to_dict() for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert first["exit_code"] == 0


@pytest.mark.parametrize(
    ("factory", "rule", "given", "message"),
    [
        (torch.optim.Adam, "adm", {}, "did you mean 'adam'"),
        (torch.optim.Adam, "adam", {"names": {"beta9": "betas"}}, "hyperparameter of adam"),
        (torch.optim.Adam, "adam", {"names": {"eps": "epz"}}, "argument of the optimizer"),
        (torch.optim.Adam, "adam", {"values": {"eps": -1.0}}, "eps must be"),
        (lambda params: params, "adam", {}, "expected a torch.optim.Optimizer"),
        (lambda: None, "adam", {}, "takes no arguments"),
        (lambda params, size: params, "adam", {}, "needs size"),
    ],
)
def test_what_cannot_be_audited_is_an_input_error(factory, rule, given, message):
    with pytest.raises(InputError, match=message):
        steepest.audit(factory, rule, **given)


def test_one_that_cannot_take_a_step_is_an_input_error():
    class Stuck(torch.optim.SGD):
        def step(self, closure=None):
            raise OSError("no device")

    with pytest.raises(InputError, match="cannot take a step: OSError: no device"):
        steepest.audit(Stuck, "sgd")
