"""Runs that keep step, both ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from steepest.errors import InputError
from steepest.schedules import cosine
from steepest.train import checkpoint
from steepest.train.group import Group, how_to_train
from steepest.train.population import Member
from steepest.train.solo import SoloRun
from steepest.train.task import Task


def _data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, :3] + torch.randn(n, 3, generator=generator)).argmax(1)


@pytest.fixture
def task():
    return Task(
        name="tiny",
        model=lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
        loss=cross_entropy,
        train=_data(96, 0),
        batch_size=16,
    )


def _members(seeds=(0, 1, 2)):
    return [
        Member(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), cosine(), seed) for seed in seeds
    ]


@pytest.mark.parametrize("together", [True, False])
def test_every_run_is_what_it_is_alone(task, together):
    group = Group(task, _members(), steps=12, together=together)
    group.advance(12)
    for place, member in enumerate(_members()):
        alone = SoloRun(task, optimizer=member.optimizer, schedule=cosine(), seed=place, steps=12)
        alone.advance(12)
        model = group.model(place)
        assert not model.training
        for (name, a), (_, b) in zip(
            model.state_dict().items(), alone.model.state_dict().items(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
        for name, tensor in group.of(place, group.live()).items():
            assert torch.equal(tensor, dict(model.named_parameters())[name])


@pytest.mark.parametrize("together", [True, False])
def test_a_saved_group_goes_on_bitwise_also_with_a_run_that_diverged(task, together, tmp_path):
    wild = Member(lambda p: torch.optim.SGD(p, lr=1e30), None, 5)
    members = [*_members((0, 1)), wild]
    group = Group(task, members, steps=15, together=together)
    group.advance(7)
    assert group.alive == [0, 1]
    checkpoint.save(tmp_path / "g.safetensors", group.state())
    group.advance(8)
    again = Group(task, members, steps=15, together=together)
    again.restore(checkpoint.load(tmp_path / "g.safetensors"))
    assert (again.position, again.alive) == (7, [0, 1])
    again.advance(8)
    for name, tensor in group.live().items():
        assert torch.equal(tensor, again.live()[name]) or not tensor.isfinite().all()
    with pytest.raises(InputError, match="has 3 runs, the group 2"):
        Group(task, _members((0, 1)), steps=15, together=together).restore(group.state())


def test_what_cannot_be_batched_is_trained_one_by_one_with_the_reason(task):
    class Branch(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > -1e9 else x

    branching = Task(
        name="b", model=lambda: Branch(6, 3), loss=cross_entropy, train=task.train, batch_size=16
    )
    size, together, why = how_to_train(branching, _members(), steps=10, batch_size=16, device="cpu")
    assert (size, together) == (1, False)
    assert "cannot be batched" in why
    assert "control flow" in why


def test_what_can_be_batched_is_timed_both_ways(task):
    size, together, why = how_to_train(task, _members(), steps=30, batch_size=16, device="cpu")
    assert size == (3 if together else 1)
    assert "ms per step of a run there" in why
