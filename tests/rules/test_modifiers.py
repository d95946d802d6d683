"""Modifiers: each against its definition, around every rule that it makes sense for."""

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.errors import InputError
from steepest.rules import MODIFIERS
from steepest.testing import check_rule
from steepest.testing.follow import follow

ALL = [
    (modifier, name)
    for modifier in MODIFIERS
    for name in rules.names()
    if not (modifier == "cautious" and name.startswith("schedulefree"))
    and not (modifier == "cautious" and name == "asgd")
    and not (modifier == "clip_global_norm" and name == "prodigy")
]
SHAPES = ((4, 3), (5, 5))


@pytest.fixture
def transformed(case):
    """A rule's trajectory with its gradients changed by hand, beside the modified rule's."""

    def run(modifier, name, change, **values):
        at = case(SHAPES, lr=1e-2, steps=20)
        modified, _ = follow(
            rules.get(f"{modifier}({name})"),
            at.params,
            at.grads,
            [{**v, **values} for v in at.values],
        )
        plain, _ = follow(rules.get(name), at.params, [change(g) for g in at.grads], at.values)
        return modified, plain

    return run


def _each(change):
    return lambda grads: [None if g is None else change(g) for g in grads]


def _global(grads):
    norm = np.sqrt(sum((g**2).sum() for g in grads if g is not None))
    return [None if g is None else g * min(1.0, 0.5 / (norm + 1e-6)) for g in grads]


CHANGES = {
    "clip_value": ({"max_value": 0.3}, _each(lambda g: np.clip(g, -0.3, 0.3))),
    "clip_norm": (
        {"max_norm": 0.5},
        _each(lambda g: g * min(1.0, 0.5 / (np.linalg.norm(g) + 1e-6))),
    ),
    "clip_global_norm": ({"max_global_norm": 0.5}, _global),
    "centralised": ({}, _each(lambda g: g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True))),
}


@pytest.mark.parametrize(("modifier", "name"), [pair for pair in ALL if pair[0] in CHANGES])
def test_a_changed_gradient_gives_what_the_rule_gives_for_it(transformed, distance, modifier, name):
    values, change = CHANGES[modifier]
    modified, plain = transformed(modifier, name, change, **values)
    assert distance(modified, plain) < 1e-12


@pytest.mark.parametrize("name", [name for modifier, name in ALL if modifier == "cautious"])
@pytest.mark.parametrize("scale", ["reference", "paper"])
def test_a_cautious_step_goes_only_down_the_gradient(case, name, scale):
    rule, cautious = rules.get(name), rules.get(f"cautious({name})")
    at = case([(5, 5)], lr=1e-2, steps=20)
    grads = [g for g in at.grads if g[0] is not None]
    off = {"weight_decay": 0.0} if "weight_decay" in rule.hyperparameters else {}
    values = [{**v, **off} for v in at.values[: len(grads)]]
    masked = [{**v, "caution_scale": scale} for v in values]
    path, _ = follow(cautious, at.params, grads, masked)
    # the state does not see the mask, so the rule itself takes its step from the same state
    _, slots = follow(cautious, at.params, grads[:-1], masked[:-1])
    before, g = path[-2][0], grads[-1][0]
    arguments = (before, g, *slots[0].values(), len(grads))
    totals = {"totals": rule.partial_sums(*arguments, **values[-1])} if rule.has_totals else {}
    plain, *_ = rule(*arguments, **values[-1], **totals)
    agrees = plain * g < 0
    factor = 1 / max(agrees.mean(), 1e-3) if scale == "reference" else 25 / (agrees.sum() + 1)
    np.testing.assert_allclose(path[-1][0] - before, plain * agrees * factor, atol=1e-12)
    assert agrees.sum() > 0


def test_global_clipping_is_torchs():
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=(4, 3)), rng.normal(size=7)]
    params = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(params, 0.5)
    path, _ = follow(
        rules.get("clip_global_norm(sgd)"),
        [np.zeros(g.shape) for g in grads],
        [grads],
        [{"lr": 1.0, "max_global_norm": 0.5}],
    )
    for mine, p in zip(path[0], params, strict=True):
        np.testing.assert_allclose(-mine, p.grad.numpy(), rtol=1e-14)


def test_clipping_sees_the_raw_gradient_and_the_penalty_is_added_after_it():
    step, _ = rules.get("clip_value(sgd)")(
        np.array([10.0]), np.array([5.0]), None, 1, lr=1.0, weight_decay=0.5, max_value=1.0
    )
    assert step.tolist() == [-6.0]


def test_caution_masks_the_step_and_not_the_decay():
    zeros = np.zeros(2)
    exp_avg = np.array([1.0, -1.0])  # the second element's momentum goes against its gradient
    step, *_ = rules.get("cautious(lion)")(
        np.array([1.0, 1.0]), np.array([1.0, 1.0]), exp_avg * 10, 1, lr=0.1, weight_decay=0.5
    )
    np.testing.assert_allclose(step, [-0.2 - 0.05, -0.05], rtol=1e-15)
    assert not zeros.any()


def test_modifiers_nest_and_every_one_adds_its_values():
    rule = rules.get("clip_value(centralised(cautious(adamw)))")
    assert rule.name == "clip_value(centralised(cautious(adamw)))"
    assert rule.kind == "norms"
    assert rule.hyperparameters["weight_decay"] == 0.01
    assert rule.hyperparameters["max_value"] == 1.0
    assert rule.options["caution_scale"] == "reference"
    assert rules.get(rule.name) is rule


def test_a_modified_rule_that_only_clips_values_stays_elementwise():
    assert rules.get("clip_value(adam)").kind == "elementwise"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cautious(cautious(adam))", "already"),
        ("cautious(schedulefree_adamw)", "average"),
        ("cautious(asgd)", "average"),
        ("clip_global_norm(prodigy)", "one pass"),
        ("reckless(adam)", "unknown modifier of rules 'reckless'"),
        ("cautious(adm)", "unknown rule 'adm'"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(name, reason):
    with pytest.raises(InputError, match=reason):
        rules.get(name)


def test_stacks_are_refused_where_a_modifier_would_mix_them():
    assert rules.get("muon").stackable
    assert rules.get("clip_value(muon)").stackable
    assert not rules.get("cautious(muon)").stackable
    assert not rules.get("adam").stackable


@pytest.mark.parametrize(
    "name",
    [
        "cautious(adamw)",
        "clip_norm(nadam)",
        "clip_value(lion)",
        "clip_global_norm(centralised(rmsprop))",
        "cautious(muon)",
    ],
)
def test_a_modified_rule_keeps_every_promise_of_a_rule(name):
    check_rule(name)
