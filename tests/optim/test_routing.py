"""Matrices and everything else in one optimizer."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from steepest import optim
from steepest.errors import InputError

NAMES = ["Muon", "Shampoo", "SOAP"]
AUXILIARY = {"Muon": "AdamW", "Shampoo": "Adagrad", "SOAP": "AdamW"}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.conv = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, seed):
        x = torch.randint(9, (5,), generator=torch.Generator().manual_seed(seed))
        y = self.second(self.first(self.embedding(x)).tanh())
        return self.head(y).square().mean() + self.conv(y.new_ones(1, 4, 3, 3)).square().mean()


MATRICES = ["first.weight", "second.weight", "conv.weight"]


def backward(network, seed=0):
    network.zero_grad()
    network(seed).backward()


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_follows_the_rule_that_fits_it_with_the_reason(name):
    optimizer = getattr(optim, name)(Network().named_parameters())
    found = {one.name: (one.rule, one.reason) for one in optimizer.assignments}
    assert [n for n, (rule, _) in found.items() if rule == name.lower()] == MATRICES
    assert {found[n] for n in MATRICES} == {(name.lower(), "")}
    assert found["head.weight"] == (
        AUXILIARY[name].lower(),
        "its name, 'head.weight', is that of an embedding or of the last layer",
    )
    assert found["first.bias"][1] == "it has 1 axis; a matrix has at least 2"
    matrix, rest = optimizer.param_groups
    assert "rule" not in matrix
    assert rest["rule"] == "auxiliary"
    assert not {"ns_steps", "root", "shampoo_beta"} & set(rest)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_the_others_take_the_steps_of_the_auxiliary_optimizer_and_the_matrices_their_own(
    name, engine
):
    ours, apart = Network().double(), Network().double()
    together = getattr(optim, name)(
        ours.named_parameters(), lr=0.01, auxiliary={"lr": 0.02}, engine=engine
    )
    rest = together.param_groups[1]
    named = dict(apart.named_parameters())
    keys = {"lr", "betas", "eps", "weight_decay", "lr_decay"} & set(rest)
    other = getattr(torch.optim, AUXILIARY[name])(
        [p for n, p in named.items() if n not in MATRICES],
        **{k: rest[k] for k in keys},
    )
    alone = getattr(optim, name)(
        [{"params": [named[n] for n in MATRICES], "rule": "matrix"}], lr=0.01, engine="eager"
    )
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        for p, q in zip(ours.parameters(), apart.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            q.grad = p.grad.clone()
        for optimizer in (together, other, alone):
            optimizer.step()
    for p, q in zip(ours.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


def test_groups_say_themselves_what_they_are_as_in_the_authors_code():
    network = Network()
    groups = [
        {"params": [network.head.weight], "use_muon": True, "lr": 0.5, "momentum": 0.5},
        {"params": [network.first.weight], "use_muon": False, "lr": 0.1, "betas": (0.5, 0.6)},
        {"params": [network.second.weight], "rule": "auxiliary", "weight_decay": 0.3},
    ]
    optimizer = optim.Muon(groups)
    assert [(one.rule, one.reason) for one in optimizer.assignments] == [
        ("muon", ""),
        ("adamw", "its parameter group says so"),
        ("adamw", "its parameter group says so"),
    ]
    assert optimizer.param_groups[1]["betas"] == (0.5, 0.6)
    assert optimizer.param_groups[1]["lr"] == 0.1
    assert optimizer.param_groups[2]["weight_decay"] == 0.3
    assert optimizer.param_groups[2]["lr"] == 3e-4


def test_what_the_auxiliary_groups_start_with():
    def rest(cls, **values):
        return cls(Network().named_parameters(), **values).param_groups[1]

    muon = rest(optim.Muon, lr=0.02)
    assert [muon[k] for k in ("lr", "betas", "eps", "weight_decay")] == [
        3e-4,
        (0.9, 0.95),
        1e-10,
        0,
    ]
    moonshot = rest(optim.Muon, lr=2e-3, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    assert [moonshot[k] for k in ("lr", "weight_decay")] == [2e-3, 0.2]
    soap = rest(optim.SOAP, lr=2e-3, betas=(0.8, 0.9), weight_decay=0.5)
    assert [soap[k] for k in ("lr", "betas", "weight_decay")] == [2e-3, (0.8, 0.9), 0.5]
    assert rest(optim.Shampoo, lr=0.3)["lr"] == 0.3
    given = rest(optim.SOAP, auxiliary={"lr": 1e-5, "beta1": 0.7})
    assert (given["lr"], given["betas"]) == (1e-5, (0.7, 0.999))


def test_schedules_move_both_groups():
    optimizer = optim.Muon(Network().named_parameters(), lr=0.1, auxiliary={"lr": 0.01})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.005]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["state dict", "pickle", "deepcopy"])
def test_saved_and_loaded_it_goes_on_to_the_bit(name, way):
    network = Network()
    optimizer = getattr(optim, name)(network.named_parameters(), lr=0.01)
    for seed in range(3):
        backward(network, seed)
        optimizer.step()
    if way == "state dict":
        other = Network()
        other.load_state_dict(network.state_dict())
        loaded = getattr(optim, name)(other.named_parameters())
        loaded.load_state_dict(optimizer.state_dict())
    elif way == "pickle":
        other, loaded = pickle.loads(pickle.dumps((network, optimizer)))
    else:
        other, loaded = copy.deepcopy((network, optimizer))
    assert loaded.assignments == optimizer.assignments
    for seed in range(3, 6):
        for model, owner in ((network, optimizer), (other, loaded)):
            backward(model, seed)
            owner.step()
    assert all(map(torch.equal, weights(network), weights(other)))


@pytest.mark.parametrize("name", NAMES)
def test_stacks_of_matrices_take_the_steps_of_single_ones(name):
    shapes = [(6, 5), (7, 7), (6, 5), (5, 6), (6, 5), (6, 5, 1), (150, 120), (150, 120)]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    runs = []
    for engine in ("auto", "eager"):
        params = [nn.Parameter(p.clone()) for p in start]
        params[2] = nn.Parameter(start[2].t().contiguous().t())
        groups = [{"params": params, "rule": "matrix"}]
        runs.append((params, getattr(optim, name)(groups, engine=engine, weight_decay=0.1)))
    for step in range(12):
        for at in range(len(shapes)):
            g = torch.randn(shapes[at], generator=generator, dtype=torch.float64)
            for params, _ in runs:
                params[at].grad = None if (step, at) in ((2, 0), (3, 0), (5, 4)) else g.clone()
        for _, optimizer in runs:
            optimizer.step()
    for p, q in zip(runs[0][0], runs[1][0], strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stacks_of_16_bits_are_computed_in_32_and_rounded_once(dtype):
    p = [nn.Parameter(torch.eye(6, dtype=dtype)) for _ in range(2)]
    wide = [nn.Parameter(torch.eye(6)) for _ in range(2)]
    for x in (*p, *wide):
        x.grad = torch.arange(36.0).reshape(6, 6).sin().to(dtype).to(x.dtype)
    optim.Muon(p, lr=0.1).step()
    optim.Muon(wide, lr=0.1).step()
    assert torch.equal(p[0], wide[0].to(dtype))
    assert p[0].dtype == dtype


def test_infinite_gradients_skip_the_step_of_both_groups():
    network = Network()
    optimizer = optim.SOAP(network.named_parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(network(0)).backward()
    network.first.weight.grad[0, 0] = math.inf
    before = weights(network)
    scaler.step(optimizer)
    assert all(map(torch.equal, before, weights(network)))


def test_modifiers_lie_around_the_auxiliary_rule_too():
    network = Network()
    optimizer = optim.build(
        "clip_global_norm(muon)", network.named_parameters(), max_global_norm=1e-3, lr=0.1
    )
    assert {one.rule for one in optimizer.assignments} == {
        "clip_global_norm(muon)",
        "clip_global_norm(adamw)",
    }
    assert optimizer.param_groups[1]["max_global_norm"] == 1e-3
    backward(network)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
    bias = network.first.bias.grad.clone()
    optimizer.step()
    (held,) = (optimizer.state[p] for p in [network.first.bias])
    torch.testing.assert_close(held["exp_avg"], 0.1 * bias * 1e-3 / (norm + 1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_groups_are_refused_and_not_added(name):
    network = Network()
    cls = getattr(optim, name)
    optimizer = cls(network.named_parameters())
    extra = nn.Linear(8, 8)
    cases = [
        ({"params": [extra.bias], "rule": "matrix"}, "is for matrices, got a parameter of shape"),
        ({"params": [extra.weight], "rule": "adam"}, "a group's rule must be 'matrix' or"),
        ({"params": list(extra.parameters()), "lr": math.nan}, "Invalid learning rate: nan"),
        ({"params": [extra.weight, network.first.weight]}, "more than one parameter group"),
        ({"params": [extra.bias, network.first.bias]}, "more than one parameter group"),
        ({"params": [torch.zeros(3, dtype=torch.int64)]}, "floating-point and complex"),
    ]
    before = len(optimizer.param_groups)
    for group, words in cases:
        with pytest.raises(InputError, match=words):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == before
    with pytest.raises(InputError, match="unknown hyperparameter of"):
        cls(network.named_parameters(), auxiliary={"momenta": 0.9})


def test_state_of_torchs_muon_loads_although_small_matrices_would_be_routed_elsewhere():
    small = nn.Parameter(torch.ones(2, 3))
    theirs = torch.optim.Muon([small])
    small.grad = torch.ones_like(small)
    theirs.step()
    ours = optim.Muon([small])
    assert ours.assignments[0].rule == "adamw"
    ours.load_state_dict(theirs.state_dict())
    assert ours.assignments[0].rule == "muon"
    ours.step()
