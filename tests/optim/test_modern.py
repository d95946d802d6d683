"""Every class of `steepest.optim` that torch does not have: arguments, bad input, state."""

from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch
from torch import nn

from steepest import optim, rules
from steepest.errors import InputError, UnsupportedError
from steepest.optim._checks import check_gradients

MODERN = {
    "ADOPT": "adopt",
    "AdEMAMix": "ademamix",
    "AdaBelief": "adabelief",
    "Adafactor": "adafactor",
    "Adan": "adan",
    "LAMB": "lamb",
    "LARS": "lars",
    "Lion": "lion",
    "Muon": "muon",
    "Prodigy": "prodigy",
    "SOAP": "soap",
    "ScheduleFreeAdamW": "schedulefree_adamw",
    "ScheduleFreeSGD": "schedulefree_sgd",
    "Shampoo": "shampoo",
    "Signum": "signum",
}
CLASSES = sorted(set(optim.__all__) - {"Facade", "build", "from_rule"})


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def backward(network, seed=0):
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    network.zero_grad()
    network(x).square().mean().backward()


def trained(name, steps=3, **values):
    network = model()
    optimizer = getattr(optim, name)(network.parameters(), **values)
    for seed in range(steps):
        backward(network, seed)
        optimizer.step()
    return network, optimizer


def snapshot(optimizer):
    params = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    return params, copy.deepcopy(optimizer.state_dict()["state"])


def assert_untouched(optimizer, before):
    params, state = snapshot(optimizer)
    assert all(map(torch.equal, params, before[0]))
    torch.testing.assert_close(state, before[1], rtol=0, atol=0)


# --- being the rule's class ----------------------------------------------------------------------


def test_every_rule_has_a_class_of_its_own_that_is_public():
    assert {optim.from_rule(name).__name__ for name in rules.names()} == set(CLASSES)


@pytest.mark.parametrize(("name", "rule"), MODERN.items())
def test_class_is_the_rules(name, rule):
    cls = getattr(optim, name)
    assert cls.rule_name == rule
    assert optim.from_rule(rule) is cls
    assert "Args:" in cls.__doc__
    assert f"rules.{rule}" in cls.__doc__


@pytest.mark.parametrize("name", MODERN)
def test_every_argument_is_described_and_every_hyperparameter_is_an_argument(name):
    cls = getattr(optim, name)
    arguments = inspect.signature(cls).parameters
    for argument in arguments:
        assert argument in cls.__doc__, argument
    if name not in ("Adafactor", "Muon"):  # which have torch's arguments
        face = cls([nn.Parameter(torch.ones(4, 4))]).face
        names = {n for n in face.keys if n not in face.rule.options}
        assert names <= set(arguments)


REFERENCES = {  # the first positional arguments of the authors' own code
    "ADOPT": "lr betas eps",
    "AdEMAMix": "lr betas alpha beta3_warmup alpha_warmup eps weight_decay",
    "AdaBelief": "lr betas eps weight_decay amsgrad weight_decouple",
    "Adan": "lr betas eps weight_decay no_prox",
    "Lion": "lr betas weight_decay",
    "Prodigy": "lr betas beta3 eps weight_decay decouple use_bias_correction safeguard_warmup "
    "d0 d_coef growth_rate",
}


@pytest.mark.parametrize(("name", "expected"), REFERENCES.items())
def test_arguments_have_the_names_and_the_order_of_the_authors_code(name, expected):
    given = list(inspect.signature(getattr(optim, name)).parameters)[1:]
    assert given[: len(expected.split())] == expected.split()


@pytest.mark.parametrize(
    ("name", "flag", "value", "decay"),
    [
        ("ADOPT", "decouple", False, "l2"),
        ("ADOPT", "decouple", True, "decoupled"),
        ("AdaBelief", "weight_decouple", True, "decoupled"),
        ("AdaBelief", "weight_decouple", False, "l2"),
        ("Adan", "no_prox", False, "proximal"),
        ("Adan", "no_prox", True, "decoupled"),
        ("Prodigy", "decouple", True, "decoupled"),
        ("Prodigy", "decouple", False, "l2"),
    ],
)
def test_flags_of_the_authors_mean_the_rules_words(name, flag, value, decay):
    def after(make):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(5))
        optimizer = make([p])
        for step in range(3):
            p.grad = torch.full_like(p, 0.5 + step)
            optimizer.step()
        assert optimizer.face.values(optimizer.param_groups[0])["decay"] == decay
        return p.detach()

    cls = getattr(optim, name)
    a = after(lambda ps: cls(ps, lr=0.1, weight_decay=0.3, **{flag: value}))
    b = after(lambda ps: optim.build(MODERN[name], ps, lr=0.1, weight_decay=0.3, decay=decay))
    assert torch.equal(a, b)


def test_three_coefficients_stand_in_betas():
    group = optim.build("adan", model().parameters(), beta3=0.5).param_groups[0]
    assert group["betas"] == (0.98, 0.92, 0.5)
    with pytest.raises(InputError, match="betas must be 3 numbers"):
        optim.Adan(model().parameters(), betas=(0.9, 0.9))


