"""Sweeping the objects of a training loop: nothing of them changes, not by a bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import steepest
from steepest.errors import InputError

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(96, 6, generator=G), torch.randint(0, 3, (96,), generator=G)


class Noisy(TensorDataset):
    """Augments, with a generator of its own and with all the global ones."""

    def __init__(self):
        super().__init__(X, Y)
        self.own = np.random.default_rng(7)
        self.pythons = random.Random(8)
        self.torchs = torch.Generator().manual_seed(9)

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        noise = self.own.normal() + self.pythons.random() + random.random() + np.random.rand()
        return x + 0.01 * (noise + torch.rand((), generator=self.torchs) + torch.rand(())), y


class Walking:
    """A sampler that goes on where it was: its position is state."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        for _ in range(96):
            self.at = (self.at + 7) % 96
            yield self.at

    def __len__(self):
        return 96


def loaders():
    yield DataLoader(TensorDataset(X, Y), 16, shuffle=True)
    yield DataLoader(
        TensorDataset(X, Y), 16, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    sampler = RandomSampler(TensorDataset(X, Y), generator=torch.Generator().manual_seed(4))
    yield DataLoader(Noisy(), 16, sampler=sampler)
    yield DataLoader(Noisy(), 16, sampler=Walking())
    yield [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 96, 16)]


def bits(value):
    """A value from which any change of any bit shows."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), raw
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return repr(value)


def everything(model, optimizer, loader):
    """All that a sweep might disturb."""
    parts = {
        "parameters": dict(model.named_parameters()),
        "buffers": dict(model.named_buffers()),
        "gradients": {k: p.grad for k, p in model.named_parameters()},
        "modes": [m.training for m in model.modules()],
        "optimizer": optimizer.state_dict(),
        "rng": [torch.get_rng_state(), repr(np.random.get_state()), random.getstate()],
    }
    if isinstance(loader, DataLoader):
        sampler = loader.sampler
        parts["sampler"] = getattr(sampler, "at", None)
        owners = [loader, sampler, loader.dataset]
        parts["generators"] = [
            o.generator.get_state() for o in owners if getattr(o, "generator", None) is not None
        ]
        if isinstance(loader.dataset, Noisy):
            data = loader.dataset
            parts["generators"] += [
                repr(data.own.bit_generator.state), data.pythons.getstate(), data.torchs.get_state()
            ]  # fmt: skip
    return bits(parts)


def in_training(loader):
    """A model in the middle of its training, with momentum, statistics, gradients and modes."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )
    groups = [{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    for x, y in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model[1].eval()  # frozen statistics: a mode that is not that of the whole model
    return model, optimizer


@pytest.mark.parametrize("number", range(5))
def test_a_sweep_has_no_side_effect_on_anything_bit_for_bit(number):
    loader = list(loaders())[number]
    model, optimizer = in_training(loader)
    before = everything(model, optimizer, loader)
    identities = [id(p) for p in model.parameters()], [id(p.grad) for p in model.parameters()]
    result = steepest.sweep(
        model, optimizer, loader=loader, loss=F.cross_entropy, lr=(1e-5, 100), steps=60, seeds=2
    )
    assert everything(model, optimizer, loader) == before
    assert identities == (
        [id(p) for p in model.parameters()],
        [id(p.grad) for p in model.parameters()],
    )
    assert np.isfinite(result.findings.ends).any()
    assert result.suggestion is None or 1e-5 <= result.suggestion <= 100


def test_training_after_a_sweep_is_training_without_it_bit_for_bit():
    def trained(*, swept):
        loader = DataLoader(Noisy(), 16, shuffle=True, generator=torch.Generator().manual_seed(3))
        torch.manual_seed(2)
        random.seed(2)
        np.random.seed(2)
        model, optimizer = in_training(loader)
        if swept:
            steepest.sweep(
                model, optimizer, loader=loader, loss=F.cross_entropy, lr=(1e-4, 1), steps=30
            )
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return bits(model.state_dict())

    assert trained(swept=True) == trained(swept=False)


def test_the_copies_did_train_and_the_rate_that_is_set_is_the_one_that_acts():
    """On a quadratic the losses of a growing rate are known in closed form."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    batches = [(torch.ones(4, 1), torch.zeros(4, 1))]
    loss = lambda outputs, targets: 0.5 * (outputs - targets).square().mean()  # noqa: E731
    result = steepest.sweep(
        model, optimizer, loader=batches, loss=loss, lr=(1e-3, 10), steps=40, seeds=1
    )
    w, losses = 2.0, []
    for rate in np.geomspace(1e-3, 10, 40):
        losses.append(0.5 * w * w)
        w -= rate * w
    found = result.findings.ends[:, 0]
    seen = np.isfinite(found)
    assert seen.sum() > 30
    assert found[seen] == pytest.approx(np.array(losses)[seen], rel=1e-4)
    assert model.weight.item() == 2.0


def test_a_loss_that_uses_the_model_itself_is_refused_and_undone():
    model, optimizer = in_training(list(loaders())[-1])

    def leaking(outputs, targets):
        return F.cross_entropy(outputs, targets) + model[0].weight.square().sum()

    before = everything(model, optimizer, None)
    with pytest.raises(InputError, match="uses the model itself"):
        steepest.sweep(model, optimizer, loader=list(loaders())[-1], loss=leaking, steps=30)
    assert everything(model, optimizer, None) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loader": None}, "swept with its data and its loss"),
        ({"loss": None}, "swept with its data and its loss"),
        ({"loss": "mse"}, "loss must be a function"),
        ({"loader": iter([(X, Y)])}, "can be read only once"),
        ({"loader": []}, "the loader yields no batch"),
        ({"loader": [X]}, "a batch must be a pair"),
        ({"loader": 3}, "must yield batches"),
        ({"lr": (1.0, 0.5)}, "is empty"),
        ({"seeds": 0}, "at least one seed"),
    ],
)
def test_what_cannot_be_swept_is_refused_and_leaves_no_trace(changes, said):
    loader = list(loaders())[1]
    model, optimizer = in_training(loader)
    before = everything(model, optimizer, loader)
    given = {"loader": loader, "loss": F.cross_entropy, "steps": 20, **changes}
    with pytest.raises(InputError, match=said):
        steepest.sweep(model, optimizer, **given)
    assert everything(model, optimizer, loader) == before


def test_optimizers_that_do_not_belong_to_the_model_are_refused():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(InputError, match="holds none of the model's parameters"):
        steepest.sweep(model, torch.optim.SGD(other.parameters(), lr=1), loader=[(X, Y)], loss=id)
    with pytest.raises(InputError, match="swept with its own optimizer"):
        steepest.sweep(model, "adam", loader=[(X, Y)], loss=id)
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(InputError, match="no learning rate above 0"):
        steepest.sweep(model, frozen, loader=[(X, Y)], loss=id)


def test_what_cannot_be_copied_is_refused():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("I am unique")

    model = Stubborn(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"cannot be copied.*I am unique"):
        steepest.sweep(model, optimizer, loader=[(X, Y)], loss=F.cross_entropy)
