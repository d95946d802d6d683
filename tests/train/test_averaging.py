"""Averages of weights, against float64 formulas and against torch's own."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from steepest.errors import InputError
from steepest.train.averaging import METHODS, WeightAverage, coefficient


def _walk(model, steps, *, seed=0):
    """Random steps in place of training; every position, in float64."""
    generator = torch.Generator().manual_seed(seed)
    path = []
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, generator=generator).to(p.dtype), alpha=0.1)
        path.append({n: p.detach().double().numpy().copy() for n, p in model.named_parameters()})
        yield path


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.999999])
def test_the_ema_is_debiased_as_the_formula_says(decay):
    model = nn.Linear(3, 2).double()
    average = WeightAverage(model, method="ema", decay=decay)
    for path in _walk(model, 50):
        average.update()
        n = len(path)
        weights = np.array([(1 - decay) * decay ** (n - i) for i in range(1, n + 1)])
        assert weights.sum() == pytest.approx(1 - decay**n, rel=1e-9)
        for name, mean in average.weights().items():
            terms = np.array([position[name] for position in path])
            expected = np.tensordot(weights, terms, 1) / (1 - decay**n)
            np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_biased_ema_would_not_pass():
    """The first steps of m_n without its denominator are far from any mean of the weights."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 5.0)
    average = WeightAverage(model, decay=0.999)
    for _ in range(3):
        average.update()
    assert average.weights()["weight"].item() == pytest.approx(5.0, rel=1e-12)
    assert 5.0 * (1 - 0.999**3) < 0.02


@pytest.mark.parametrize("method", ["polyak", "swa"])
def test_means_are_the_mean_of_what_was_counted_in(method):
    model = nn.Linear(3, 2).double()
    average = WeightAverage(model, method=method, start=4, every=3)
    path = []
    for path in _walk(model, 20):  # noqa: B007 – the last one holds them all
        average.update()
    chosen = [path[i - 1] for i in (7, 10, 13, 16, 19)]
    assert (average.seen, average.count) == (20, 5)
    for name, mean in average.weights().items():
        np.testing.assert_allclose(mean.numpy(), np.mean([c[name] for c in chosen], 0), rtol=1e-12)


def test_swa_is_what_torchs_averaged_model_has():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    theirs = AveragedModel(model)
    ours = WeightAverage(model, method="swa")
    for _ in _walk(model, 30):
        theirs.update_parameters(model)
        ours.update()
    for name, p in theirs.module.named_parameters():
        torch.testing.assert_close(ours.weights()[name], p.detach(), rtol=1e-6, atol=1e-7)


def test_coefficients_keep_their_digits_for_a_decay_near_one():
    for n in (2, 10, 1000):
        d = 1 - 1e-9
        assert coefficient("ema", n, d) == pytest.approx(1 / n, rel=1e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight
        self.still = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]), requires_grad=False)
        self.register_buffer("counter", torch.tensor(0))
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, x):
        return self.out(self.embed(x) + self.still) * self.scale


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights_stay_tied_and_frozen_ones_what_they_are(method):
    model = Tied()
    average = WeightAverage(model, method=method)
    still = model.still.clone()
    for _ in _walk(model, 10):
        average.update()
        model.counter += 1
        model.scale += 1
    assert set(average.weights()) == {"embed.weight", "still"}
    other = Tied()
    average.copy_to(other)
    assert other.out.weight is other.embed.weight
    assert torch.equal(other.still, still)
    assert torch.equal(other.embed.weight, average.weights()["embed.weight"])
    assert (other.counter.item(), other.scale.item()) == (10, 11.0)


