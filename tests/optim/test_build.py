"""From rule-level names to optimizers."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from steepest import optim, rules
from steepest.errors import InputError
from steepest.optim._names import face_of


def parameter():
    return nn.Parameter(torch.ones(4, 4))


weight = parameter()


@pytest.mark.parametrize("name", rules.names())
def test_every_rule_has_a_class_whose_defaults_are_the_rules(name):
    rule = rules.get(name)
    optimizer = optim.build(name, [parameter()])
    values = face_of(rule).values(optimizer.param_groups[0])
    assert values == {**rule.hyperparameters, **rule.options}
    assert type(optimizer) is optim.from_rule(name)


@pytest.mark.parametrize("name", rules.names())
def test_every_hyperparameter_can_be_given_under_the_rules_name(name):
    rule = rules.get(name)
    for key, default in rule.hyperparameters.items():
        value = default * 1.01 if key not in ("beta1", "beta2", "beta3") else default * 0.99
        kwargs = (
            {"momentum": 0.5, "nesterov": False} if key == "dampening" and name == "sgd" else {}
        )
        optimizer = optim.build(name, [parameter()], **{**kwargs, key: value})
        assert face_of(rule).values(optimizer.param_groups[0])[key] == value


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("adam", {"beta1": 0.5}, {"betas": (0.5, 0.999)}),
        ("adam", {"betas": (0.5, 0.6)}, {"betas": (0.5, 0.6)}),
        ("adam", {"decay": "decoupled"}, {"decoupled_weight_decay": True}),
        ("nadam", {"decay": "l2"}, {"decoupled_weight_decay": False}),
        ("adam", {"decay": "independent"}, {"decay": "independent"}),
        ("adamw", {"decay": "l2"}, {"decay": "l2"}),
        ("sgd", {"decay": "decoupled", "lr": 0.1}, {"decay": "decoupled", "lr": 0.1}),
        (
            "rprop",
            {"eta_plus": 1.5, "step_min": 1e-3},
            {"etas": (0.5, 1.5), "step_sizes": (1e-3, 50.0)},
        ),
        ("asgd", {"power": 0.5}, {"alpha": 0.5}),
        ("rmsprop", {"alpha": 0.5, "maximize": True}, {"alpha": 0.5, "maximize": True}),
    ],
)
def test_names_of_the_rule_become_entries_of_the_group(name, given, expected):
    group = optim.build(name, [parameter()], **given).param_groups[0]
    assert {key: group[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("decay", "by_hand"),
    [
        ("l2", lambda p, lr, wd: p - lr * (1 + wd * p)),
        ("decoupled", lambda p, lr, wd: p - lr * 1 - lr * wd * p),
        ("independent", lambda p, lr, wd: p - lr * 1 - wd * p),
    ],
)
def test_decay_means_what_was_asked_for_also_in_groups_added_later(decay, by_hand):
    first, second = (nn.Parameter(torch.tensor([2.0])) for _ in range(2))
    optimizer = optim.build("sgd", [first], lr=0.5, weight_decay=0.1, decay=decay)
    optimizer.add_param_group({"params": [second]})
    for p in (first, second):
        p.grad = torch.ones(1)
    optimizer.step()
    for p in (first, second):
        assert p.item() == pytest.approx(by_hand(2.0, 0.5, 0.1))


def test_choice_that_torch_has_no_name_for_survives_loading_a_state_of_torchs():
    p = nn.Parameter(torch.ones(1))
    optimizer = optim.build("sgd", [p], decay="decoupled", momentum=0.9)
    optimizer.load_state_dict(torch.optim.SGD([p], momentum=0.9).state_dict())
    assert optimizer.param_groups[0]["decay"] == "decoupled"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_generated_class_can_be_copied_and_pickled(copied):
    p = parameter()
    optimizer = optim.from_rule("cautious(lion)")([p], 1e-2)
    p.grad = torch.ones_like(p)
    optimizer.step()
    other = copied(optimizer)
    (q,) = other.param_groups[0]["params"]
    for weight, owner in ((p, optimizer), (q, other)):
        weight.grad = torch.ones_like(p)
        owner.step()
    assert type(other) is type(optimizer)
    assert torch.equal(p, q)


def test_generated_class_shows_its_arguments():
    cls = optim.from_rule("cautious(lion)")
    signature = inspect.signature(cls)
    assert list(signature.parameters)[:2] == ["params", "lr"]
    assert signature.parameters["betas"].default == (0.9, 0.99)
    assert cls.__name__ == "CautiousLion"
    with pytest.raises(
        InputError, match="unknown argument of CautiousLion 'beta'; did you mean 'betas'"
    ):
        cls([parameter()], beta=0.5)


def test_modified_rule_is_an_optimizer_too():
    p = nn.Parameter(torch.zeros(2))
    optimizer = optim.build("clip_norm(sgd)", [p], lr=1.0, max_norm=1.0)
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.6, -0.8]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optim.build("adm", []), "unknown rule 'adm'; did you mean 'adam'"),
        (
            lambda: optim.build("adam", [parameter()], beta1=1.5),
            "Invalid beta parameter at index 0: 1.5",
        ),
        (
            lambda: optim.build("adam", [parameter()], momentum=0.9),
            "unknown hyperparameter of adam",
        ),
        (lambda: optim.build("sgd", [parameter()], decay="often"), "decay must be one of"),
        (lambda: optim.build("sgd", [parameter()], lr=-1), "to maximise pass maximize=True"),
    ],
)
def test_wrong_names_and_values_are_refused_with_what_to_do(call, words):
    with pytest.raises(InputError, match=words):
        call()
