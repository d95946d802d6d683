"""A mistake in a user's task is found before training and said in one sentence."""

import copy
import functools
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from steepest.errors import TaskError
from steepest.train.task import Metric, Task, build_model, call_model, hash_tensors

X, Y = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


def make():
    return nn.Linear(8, 3)


def task(**changes):
    given = {"name": "t", "model": make, "loss": F.cross_entropy, "train": (X, Y)}
    return Task(**(given | changes))


def check(**changes):
    made = task(**changes)
    made.check((X[:4], Y[:4]))
    return made


class _Stream(IterableDataset):
    def __iter__(self):
        return iter([])


WRONG = {
    "a name that is no string": ({"name": 3}, r"name must be a non-empty string, got 3"),
    "a module for a factory": ({"model": make()}, r"model is an nn.Module; give a function"),
    "a number for a factory": ({"model": 3}, r"model must be a function, got int"),
    "a loss that is no function": ({"loss": "mse"}, r"loss must be a function, got str"),
    "no batch": ({"batch_size": 0}, r"batch_size must be an integer >= 1, got 0"),
    "a batch size in words": (
        {"batch_size": "32"},
        r"batch_size must be an integer >= 1, got '32'",
    ),
    "lengths that differ": ({"train": (X, Y[:9])}, r"x has 64, y has 9"),
    "dict lengths that differ": (
        {"train": ({"a": X, "b": X[:3]}, Y)},
        r"x\['a'\] has 64, x\['b'\] has 3, y has 64",
    ),
    "an empty split": ({"train": (X[:0], Y[:0])}, r"train is empty"),
    "an empty validation split": ({"val": (X[:0], Y[:0])}, r"val is empty"),
    "three parts": ({"train": (X, Y, Y)}, r"a pair \(x, y\), got 3 values"),
    "arrays": ({"train": (X.numpy(), Y)}, r"x must be a tensor.*got ndarray.*torch.as_tensor"),
    "arrays in a dict": ({"train": ({"a": np.ones(64)}, Y)}, r"x\['a'\] must be a tensor"),
    "a scalar": ({"train": (torch.tensor(1.0), Y)}, r"x has no dimension of examples"),
    "a loader": ({"train": DataLoader(TensorDataset(X, Y))}, r"is a DataLoader; give a function"),
    "a stream": ({"train": _Stream()}, r"no map-style Dataset"),
    "a number": ({"train": 5}, r"must be a pair of tensors .* got int"),
    "no data": ({"train": None}, r"must be a pair of tensors .* got NoneType"),
    "an empty dataset": ({"train": TensorDataset(X[:0], Y[:0])}, r"train is empty"),
    "metrics in a list": ({"metrics": [F.mse_loss]}, r"metrics must be a dict .* got list"),
    "a metric called loss": ({"metrics": {"loss": F.mse_loss}}, r"'loss' is always measured"),
    "a metric that is no function": ({"metrics": {"acc": 1}}, r"metric 'acc' must be a function"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_no_engine_could_train_is_refused_when_the_task_is_made(changes, message):
    with pytest.raises(TaskError, match=message):
        task(**changes)


ONE = make()
SHARED = nn.Linear(8, 8)


def raises():
    raise KeyError("no such layer")


def boom(outputs, targets):
    raise RuntimeError("too bad\nand more")


BAD = {
    "a factory that raises": ({"model": raises}, r"model factory raised KeyError: 'no such layer'"),
    "a factory without return": ({"model": lambda: None}, r"got NoneType; it lacks a return"),
    "a factory of something else": ({"model": lambda: [1]}, r"must return an nn.Module, got list"),
    "the same object twice": ({"model": lambda: ONE}, r"returned the same object twice"),
    "a layer shared by instances": (
        {"model": lambda: nn.Sequential(SHARED, make())},
        r"share the memory of '0.weight'",
    ),
    "a lazy layer": ({"model": lambda: nn.LazyLinear(3)}, r"'weight' has no shape yet"),
    "nothing to train": ({"model": nn.Flatten}, r"no parameter that can be trained"),
    "a model that wants other inputs": (
        {"model": lambda: nn.Linear(7, 3)},
        r"the model raised RuntimeError: mat1 and mat2.*inputs were float32\[4, 8\]",
    ),
    "too few outputs": (
        {"model": lambda: nn.Linear(8, 2)},
        r"the loss raised IndexError: Target 2 is out of bounds.*float32\[4, 2\].*int64\[4\]",
    ),
    "outputs of the wrong rank": (
        {"model": lambda: nn.Sequential(make(), nn.Flatten(0))},
        r"the loss raised .*outputs were float32\[12\], the targets int64\[4\]",
    ),
    "silent broadcasting": (
        {"model": lambda: nn.Linear(8, 1), "loss": lambda o, y: F.mse_loss(o, y.float())},
        r"would be broadcast: outputs float32\[4, 1\], targets int64\[4\]",
    ),
    "a loss per example": (
        {"loss": lambda o, y: F.cross_entropy(o, y, reduction="none")},
        r"must be one real number .* got a tensor float32\[4\]; take .mean\(\)",
    ),
    "a loss that is a float": (
        {"loss": lambda o, y: F.cross_entropy(o, y).item()},
        r"must be one real number .* got 1\.",
    ),
    "a detached loss": (
        {"loss": lambda o, y: F.cross_entropy(o.detach(), y)},
        r"does not depend on the model's parameters",
    ),
    "a metric that raises": (
        {"metrics": {"m": boom}},
        r"metric 'm' raised RuntimeError: too bad; outputs were float32\[64, 3\]",
    ),
    "a metric that is no number": (
        {"metrics": {"m": lambda o, y: o}},
        r"metric 'm' must return one number, got a tensor float32\[64, 3\]",
    ),
    "a metric in words": ({"metrics": {"m": lambda o, y: "good"}}, r"must return one number"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_only_trying_shows_is_found_by_check(changes, message):
    with pytest.raises(TaskError, match=message) as caught:
        check(**changes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("task 't'")


def test_check_changes_nothing_and_is_done_once_per_task():
    calls = []

    def counted():
        calls.append(1)
        return make()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    made = check(model=counted, val=(X, Y), metrics={"acc": lambda o, y: 0.5})
    assert torch.equal(before, torch.get_rng_state())
    assert made.checked
    made.check((X[:4], Y[:4]))
    assert len(calls) == 2


def test_tied_weights_within_one_model_are_fine():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    check(model=Tied, train=(X, torch.arange(64) % 8))


def test_the_first_metric_decides_and_without_metrics_the_loss():
    assert task().primary == ("loss", False)
    assert task(metrics={"f1": max, "acc": max}).primary == ("f1", True)
    assert task(metrics={"error": Metric(max, higher_is_better=False)}).primary == ("error", False)


def test_a_metric_may_return_a_tensor_of_one_number():
    made = task(metrics={"acc": lambda o, y: (o.argmax(1) == y).float().mean()})
    assert made.measure(torch.eye(3), torch.tensor([0, 1, 0])) == {"acc": pytest.approx(2 / 3)}


def test_inputs_go_to_the_model_as_their_kind_says():
    class Two(nn.Module):
        def forward(self, a, b=None):
            return (a, b)

    assert call_model(Two(), X)[1] is None
    assert call_model(Two(), (X, Y)) == (X, Y)
    assert call_model(Two(), {"b": Y, "a": X}) == (X, Y)


def test_a_missing_split_and_an_unknown_one_are_named():
    with pytest.raises(TaskError, match="task 't' has no val data; give val="):
        task().split("val")
    with pytest.raises(TaskError, match="one of train, val, test; got 'dev'"):
        task().split("dev")


def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    first = hash_tensors(dict(build_model(task(), 3).named_parameters()))
    torch.rand(10)
    assert first == hash_tensors(dict(build_model(task(), 3).named_parameters()))
    assert first != hash_tensors(dict(build_model(task(), 4).named_parameters()))


def test_the_hash_of_tensors_sees_name_type_shape_and_every_bit():
    base = {"a": torch.zeros(4)}
    changed = torch.zeros(4)
    changed[2] = -0.0
    others = [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.zeros(2, 2)},
        {"a": changed},
        {"a": torch.zeros(4), "b": torch.zeros(0)},
    ]
    assert len({hash_tensors(t) for t in [base, *others]}) == 6
    assert hash_tensors(base) == hash_tensors(copy.deepcopy(base))


def test_the_fingerprint_names_what_changed():
    base = task(val=(X, Y)).fingerprint()
    assert base == task(val=(X, Y)).fingerprint()

    def differs(**changes):
        other = task(**({"val": (X, Y)} | changes)).fingerprint()
        return {key for key in base if base[key] != other[key]}

    bent = X.clone()
    bent[63, 7] += 1e-6
    assert differs(train=(bent, Y)) == {"train"}
    assert differs(val=None) == {"val"}
    assert differs(batch_size=16) == {"batch_size"}
    assert differs(loss=F.nll_loss) == {"loss"}
    assert differs(metrics={"m": boom}) == {"metrics"}
    assert differs(model=lambda: nn.Linear(8, 4)) == {"model", "model_source"}
    assert differs(train=TensorDataset(X, Y)) == {"train"}


def squared(x):
    return x * x


def cubed(x):
    return x * x * x


class Share:
    def __call__(self, outputs, targets):
        return 0.5


def test_the_fingerprint_says_nothing_of_the_process_that_takes_it(monkeypatch):
    def made_with(act):
        return task(loss=functools.partial(boom, act, other=act)).fingerprint()["loss"]

    again = types.FunctionType(squared.__code__, globals(), "squared")  # elsewhere in memory
    assert made_with(squared) == made_with(again) != made_with(cubed)
    assert made_with(torch.relu) != made_with(torch.tanh)
    monkeypatch.setattr(Share, "__module__", "__main__")
    here = task(metrics={"m": Share()}).fingerprint()
    monkeypatch.setattr(Share, "__module__", "__mp_main__")
    assert task(metrics={"m": Share()}).fingerprint() == here
