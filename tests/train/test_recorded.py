"""Repeating a pass's operations gives the bits of the pass, or is not done."""

import functools
import gc
import itertools
import random
import weakref

import numpy as np
import pytest
import torch
from tests.train.test_population import IMAGES, LABELS, MIXED, ZOO, Mlp, make
from torch import nn
from torch.nn import functional as F

from steepest import optim, tasks
from steepest.errors import UnsupportedError
from steepest.train import recorded
from steepest.train.graphed import Graphed
from steepest.train.population import Member, Population
from steepest.train.task import Task

LONG = 10_000  # steps of a run that is worth recording


def members(n=3):
    return [Member(lambda p: optim.build("sgd", p, lr=0.05, momentum=0.9), None, s)
            for s in range(n)]  # fmt: skip


def both(task, given=MIXED, steps=12):
    """A population as its model is written, and one that repeats operations; trained alike."""
    found = []
    for record in (False, True):
        population = Population(task, given, steps=LONG, recorded=record, fused=False)
        chunks = population.advance(steps)
        found.append((population, torch.cat([torch.from_numpy(c.loss) for c in chunks])))
    (written, losses), (repeated, others) = found
    assert torch.equal(losses, others)
    for name, stack in written.stacks.params.items():
        assert torch.equal(stack, repeated.stacks.params[name]), name
    for name, stack in written.stacks.buffers.items():
        assert torch.equal(stack, repeated.stacks.buffers[name]), name
    return repeated


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ZOO)
def test_repeated_operations_give_the_bits_of_the_model(name, dtype):
    model, x = ZOO[name]
    population = both(make(model, x, dtype=dtype))
    assert population._passes.reason == ""
    assert population._passes.in_doubt
    population.evaluate("val")
    assert not population._passes.in_doubt


@pytest.mark.parametrize("name", ["mnist", "mnist-mlp", "mnist-logreg"])
def test_the_ready_made_tasks_are_repeated_bit_for_bit(name):
    assert both(tasks.load(name), members(2), steps=6)._passes.reason == ""


def test_inputs_may_be_nested_and_parameters_unused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(3, 2), nn.Linear(4, 2), nn.Linear(2, 2)

        def forward(self, left, right):
            return self.a(left) + self.b(right)

    x = {"left": torch.randn(64, 3), "right": torch.randn(64, 4)}
    task = Task(name="two", model=Two, loss=F.mse_loss, train=(x, torch.randn(64, 2)))
    assert both(task, members())._passes.reason == ""


def test_equal_populations_share_a_recording(monkeypatch):
    made = []
    record = recorded.record
    monkeypatch.setattr(recorded, "record", lambda *a, **k: made.append(1) or record(*a, **k))
    task = make(Mlp, IMAGES)
    for size in (2, 2, 3, 2):
        Population(task, members(size), steps=LONG).advance(5)
    assert len(made) == 2


def test_a_short_run_is_not_worth_recording():
    population = Population(make(Mlp, IMAGES), members(), steps=20)
    population.advance(20)
    assert "pays from 300 steps on" in population._passes.reason


class Counting(nn.Module):
    """Its output depends on how often it was asked."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(144, 5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(x.flatten(1)) * (1.0 if self.calls < 9 else 2.0)


class Remembering(Counting):
    def forward(self, x):
        self.seen = self.fc(x.flatten(1))
        return self.seen


CALLS = itertools.count()
STATE = {"calls": 0}


def counting_loss(outputs, targets):
    STATE["calls"] += 1
    return F.cross_entropy(outputs, targets)


class CountingLoss:
    def __init__(self):
        self.calls = [0]

    def __call__(self, outputs, targets):
        self.calls[0] += 1
        return F.cross_entropy(outputs, targets)


class Global(Mlp):
    def forward(self, x):
        STATE["calls"] += 1
        return super().forward(x)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": Counting}, "Counting.calls"),
        ({"model": Remembering}, "Remembering.seen"),
        ({"model": Global}, "forward.STATE"),
        ({"loss": counting_loss}, "counting_loss.STATE"),
        ({"loss": CountingLoss()}, "CountingLoss.calls"),
        ({"loss": functools.partial(counting_loss)}, "partial.STATE"),
        ({"loss": CountingLoss().__call__}, "method.calls"),
    ],
)
def test_what_keeps_something_in_python_is_not_recorded(changes, words):
    task = make(changes.pop("model", Mlp), IMAGES, **changes)
    population = Population(task, members(), steps=LONG)
    population.advance(12)
    assert words in population._passes.reason
    assert "may be another" in population._passes.reason


class Chancy(Mlp):
    """Now and then, by a generator that nobody seeds, it does something else."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return super().forward(x) * (2.0 if self.draw() > 0.9999 else 1.0)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_a_model_that_draws_random_numbers_is_not_recorded(draw):
    population = Population(make(lambda: Chancy(draw), IMAGES), members(), steps=LONG)
    population.advance(3)
    assert population._passes.reason == "it draws random numbers, and the next pass draws others"


