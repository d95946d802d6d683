"""What a task spares from decay is spared in every engine, for every optimizer, and only that."""

import dataclasses

import pytest
import solo_runs
import torch
from torch import nn

from steepest import optim
from steepest.racing.plan import plan
from steepest.train.decay import spare_decay, vectors
from steepest.train.population import Member, Population
from steepest.train.task import Task

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 6, generator=G), torch.randint(0, 3, (64,), generator=G)


def model():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def make(no_decay=vectors):
    return Task(
        name="t",
        model=model,
        loss=nn.functional.cross_entropy,
        train=(X, Y),
        batch_size=16,
        no_decay=no_decay,
    )


def by_hand(seed_run, steps):
    """The loop that a person would write, with two parameter groups, from the run's own start."""
    net = model()
    net.load_state_dict(seed_run.model.state_dict())
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=0.01, weight_decay=1.0
    )
    for k in range(steps):
        x, y = seed_run._stream.source.batch(seed_run._stream.indices(k))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return dict(net.named_parameters())


@pytest.mark.parametrize("cls", [torch.optim.AdamW, optim.AdamW])
def test_solo_equals_a_loop_with_two_groups(cls):
    run = solo_runs.solo(
        make(), optimizer=lambda p: cls(p, lr=0.01, weight_decay=1.0), seed=3, steps=12
    )
    expected = by_hand(run, 12)
    run.advance(12)
    for name, p in run.model.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-5, atol=1e-6)
    decayed = solo_runs.solo(
        make(None), optimizer=lambda p: cls(p, lr=0.01, weight_decay=1.0), seed=3, steps=12
    )
    decayed.advance(12)
    gain = dict(decayed.model.named_parameters())["1.weight"]
    assert (gain - expected["1.weight"]).abs().max() > 0.05  # twelve steps of decay 0.01


@pytest.mark.parametrize("cls", [torch.optim.AdamW, optim.AdamW])
def test_a_member_equals_its_solo_run(cls):
    def optimizer(p):
        return cls(p, lr=0.01, weight_decay=1.0)

    population = Population(make(), [Member(optimizer, None, s) for s in (0, 1)], steps=8)
    population.advance(8)
    for place, seed in enumerate((0, 1)):
        run = solo_runs.solo(make(), optimizer=optimizer, seed=seed, steps=8)
        run.advance(8)
        for name, tensor in population.weights(place).items():
            torch.testing.assert_close(tensor, run.weights()[name], rtol=1e-5, atol=1e-6)


def test_a_stopped_run_goes_on_bitwise():
    def start():
        return solo_runs.solo(
            make(), optimizer=lambda p: optim.AdamW(p, weight_decay=0.5), seed=1, steps=10
        )

    whole, first, second = start(), start(), start()
    whole.advance(10)
    first.advance(4)
    second.restore(first.state())
    second.advance(6)
    assert solo_runs.bits(second) == solo_runs.bits(whole)


def test_groups_with_names_are_split_with_their_names():
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters(), weight_decay=0.1)
    spare_decay(optimizer, [p for n, p in net.named_parameters() if vectors(n, p)])
    decayed, spared = optimizer.param_groups
    assert decayed["param_names"] == ["0.weight", "3.weight"]
    assert spared["param_names"] == ["0.bias", "1.weight", "1.bias", "3.bias"]
    assert spared["weight_decay"] == 0.0


def test_an_optimizer_without_decay_keeps_its_groups():
    net = model()
    for optimizer in (
        torch.optim.Rprop(net.parameters()),
        torch.optim.SGD(net.parameters(), lr=0.1),
    ):
        spare_decay(optimizer, [p for n, p in net.named_parameters() if vectors(n, p)])
        assert len(optimizer.param_groups) == 1


def test_what_is_spared_and_noted_reaches_the_plan():
    task = make()
    assert "no_decay" in task.fingerprint()
    assert "no_decay" not in make(None).fingerprint()
    noted = dataclasses.replace(task, notes=("columns were guessed",))
    assert plan(noted, ["adamw()"]).notes[0] == "columns were guessed"


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match=r"no_decay must be a function, got tuple"):
        make(("bias",))
