"""The manners of torch.optim.Optimizer: groups, hooks, closures, schedules, scaling, bad input."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from steepest import optim
from steepest.errors import InputError, SteepestError, UnsupportedError

NAMES = [
    "SGD",
    "Adagrad",
    "RMSprop",
    "Adadelta",
    "Adam",
    "AdamW",
    "NAdam",
    "RAdam",
    "Adamax",
    "ASGD",
    "Rprop",
]
ENGINES = ["eager", "auto"]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def backward(network, seed=0):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    loss = network(x).square().mean()
    network.zero_grad()
    loss.backward()
    return loss


def snapshot(optimizer):
    params = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    return params, copy.deepcopy(optimizer.state_dict())


def assert_untouched(optimizer, before):
    params, saved = before
    now = [p.detach() for g in optimizer.param_groups for p in g["params"]]
    assert all(map(torch.equal, now, params))
    torch.testing.assert_close(optimizer.state_dict()["state"], saved["state"], rtol=0, atol=0)


def trained(name, steps=3, **values):
    network = model()
    optimizer = getattr(optim, name)(network.parameters(), **values)
    for seed in range(steps):
        backward(network, seed)
        optimizer.step()
    return network, optimizer


# --- being an Optimizer -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_schedulers_of_torch_drive_it(name):
    ours, theirs = model(), model()
    a = getattr(optim, name)(ours.parameters(), lr=0.1)
    b = getattr(torch.optim, name)(theirs.parameters(), lr=0.1)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=6) for o in (a, b)]
    for step in range(6):
        for network, optimizer, schedule in zip((ours, theirs), (a, b), schedules, strict=True):
            backward(network, step)
            optimizer.step()
            schedule.step()
    assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_one_cycle_changes_the_betas_of_adam_and_is_followed():
    ours, theirs = model(), model()
    a, b = optim.Adam(ours.parameters()), torch.optim.Adam(theirs.parameters())
    cycles = [torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=8) for o in (a, b)]
    for step in range(7):
        for network, optimizer, cycle in zip((ours, theirs), (a, b), cycles, strict=True):
            backward(network, step)
            optimizer.step()
            cycle.step()
    assert a.param_groups[0]["betas"] != (0.9, 0.999)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_closure_computes_gradients_and_its_loss_is_returned():
    network = model()
    optimizer = optim.SGD(network.parameters(), lr=0.1)
    with torch.no_grad():  # as torch: the closure has autograd on all the same
        first = optimizer.step(lambda: backward(network))
    assert optimizer.step(lambda: backward(network)) < first


def test_hooks_run_in_order_and_may_change_the_arguments():
    network = model()
    optimizer = optim.Adam(network.parameters())
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    backward(network)
    optimizer.step()
    assert calls == ["pre", "post"]


def test_named_parameters_keep_their_names():
    network = model()
    optimizer = optim.AdamW(network.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == [n for n, _ in network.named_parameters()]
    assert optimizer.state_dict()["param_groups"][0]["param_names"][0] == "0.weight"


def test_sgd_without_momentum_has_no_state():
    _, optimizer = trained("SGD")
    assert optimizer.state_dict()["state"] == {}


def test_adagrad_has_its_state_before_the_first_step_and_shares_it():
    optimizer = optim.Adagrad([nn.Parameter(torch.ones(3))], initial_accumulator_value=0.5)
    optimizer.share_memory()
    (held,) = optimizer.state.values()
    assert torch.equal(held["sum"], torch.full((3,), 0.5))
    assert held["sum"].is_shared()


def test_adamw_is_an_adam_and_stays_decoupled_when_it_loads_one():
    network, adam = trained("Adam", weight_decay=0.1)
    loaded = optim.AdamW(network.parameters())
    loaded.load_state_dict(adam.state_dict())
    assert isinstance(loaded, optim.Adam)
    assert loaded.param_groups[0]["decoupled_weight_decay"] is True


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_added_and_frozen_in_the_middle_are_followed_as_by_torch(engine):
    ours, theirs = model(), model()
    a = optim.NAdam(ours[0].parameters(), lr=0.01, engine=engine)
    b = torch.optim.NAdam(theirs[0].parameters(), lr=0.01)
    for step in range(9):
        for network, optimizer in ((ours, a), (theirs, b)):
            if step == 3:
                optimizer.add_param_group({"params": network[2].parameters(), "lr": 0.05})
            if step == 6:
                network[0].weight.requires_grad_(False)
                network[0].weight.grad = None
            backward(network, step)
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


# --- noticing what others do to it --------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", ["state entry", "state", "group list", "data", "replaced group"])
def test_changes_from_outside_between_steps_take_effect_as_in_torch(engine, change):
    ours, theirs = model(), model()
    pairs = [
        (ours, optim.Adam(ours.parameters(), lr=0.01, engine=engine)),
        (theirs, torch.optim.Adam(theirs.parameters(), lr=0.01)),
    ]
    for step in range(6):
        for network, optimizer in pairs:
            if step == 3:
                p = network[0].weight
                if change == "state entry":
                    optimizer.state[p]["exp_avg"] = torch.full_like(p, 0.3)
                elif change == "state":
                    optimizer.state.clear()
                elif change == "group list":
                    optimizer.param_groups[0]["params"].remove(p)
                elif change == "data":
                    p.data = torch.full_like(p, 0.5)
                else:
                    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.2}
            backward(network, step)
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", NAMES)
def test_loading_copies_so_that_the_source_may_go_on(name):
    network, source = trained(name)
    other = model()
    loaded = getattr(optim, name)(other.parameters())
    loaded.load_state_dict(source.state_dict())
    before = snapshot(loaded)
    backward(network)
    source.step()
    assert_untouched(loaded, before)


def test_single_numbers_survive_loading_beside_bfloat16_weights():
    # torch casts them to the parameter's dtype: the product of NAdam's momenta to 8 bits
    p = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = optim.NAdam([p])
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    other = optim.NAdam([nn.Parameter(torch.ones(3, dtype=torch.bfloat16))])
    other.load_state_dict(optimizer.state_dict())
    (held,), (loaded,) = optimizer.state.values(), other.state.values()
    assert torch.equal(held["mu_product"], loaded["mu_product"])
    assert loaded["mu_product"].dtype == torch.float32


# --- flags ---------------------------------------------------------------------------------------


# Rprop's steps come from the rate at the start alone, and ASGD's first one: torch detaches both
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"Rprop", "ASGD"}))
def test_differentiable_gives_the_derivative_by_the_learning_rate(name):
    def final_loss(rate):
        p = torch.tensor([0.8, -0.5], dtype=torch.float64, requires_grad=True).clone()
        optimizer = getattr(optim, name)([p], lr=rate, differentiable=True)
        for _ in range(3):
            p.grad = p.clone() ** 3
            optimizer.step()
        return p.square().sum()

    rate = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    final_loss(rate).backward()
    h = 1e-6
    numeric = (final_loss(0.05 + h) - final_loss(0.05 - h)).item() / (2 * h)
    assert rate.grad.item() == pytest.approx(numeric, rel=1e-5)


def test_differentiable_gives_the_derivative_by_an_earlier_gradient():
    p = torch.tensor([0.8], dtype=torch.float64, requires_grad=True).clone()
    optimizer = optim.Adam([p], lr=0.1, differentiable=True)
    g = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    for scale in (1.0, 2.0):
        p.grad = scale * g**2
        optimizer.step()

    def by_hand(x):
        m = v = 0.0
        value = 0.8
        for t, scale in ((1, 1.0), (2, 2.0)):
            m, v = 0.9 * m + 0.1 * scale * x**2, 0.999 * v + 0.001 * (scale * x**2) ** 2
            value -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return value

    p.sum().backward()
    numeric = (by_hand(0.3 + 1e-6) - by_hand(0.3 - 1e-6)) / 2e-6
    assert p.item() == pytest.approx(by_hand(0.3), rel=1e-12)
    assert g.grad.item() == pytest.approx(numeric, abs=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("engine", ENGINES)
def test_grad_scaler_hands_its_scale_to_a_fused_step_and_infinities_skip_it(name, engine):
    kwargs = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    ours = nn.Parameter(torch.ones(300))
    plain = nn.Parameter(torch.ones(300))
    a = getattr(optim, name)([ours], lr=0.1, fused=True, engine=engine, **kwargs)
    b = getattr(torch.optim, name)([plain], lr=0.1, **kwargs)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(5):
        g = torch.linspace(-1, 1, 300) * (step + 1)
        ours.grad, plain.grad = g * scaler.get_scale(), g
        if step in (0, 2):  # also in the very first step, which must leave no buffers behind
            ours.grad[7] = math.inf
        scaler.scale(torch.ones(()))
        before = snapshot(a)
        scaler.step(a)
        scaler.update()
        if step in (0, 2):
            assert_untouched(a, before)
        else:
            b.step()
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
def test_fused_is_refused_where_torch_refuses_it(name):
    cls = getattr(optim, name)
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        cls([p], fused=True, differentiable=True)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        cls([p], fused=True, foreach=True)
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="requires all the params to be floating point"):
        cls([p], fused=True).step()


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD"])
def test_capturable_is_refused_on_a_cpu_as_in_torch(name):
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    optimizer = getattr(optim, name)([p], capturable=True)
    with pytest.raises(UnsupportedError, match="must be on supported devices"):
        optimizer.step()
    assert not optimizer.state


def test_foreach_with_differentiable_is_refused_at_the_step_as_in_torch():
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="_foreach ops don't support autograd"):
        optim.SGD([p], foreach=True, differentiable=True).step()


def test_engine_is_named_in_the_error_if_there_is_none_of_that_name():
    with pytest.raises(InputError, match="engine must be 'auto', 'eager' or 'kernel', got 'fast'"):
        optim.SGD([nn.Parameter(torch.ones(1))], engine="fast")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_torch_compile_of_a_training_step_takes_the_same_steps(engine):
    ours, theirs = model(), model()
    a = optim.Adam(ours.parameters(), lr=0.05, engine=engine)
    b = torch.optim.Adam(theirs.parameters(), lr=0.05)

    @torch.compile(backend="aot_eager")
    def step():
        a.step()

    for seed in range(4):
        backward(ours, seed)
        backward(theirs, seed)
        step()
        b.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lr", [-1.0, math.nan, "0.1", None])
def test_learning_rate_that_cannot_be_is_refused(name, lr):
    with pytest.raises(InputError, match=r"Invalid learning rate: .*lr must be"):
        getattr(optim, name)([nn.Parameter(torch.ones(1))], lr=lr)


@pytest.mark.parametrize("name", NAMES)
def test_group_with_a_wrong_value_is_refused_and_not_added(name):
    optimizer = getattr(optim, name)([nn.Parameter(torch.ones(1))])
    with pytest.raises(InputError, match="Invalid learning rate: -2"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": -2.0})
    assert len(optimizer.param_groups) == 1


def test_whole_numbers_are_refused_unless_frozen():
    with pytest.raises(InputError, match=r"floating-point and complex parameters, got torch.int64"):
        optim.SGD([torch.zeros(2, dtype=torch.int64)])
    frozen = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    optimizer = optim.SGD([frozen, nn.Parameter(torch.ones(1))])
    frozen.grad = torch.ones_like(frozen)
    with pytest.raises(InputError, match="floating-point and complex"):
        optimizer.step()


@pytest.mark.parametrize("engine", ENGINES)
def test_hyperparameter_that_becomes_nan_is_refused_and_nothing_is_changed(engine):
    network, optimizer = trained("Adam", engine=engine)
    backward(network)
    before = snapshot(optimizer)
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(InputError, match="Adam: lr is nan; nothing was changed"):
        optimizer.step()
    assert_untouched(optimizer, before)


DAMAGED = {
    "not a state": (lambda s: {"weights": s}, "not the state of an optimizer"),
    "a list": (lambda s: [s], "not the state of an optimizer"),
    "groups without parameters": (
        lambda s: {**s, "param_groups": [{"lr": 1.0}]},
        "not the state of an optimizer",
    ),
    "no groups": (lambda s: {**s, "param_groups": []}, "different number of parameter groups"),
    "another model": (
        lambda s: {**s, "param_groups": [{**s["param_groups"][0], "params": [0]}]},
        "doesn't match the size",
    ),
    "another shape": (
        lambda s: {**s, "state": {**s["state"], 0: {**s["state"][0], "exp_avg": torch.ones(9)}}},
        r"exp_avg has shape \(9,\), expected \(3, 4\)",
    ),
    "a missing slot": (
        lambda s: {**s, "state": {**s["state"], 0: {"step": torch.tensor(3.0)}}},
        "it has step where exp_avg, exp_avg_sq, step should be",
    ),
    "a step that is none": (
        lambda s: {**s, "state": {**s["state"], 1: {**s["state"][1], "step": math.nan}}},
        "step is",
    ),
    "a wrong value": (
        lambda s: {**s, "param_groups": [{**s["param_groups"][0], "eps": -1.0}]},
        "Invalid epsilon value: -1.0",
    ),
    "no rate": (
        lambda s: {
            **s,
            "param_groups": [{k: v for k, v in s["param_groups"][0].items() if k != "lr"}],
        },
        "parameter group 0 has no lr",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_state_is_refused_and_nothing_is_changed(damage):
    network, optimizer = trained("Adam")
    before = snapshot(optimizer)
    spoil, words = DAMAGED[damage]
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(spoil(optimizer.state_dict()))
    assert_untouched(optimizer, before)
    backward(network)
    optimizer.step()


@pytest.mark.parametrize("other", ["SGD", "Adadelta", "RMSprop", "ASGD", "Rprop", "Adamax"])
def test_state_of_another_optimizer_is_refused_and_nothing_is_changed(other):
    _, optimizer = trained("Adam")
    _, foreign = trained(other)
    before = snapshot(optimizer)
    with pytest.raises(InputError, match="not one of Adam"):
        optimizer.load_state_dict(foreign.state_dict())
    assert_untouched(optimizer, before)


def test_checkpoint_of_an_older_torch_with_numbers_for_steps_loads():
    network, optimizer = trained("Adam")
    old = optimizer.state_dict()
    for held in old["state"].values():
        held["step"] = int(held["step"].item())
    for key in ("foreach", "maximize", "capturable", "differentiable", "fused", "amsgrad"):
        del old["param_groups"][0][key]
    loaded = optim.Adam(network.parameters())
    loaded.load_state_dict(old)
    assert all(torch.equal(held["step"], torch.tensor(3.0)) for held in loaded.state.values())
    assert loaded.param_groups[0]["amsgrad"] is False


def test_every_refusal_is_a_steepest_error_of_torchs_type():
    assert issubclass(UnsupportedError, (SteepestError, RuntimeError))
    assert issubclass(InputError, (SteepestError, ValueError))


def test_representation_is_torchs():
    ours, theirs = (m.Adam([torch.zeros(1)]) for m in (optim, torch.optim))
    assert re.sub(r"\s", "", repr(ours)) == re.sub(r"\s", "", repr(theirs))


def test_a_step_is_marked_in_a_profile_and_calls_every_hook_though_neither_is_paid_for_otherwise():
    network = model()
    optimizer = optim.Adam(network.parameters())
    backward(network)
    optimizer.step()
    called = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, *_: called.append(("before", o))),
        optimizer.register_step_post_hook(lambda o, *_: called.append(("after", o))),
        register_optimizer_step_pre_hook(lambda o, *_: called.append(("all", o))),
    ]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert called == [("all", optimizer), ("before", optimizer), ("after", optimizer)]
    marks = [e.count for e in profile.key_averages() if e.key == "Optimizer.step#Adam.step"]
    assert marks == [1]