@pytest.mark.parametrize("make_one", [random.Random, np.random.default_rng])
def test_a_models_own_generator_is_seen_to_move(make_one):
    class Own(Mlp):
        def __init__(self):
            super().__init__()
            self.chance = make_one(0)

        def forward(self, x):
            return super().forward(x) * (2.0 if self.chance.random() > 0.9999 else 1.0)

    population = Population(make(Own, IMAGES), members(), steps=LONG)
    population.advance(3)
    assert population._passes.reason.startswith("Own.chance changes with every pass")


class Hidden(nn.Module):
    """Changes after some passes, by something that nobody can see from outside."""

    asked = 0
    until = 20

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(144, 5)

    def forward(self, x):
        count = next(CALLS)
        return self.fc(x.flatten(1)) * (1.0 if count - Hidden.asked < Hidden.until else 2.0)


@pytest.mark.parametrize("look", ["evaluate", "state", "weights"])
def test_a_model_that_changes_unseen_is_found_out_before_anything_is_kept(look):
    task = Task(name="h", model=Hidden, loss=F.cross_entropy, train=(IMAGES, LABELS),
                val=(IMAGES[:50], LABELS[:50]))  # fmt: skip
    population = Population(task, members(), steps=LONG)
    Hidden.asked, Hidden.until = next(CALLS), 8
    population.advance(6)
    assert population._passes.reason == ""
    Hidden.until = 0
    with pytest.raises(UnsupportedError, match="computes something else by now"):
        {"evaluate": lambda: population.evaluate("val"), "state": lambda: population.state(0),
         "weights": lambda: population.weights(1)}[look]()  # fmt: skip


def test_a_model_that_is_never_twice_the_same_is_run_as_it_is_written():
    class Flickering(Hidden):
        def forward(self, x):
            return self.fc(x.flatten(1)) * (1.0 + next(CALLS) % 7)

    task = Task(name="f", model=Flickering, loss=F.cross_entropy, train=(IMAGES, LABELS))
    population = Population(task, members(), steps=LONG)
    population.advance(3)
    assert population._passes.reason == "what was recorded does not give the same bits"


def test_a_diverged_member_is_the_same_one_and_the_others_go_on():
    given = [*members(3), Member(lambda p: optim.build("sgd", p, lr=1e38), None, 3)]
    population = both(make(Mlp, IMAGES), given, steps=30)
    assert population._passes.reason == ""
    assert population.diverged_at[:3] == [None] * 3
    assert population.diverged_at[3] is not None


def test_a_captured_pass_is_given_every_batch_and_leaves_the_buffers_alone(monkeypatch):
    """Without a GPU: what a graph would repeat is run again, with the same memory."""
    captures = []

    def rerun(work):
        for _ in range(3):
            work()  # warming up must leave no trace, though it runs the pass
        captures.append(1)
        return work

    graphed = functools.partial(Graphed, capture=rerun)
    monkeypatch.setattr(recorded, "can_capture", lambda device: True)
    monkeypatch.setattr(recorded, "Graphed", graphed)
    model, x = ZOO["residual"]
    population = both(make(model, x))
    assert population._passes.reason == ""
    assert population._passes.no_graph == ""
    assert captures == [1]
    population.evaluate("val")


def test_what_cannot_be_captured_is_repeated_without_a_graph(monkeypatch):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorded, "can_capture", lambda device: True)
    monkeypatch.setattr(recorded, "Graphed", functools.partial(Graphed, capture=refuse))
    population = both(make(Mlp, IMAGES))
    assert population._passes.no_graph == "operation not permitted when stream is capturing"
    assert population._passes.reason == ""


def test_a_captured_pass_is_of_one_population():
    task = make(Mlp, IMAGES)
    one, other = (Population(task, members(), steps=LONG) for _ in range(2))
    one.advance(3)
    passes = one._passes
    x, y = one._batch(one._orders.numbers(3))
    tensors = passes._tensors(passes._buffers, x, y)
    held = Graphed(passes._recording, tensors, passes._places, batch=2, capture=lambda w: w() or w)
    others = other._passes._tensors(other._passes._buffers, x, y)
    with pytest.raises(RuntimeError, match="other parameters or buffers"):
        held(others, passes._places)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ZOO)
def test_on_a_gpu_a_pass_is_captured_and_gives_the_same_losses(name):
    model, x = ZOO[name]
    losses = []
    for record in (False, True):
        task = make(model, x, dtype=torch.float64)
        population = Population(task, members(), steps=LONG, recorded=record, device="cuda")
        losses.append([c.loss for c in population.advance(20)])
        population.evaluate("val")
    assert population._passes.no_graph == ""
    for a, b in zip(*losses, strict=True):
        assert abs(a - b).max() < 1e-6


def test_a_recording_lives_as_long_as_its_task():
    task = make(Mlp, IMAGES)
    population = Population(task, members(), steps=LONG)
    population.advance(4)
    assert task in recorded._RECORDED
    there = weakref.ref(task)
    del task, population
    gc.collect()
    assert there() is None


def test_rates_that_a_strangers_optimizer_changes_itself_are_recorded_as_they_are():
    class Falling(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                group["lr"] *= 0.5

    given = [Member(lambda p: Falling(p, lr=1.0), None, 0)]
    (chunk,) = Population(make(Mlp, IMAGES), given, steps=3).advance(3)
    assert chunk.lr.tolist() == [1.0, 0.5, 0.25]
