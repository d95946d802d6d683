"""Schedule-free optimizers: two sets of weights, and the switch between them."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

import steepest
from steepest import optim
from steepest.errors import InputError
from steepest.train.solo import SoloRun

NAMES = ["ScheduleFreeSGD", "ScheduleFreeAdamW"]


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), ()]
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]


def take_steps(params, optimizer, steps, *, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def values(params):
    return [p.detach().clone() for p in params]


def trained(name, steps=5, **given):
    params = parameters()
    optimizer = getattr(optim, name)(params, lr=0.1, **given)
    take_steps(params, optimizer, steps)
    return params, optimizer


def same(a, b):
    return all(map(torch.equal, a, b))


def coefficient(optimizer):
    group = optimizer.param_groups[0]
    return group["betas"][0] if "betas" in group else group["momentum"]


@pytest.mark.parametrize("name", NAMES)
def test_eval_shows_the_average_of_the_iterates_weighted_as_in_the_paper(name):
    params = parameters()
    optimizer = getattr(optim, name)(params, lr=0.1)
    x = values(params)
    for step in range(6):
        take_steps(params, optimizer, 1, first=step)
        # with a constant rate the weights are equal: x is the mean of all z so far
        zs = [optimizer.state[p]["z"] for p in params]
        x = [old + (z - old) / (step + 1) for old, z in zip(x, zs, strict=True)]
    optimizer.eval()
    for p, expected in zip(params, x, strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_switching_is_idempotent_and_comes_back_to_the_bit(name):
    params, optimizer = trained(name)
    y = values(params)
    optimizer.train()
    assert same(values(params), y)
    optimizer.eval()
    x = values(params)
    assert not same(x, y)
    optimizer.eval()
    assert same(values(params), x)
    optimizer.train()
    optimizer.train()
    assert same(values(params), y)
    assert optimizer.training
    assert all("y" not in held for held in optimizer.state.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_evaluating_between_steps_changes_nothing(name, engine):
    watched, plain = parameters(), parameters()
    a = getattr(optim, name)(watched, lr=0.1, engine=engine)
    b = getattr(optim, name)(plain, lr=0.1, engine=engine)
    for step in range(6):
        a.eval()
        a.train()
        take_steps(watched, a, 1, first=step)
        take_steps(plain, b, 1, first=step)
    assert same(values(watched), values(plain))


@pytest.mark.parametrize("name", NAMES)
def test_step_in_eval_mode_is_refused_and_nothing_is_changed(name):
    params, optimizer = trained(name)
    optimizer.eval()
    before = values(params), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(InputError, match=rf"{name} is in eval mode.*Call optimizer.train\(\)"):
        optimizer.step()
    assert same(values(params), before[0])
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_saved_in_either_mode_it_goes_on_to_the_bit(name, mode):
    params, optimizer = trained(name)
    getattr(optimizer, mode)()
    assert optimizer.state_dict()["param_groups"][0]["train_mode"] is (mode == "train")
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), values(params)), file)
    file.seek(0)
    state, weights = torch.load(file, weights_only=True)
    others = [nn.Parameter(w) for w in weights]
    loaded = getattr(optim, name)(others)
    loaded.load_state_dict(state)
    assert loaded.training is (mode == "train")
    pickled_params, pickled = pickle.loads(pickle.dumps((params, optimizer)))
    for each, owner in ((params, optimizer), (others, loaded), (pickled_params, pickled)):
        owner.train()
        take_steps(each, owner, 3, first=50)
    assert same(values(params), values(others))
    assert same(values(params), values(pickled_params))


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_were_changed_in_eval_mode_are_not_thrown_away(name):
    params, optimizer = trained(name)
    optimizer.eval()
    with torch.no_grad():
        for p in params:
            p.add_(1.0)
    x = values(params)
    optimizer.train()
    beta = coefficient(optimizer)
    for p, mean in zip(params, x, strict=True):
        y = (1 - beta) * optimizer.state[p]["z"] + beta * mean
        torch.testing.assert_close(p.detach(), y)


def test_new_group_is_in_the_mode_of_the_others():
    params, optimizer = trained("ScheduleFreeAdamW")
    optimizer.eval()
    late = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [late]})
    assert not optimizer.param_groups[1]["train_mode"]
    optimizer.train()
    take_steps([*params, late], optimizer, 1)


def test_modified_rule_switches_too():
    params = parameters()
    optimizer = optim.build("clip_norm(schedulefree_adamw)", params, lr=0.1)
    take_steps(params, optimizer, 3)
    y = values(params)
    optimizer.eval()
    assert not same(values(params), y)
    optimizer.train()
    assert same(values(params), y)


def test_coefficient_of_zero_cannot_be_evaluated_and_says_so():
    params, optimizer = trained("ScheduleFreeSGD", momentum=0.0)
    before = values(params)
    with pytest.raises(InputError, match="the average cannot be recovered"):
        optimizer.eval()
    assert same(values(params), before)
    assert optimizer.training
    assert all("y" not in held for held in optimizer.state.values())
    take_steps(params, optimizer, 1)


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    y = (x @ torch.tensor([1.0, -1.0, 0.5, 0.0]) > 0).long()
    return steepest.Task(
        name="line",
        model=lambda: nn.Linear(4, 2),
        loss=nn.functional.cross_entropy,
        train=(x[:40], y[:40]),
        val=(x[40:], y[40:]),
        test=(x[40:], y[40:]),
        batch_size=8,
    )


def test_run_is_evaluated_at_the_average_and_trained_elsewhere(task):
    run = SoloRun(
        task,
        optimizer=lambda params: optim.ScheduleFreeAdamW(params, lr=0.1),
        schedule=None,
        seed=1,
        steps=10,
    )
    run.advance(10)

    def loss():
        x, y = task.val
        return nn.functional.cross_entropy(run.model(x), y).item()

    y_loss, evaluated = loss(), run.evaluate("val")["loss"]
    assert loss() == y_loss
    run.optimizer.eval()
    assert evaluated == pytest.approx(loss())
    assert evaluated != pytest.approx(y_loss)


def test_race_takes_schedule_free_and_matrix_arms(task, tmp_path):
    result = steepest.race(
        task,
        ["schedulefree_adamw(lr=0.05)", "muon(lr=0.02)"],
        seeds=2,
        steps=10,
        out=tmp_path / "race",
    )
    assert [run.status for run in result.runs] == ["done"] * 4
    assert all(0 < run.metrics["test_loss"] < math.inf for run in result.runs)