def test_buffers_with_fractions_can_be_averaged_too():
    model = Tied()
    average = WeightAverage(model, method="polyak", buffers="average")
    for _ in range(3):
        model.scale += 1
        model.counter += 1
        average.update()
    with average.applied():
        assert (model.scale.item(), model.counter.item()) == (3.0, 3)
    assert model.scale.item() == 4.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_are_averaged_in_float32(dtype):
    """At a decay of 0.999 an update of a bfloat16 mean is below its last bit."""
    model = nn.Linear(1, 1, bias=False).to(dtype)
    average = WeightAverage(model, method="polyak")
    values = [1.0] + [2.0] * 999
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update()
    state = average.state_dict()["tensors"]["weight"]
    assert state.dtype is torch.float32
    assert state.item() == pytest.approx(np.mean(values), abs=1e-4)
    assert average.weights()["weight"].dtype is dtype
    nn.init.constant_(model.weight, 3.0)
    with average.applied():
        assert model.weight.dtype is dtype
        assert model.weight.item() == pytest.approx(1.999, abs=1e-2)
    assert model.weight.item() == 3.0


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_average_goes_on_bitwise(method):
    def train(model, average, first, last):
        for step in range(first, last):
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.9).add_(0.01 * step)
            average.update()

    model = nn.Linear(3, 2)
    average = WeightAverage(model, method=method, decay=0.9, start=2, every=2)
    train(model, average, 0, 11)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "average": average.state_dict()}, file)
    file.seek(0)
    train(model, average, 11, 25)
    saved = torch.load(file, weights_only=True)
    again = nn.Linear(3, 2)
    again.load_state_dict(saved["model"])
    resumed = WeightAverage(again)  # what is loaded replaces its settings
    resumed.load_state_dict(saved["average"])
    train(again, resumed, 11, 25)
    assert (resumed.seen, resumed.count, resumed.method) == (25, average.count, method)
    for name, mean in average.weights().items():
        assert torch.equal(resumed.weights()[name], mean)


def test_a_sixteen_bit_model_resumes_from_its_float32_mean():
    model = nn.Linear(2, 2).bfloat16()
    average = WeightAverage(model, decay=0.99)
    for _ in _walk(model, 5):
        average.update()
    resumed = WeightAverage(model)
    resumed.load_state_dict(average.state_dict())
    for name, mean in average.state_dict()["tensors"].items():
        assert torch.equal(resumed.state_dict()["tensors"][name], mean)


def test_applied_measures_batch_norm_and_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x = torch.randn(40, 3)
    average = WeightAverage(model, method="swa")
    for _ in _walk(model, 6):
        model.train()(x[:8])
        average.update()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match="batch norm"), average.applied():
        pass
    with average.applied(list(x.split(10))):
        inside = copy.deepcopy(model[1].state_dict())
        hidden = model[0](x).detach()
        np.testing.assert_allclose(inside["running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-6)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_happens_inside_applied_may_raise():
    model = nn.Linear(1, 1)
    average = WeightAverage(model, method="polyak")
    average.update()
    nn.init.constant_(model.weight, 7.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        _ = 1 / 0
    assert model.weight.item() == 7.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "sway"}, "did you mean 'swa'"),
        ({"decay": 1.0}, "less than 1, got 1.0"),
        ({"decay": -0.1}, "got -0.1"),
        ({"start": -1}, "start must be a whole number >= 0"),
        ({"every": 0}, "every must be a whole number >= 1"),
        ({"every": 1.5}, "got 1.5"),
        ({"buffers": "drop"}, "'copy' or 'average'"),
    ],
)
def test_bad_settings_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        WeightAverage(nn.Linear(1, 1), **arguments)


def test_using_it_too_early_or_for_another_model_is_refused():
    average = WeightAverage(nn.Linear(2, 1), start=5)
    average.update()
    with pytest.raises(InputError, match="counts from call 6 on"):
        average.weights()
    for _ in range(5):
        average.update()
    with pytest.raises(InputError, match="shape"):
        average.copy_to(nn.Linear(3, 1))
    with pytest.raises(InputError, match="unknown parameter of this model 'weight'"):
        average.copy_to(nn.Sequential(nn.Linear(2, 1)))
    with pytest.raises(InputError, match="lacks"):
        average.load_state_dict({"method": "ema"})
