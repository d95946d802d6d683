"""Batch norm: measured again, and really frozen."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from steepest.errors import InputError, TaskError
from steepest.train.batchnorm import batch_norms, freeze_batch_norm, recompute_batch_norm


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, a, b):
        return self.norm(self.drop(a) + b)


def _data(n=10, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 + 1


@pytest.mark.parametrize("kind", ["tensor", "tuple", "list", "dict", "pair"])
def test_every_format_of_batch_gives_the_mean_of_the_batches_statistics_by_their_sizes(kind):
    x = _data()
    zero = torch.zeros_like(x)
    make = {
        "tensor": lambda s: x[s],
        "tuple": lambda s: (x[s], zero[s]),
        "list": lambda s: [x[s], zero[s]],
        "dict": lambda s: {"b": zero[s], "a": x[s]},
        "pair": lambda s: (x[s], torch.zeros(len(x[s]), dtype=torch.long)),
    }[kind]
    model = nn.Sequential(nn.BatchNorm1d(3)) if kind in ("tensor", "pair") else TwoInputs()
    forward = (lambda m, b: m(b[0])) if kind == "pair" else None
    parts = [slice(0, 6), slice(6, 10)]
    assert recompute_batch_norm(model, (make(s) for s in parts), forward=forward) == 1
    (layer,) = batch_norms(model).values()
    a, b = (x.double().numpy()[s] for s in parts)
    mean = (6 * a.mean(0) + 4 * b.mean(0)) / 10
    var = (6 * a.var(0, ddof=1) + 4 * b.var(0, ddof=1)) / 10
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-6)


def test_equal_batches_give_what_torchs_update_bn_gives():
    ours = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    theirs = copy.deepcopy(ours)
    batches = list(_data(32).split(8))
    torch.optim.swa_utils.update_bn(batches, theirs)
    recompute_batch_norm(ours, batches)
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_momentum_modes_and_generators_are_restored(momentum):
    model = TwoInputs()
    model.norm.momentum = momentum
    model.eval()
    model.drop.train()
    before = torch.get_rng_state()
    recompute_batch_norm(model, [(_data(), _data(seed=1))])
    assert model.norm.momentum == momentum
    assert (model.training, model.norm.training, model.drop.training) == (False, False, True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_raises_keeps_its_statistics_momentum_and_mode():
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    model(_data())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TaskError, match=r"measuring batch norm, the model raised .*forward=lambda"):
        recompute_batch_norm(model, [_data(), torch.zeros(4, 7)])
    assert model[0].momentum == 0.1
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("batches", "words"),
    [([], "there was no batch"), (["text"], "must be a tensor"), ([torch.tensor(1.0)], "tensor")],
)
def test_no_data_is_refused(batches, words):
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(InputError, match=words):
        recompute_batch_norm(model, batches)


def test_without_batch_norm_nothing_is_run():
    def never(model, batch):
        raise AssertionError

    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    assert recompute_batch_norm(model, [1], forward=never) == 0


def test_a_frozen_layer_never_changes_and_is_not_trained():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.train()
    model(_data())
    assert freeze_batch_norm(model) == ["1"]
    frozen = copy.deepcopy(model[1].state_dict())
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(_data() * 5).square().mean().backward()
        optimizer.step()
    for name, tensor in model[1].state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    x = _data(seed=2)
    expected = nn.functional.batch_norm(
        x, frozen["running_mean"], frozen["running_var"], frozen["weight"], frozen["bias"]
    )
    assert torch.equal(model[1](x), expected)
    assert recompute_batch_norm(model, [_data()]) == 0


def test_frozen_layers_survive_copies_files_and_freezing_twice():
    model = nn.Sequential(nn.BatchNorm2d(2))
    freeze_batch_norm(model)
    freeze_batch_norm(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert not other.train()[0].training
        assert type(other[0]) is type(model[0])
        assert type(other[0]).__name__ == "FrozenBatchNorm2d"


def test_layers_that_a_user_keeps_in_eval_mode_are_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).train()
    model[0].eval()
    assert recompute_batch_norm(model, [_data()]) == 1
    assert torch.equal(model[0].running_mean, torch.zeros(3))
