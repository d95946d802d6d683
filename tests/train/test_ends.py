"""Runs that end before their time, alone and as members: guarded blow-ups, and stopping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from solo_runs import accuracy
from torch import nn
from torch.nn import functional as F

from steepest import optim
from steepest.errors import InputError
from steepest.train.checkpoint import load, save
from steepest.train.guard import GuardRule
from steepest.train.population import Member, Population
from steepest.train.solo import SoloRun
from steepest.train.task import Task

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(200, 12, generator=G), torch.randint(0, 5, (200,), generator=G)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(F.relu(self.norm(self.first(x)))) ** 2  # squares blow up fast


def make(dtype=torch.float32):
    x = X.to(dtype)
    return Task(
        name="t",
        model=lambda: Net().to(dtype),
        loss=F.cross_entropy,
        train=(x[:160], Y[:160]),
        val=(x[160:], Y[160:]),
        metrics={"accuracy": accuracy},
        batch_size=16,
    )


def late(step, total):
    """A schedule that lets a run be healthy until step 24."""
    return 1.0 if step < 24 else 1e4


def member(seed, *, lr=0.02, schedule=None, guard=None):
    return Member(lambda p: optim.SGD(p, lr=lr), schedule, seed, guard)


def alone(task, given, steps=40):
    return SoloRun(
        task,
        optimizer=given.optimizer,
        schedule=given.schedule,
        seed=given.seed,
        steps=steps,
        guard=given.guard,
    )


GUARD = GuardRule(factor=4, steps=3, every=5)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_a_guarded_member_with_rate_1e6_changes_no_bit_of_the_31_others():
    task, rule = make(), GuardRule(threshold=1e3)
    members = [member(s, guard=rule) for s in range(32)]
    sick = [*members[:7], member(7, lr=1e6, guard=rule), *members[8:]]
    well, ill = Population(task, members, steps=30), Population(task, sick, steps=30)
    for _ in range(3):
        chunks = [p.advance(10) for p in (well, ill)]
        for place in (i for i in range(32) if i != 7):
            assert (chunks[0][place].loss == chunks[1][place].loss).all()
    for place in (i for i in range(32) if i != 7):
        assert same(well.weights(place), ill.weights(place))
    assert ill.diverged_at[7] == 1  # finite still: it is the guard's threshold that ended it
    assert ill.evaluate("val")[7] is None
    assert well.diverged_at == [None] * 32


def test_the_loss_that_ended_it_was_finite_and_the_weights_are_those_from_before():
    task, given = make(), member(7, lr=1e6, guard=GuardRule(threshold=1e3))
    run = alone(task, given)
    start = run.weights()
    chunk = run.advance(40)
    assert np.isfinite(chunk.loss).all()
    assert chunk.loss[-1] > 1e3
    assert chunk.reason.startswith("its loss was ")
    assert same(run.weights(), start)  # nothing but the start was known to be good
    assert len(chunk.loss) == 2
    assert run.advance(5).loss.size == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_guarded_member_ends_where_its_solo_run_does_with_the_same_weights(dtype):
    task = make(dtype)
    members = [member(0), member(1, schedule=late, guard=GUARD), member(2, guard=GUARD)]
    population = Population(task, members, steps=40)
    chunks = population.advance(40)
    solo = alone(task, members[1])
    chunk = solo.advance(40)
    assert 24 < solo.diverged_at < 39
    assert population.diverged_at == [None, solo.diverged_at, None]
    assert chunks[1].reason == chunk.reason != ""
    assert "4 × its running median" in chunk.reason
    unguarded = alone(task, member(1, schedule=late))
    unguarded.advance(20)  # the last keeping: every 5 steps, and calm
    assert same(solo.weights(), unguarded.weights())
    for name, value in solo.weights().items():
        assert torch.allclose(population.weights(1)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [3, 19, 25])
def test_guarded_runs_go_on_from_saved_states_bit_for_bit(cut, tmp_path):
    task = make()
    members = [member(0), member(1, schedule=late, guard=GUARD), member(2, guard=GUARD)]
    whole, part = (Population(task, members, steps=40) for _ in range(2))
    expected = whole.advance(40)
    part.advance(cut)
    for i in range(3):
        save(tmp_path / f"{i}.safetensors", part.state(i))
    again = Population(task, members, steps=40)
    again.restore([load(tmp_path / f"{i}.safetensors") for i in range(3)])
    for place, chunk in enumerate(again.advance(40)):
        assert np.array_equal(chunk.loss, expected[place].loss[cut:])
        assert same(again.weights(place), whole.weights(place))
    assert again.diverged_at == whole.diverged_at

    one = alone(task, members[1])
    one.advance(40)
    two = alone(task, members[1])
    two.advance(cut)
    save(tmp_path / "solo.safetensors", two.state())
    three = alone(task, members[1])
    three.restore(load(tmp_path / "solo.safetensors"))
    three.advance(40)
    assert three.diverged_at == one.diverged_at
    assert same(three.weights(), one.weights())


def test_a_checkpoint_without_the_guard_is_refused():
    task = make()
    run = alone(task, member(0))
    run.advance(3)
    with pytest.raises(InputError, match="without a guard"):
        alone(task, member(0, guard=GUARD)).restore(run.state())


def test_a_stopped_member_is_frozen_and_changes_no_bit_of_the_others():
    task = make()
    members = [member(s) for s in range(6)]
    whole, part = (Population(task, members, steps=40) for _ in range(2))
    for population in (whole, part):
        population.advance(10)
    kept, order = part.weights(2), part.order_hash(2)
    part.stop(2)
    assert (part.stopped_at[2], part.diverged_at[2]) == (10, None)
    chunks = [p.advance(10) for p in (whole, part)]
    assert len(chunks[1][2].loss) == 0
    for place in (0, 1, 3, 4, 5):
        assert (chunks[0][place].loss == chunks[1][place].loss).all()
    assert same(part.weights(2), kept)
    assert part.order_hash(2) == order
    assert part.evaluate("val")[2] is None
    assert part.alive == [0, 1, 3, 4, 5]


def test_stopped_members_leave_their_places_when_the_others_move_together():
    task = make()
    population = Population(task, [member(s) for s in range(4)], steps=40)
    population.advance(10)
    for place in (0, 3):
        population.stop(place)
    assert population.left() == [0, 3]
    smaller, places = population.compacted()
    assert places == [1, 2]
    for mine, theirs in zip(smaller.advance(10), population.advance(10)[1:3], strict=True):
        assert np.allclose(mine.loss, theirs.loss, rtol=1e-5)


def test_one_that_is_known_to_end_later_keeps_its_place():
    task = make()
    population = Population(task, [member(s) for s in range(3)], steps=40)
    population.freeze(1, 24)  # it did end there, before an interruption
    population.advance(10)
    assert population.left() == []
    assert len(population.compacted()[0]) == 3
    population.advance(15)
    assert population.left() == [1]
    assert math.isfinite(population.evaluate("val")[0]["loss"])