def test_none_is_the_rules_default_where_the_authors_have_none():
    p = [nn.Parameter(torch.ones(4, 4))]
    for optimizer, name in (
        (optim.Prodigy(p, beta3=None), "beta3"),
        (optim.AdEMAMix(p, alpha_warmup=None), "alpha_warmup"),
        (optim.Muon(p, adjust_lr_fn=None), "adjust_lr_fn"),
    ):
        rule = optimizer.rule
        default = {**rule.hyperparameters, **rule.options}[name]
        assert optimizer.face.values(optimizer.param_groups[0])[name] == default
    with pytest.raises(InputError, match="must be a number"):
        optim.LAMB(p, eps=None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_adafactors_first_epsilon_is_that_of_the_parameters_type(dtype):
    # a gradient so small that only the floor divides it
    p = nn.Parameter(torch.ones(3, dtype=dtype))
    p.grad = torch.full_like(p, 1e-3 * torch.finfo(dtype).eps)
    optim.Adafactor([p], lr=0.5).step()
    expected = torch.full_like(p, 1 - 0.5 * 1e-3)
    torch.testing.assert_close(p.detach(), expected, rtol=torch.finfo(dtype).eps, atol=0)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_whole_numbers_are_refused(name):
    with pytest.raises(InputError, match=r"floating-point and complex parameters, got torch.int64"):
        getattr(optim, name)([torch.zeros(4, 4, dtype=torch.int64)])


def test_gradient_on_another_device_is_refused():
    # torch lets none be assigned, so the check is asked directly
    p = nn.Parameter(torch.ones(3))
    with pytest.raises(RuntimeError):
        p.grad = torch.ones(3, device="meta")
    with pytest.raises(InputError, match=r"its gradient is .* on meta; nothing was changed"):
        check_gradients(
            {}, [(p, torch.ones(3, device="meta"))], rule=rules.lion, owner="Lion", sparse=""
        )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_gradient_of_another_type_is_refused_and_nothing_is_changed(name, engine):
    network, optimizer = trained(name, engine=engine)
    backward(network)
    before = snapshot(optimizer)
    weight = network[2].weight
    weight.grad = None
    weight.grad_dtype = None
    weight.grad = torch.ones(weight.shape, dtype=torch.float64)
    with pytest.raises(InputError, match=r"its gradient is float64 .* nothing was changed"):
        optimizer.step()
    assert_untouched(optimizer, before)


@pytest.mark.parametrize("name", CLASSES)
def test_parameter_of_another_group_is_refused_and_nothing_is_added(name):
    network, optimizer = trained(name)
    before, groups = snapshot(optimizer), len(optimizer.param_groups)
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2)), network[0].weight]})
    assert len(optimizer.param_groups) == groups
    assert_untouched(optimizer, before)


@pytest.mark.parametrize("name", CLASSES)
def test_number_that_is_not_one_is_refused_when_given_and_when_it_becomes_it(name):
    cls = getattr(optim, name)
    network, optimizer = trained(name)
    for key, names in optimizer.face.keys.items():
        if not set(names) <= set(optimizer.rule.hyperparameters):
            continue
        if key not in optimizer.param_groups[0]:
            continue
        wrong = math.nan if len(names) == 1 else (math.nan,) * len(names)
        with pytest.raises(InputError):
            cls(network.parameters(), **{key: wrong})
        backward(network)
        before, right = snapshot(optimizer), optimizer.param_groups[0][key]
        optimizer.param_groups[0][key] = wrong
        with pytest.raises(InputError, match="is nan; nothing was changed"):
            optimizer.step()
        assert_untouched(optimizer, before)
        optimizer.param_groups[0][key] = right
        optimizer.step()


DAMAGED = {
    "not a state": lambda s: {"weights": s},
    "no groups": lambda s: {**s, "param_groups": []},
    "no rate": lambda s: {
        **s,
        "param_groups": [{k: v for k, v in g.items() if k != "lr"} for g in s["param_groups"]],
    },
    "a wrong rate": lambda s: {**s, "param_groups": [{**g, "lr": -1.0} for g in s["param_groups"]]},
    "wrong shapes": lambda s: {
        **s,
        "state": {
            key: {
                name: torch.ones(7, 3) if isinstance(x, torch.Tensor) and x.ndim else x
                for name, x in held.items()
            }
            for key, held in s["state"].items()
        },
    },
    "missing slots": lambda s: {**s, "state": {key: {"other": 1.0} for key in s["state"]}},
}


@pytest.mark.parametrize("name", MODERN)
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_state_is_refused_and_nothing_is_changed(name, damage):
    network, optimizer = trained(name)
    before, groups = snapshot(optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=r"nothing was changed|different number|Invalid learning"):
        optimizer.load_state_dict(DAMAGED[damage](optimizer.state_dict()))
    assert_untouched(optimizer, before)
    assert optimizer.state_dict()["param_groups"] == groups
    backward(network)
    optimizer.step()


@pytest.mark.parametrize("name", MODERN)
@pytest.mark.parametrize("other", ["SGD", "Adam", "Lion", "Muon", "Prodigy", "ScheduleFreeSGD"])
def test_state_of_another_optimizer_is_refused_and_nothing_is_changed(name, other):
    if name == other:
        pytest.skip("its own")
    _, optimizer = trained(name)
    _, foreign = trained(other, **({"momentum": 0.9} if other == "SGD" else {}))
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"not one of|different number|doesn't match|does not fit"):
        optimizer.load_state_dict(foreign.state_dict())
    assert_untouched(optimizer, before)


@pytest.mark.parametrize("name", ["Adafactor", "Muon", "Shampoo", "SOAP"])
def test_complex_numbers_are_refused_where_axes_matter(name):
    p = nn.Parameter(torch.ones(5, 5, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    optimizer = getattr(optim, name)([p])
    with pytest.raises(UnsupportedError, match=f"{name} does not support complex parameters"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("name", MODERN)
def test_sparse_gradients_are_refused(name):
    p = nn.Parameter(torch.ones(5, 5))
    p.grad = torch.ones(5, 5).to_sparse()
    optimizer = getattr(optim, name)([p])
    with pytest.raises(UnsupportedError, match=f"{name} does not support sparse gradients"):
        optimizer.step()
    assert not optimizer.state
