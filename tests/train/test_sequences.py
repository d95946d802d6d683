"""Batches of sequences: of similar lengths, the same for every arm, padding without effect."""

import pytest
import solo_runs
import torch
from torch import nn

from steepest.errors import TaskError
from steepest.train.population import Member, Population
from steepest.train.sequences import Sequences
from steepest.train.task import Task

G = torch.Generator().manual_seed(0)
N, L = 203, 30
LENGTHS = torch.randint(1, L + 1, (N,), generator=G)
TOKENS = torch.randint(1, 50, (N, L), generator=G)
Y = (TOKENS[:, 0] % 3).long()


class Bag(nn.Module):
    """Mean of embeddings over what the mask lets through."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        x = self.drop(self.embedding(input_ids)) * attention_mask[..., None]
        return self.out(x.sum(1) / attention_mask.sum(1, keepdim=True))


def make():
    return Task(
        name="bag",
        model=Bag,
        loss=nn.functional.cross_entropy,
        train=Sequences(TOKENS, LENGTHS, Y),
        val=Sequences(TOKENS[:50], LENGTHS[:50], Y[:50]),
        batch_size=10,
        eval_batch_size=16,
    )


def test_an_epoch_visits_every_full_batch_once_and_in_an_order_of_its_seed():
    source = make().train.open(torch.device("cpu"))
    order = source.order(0, 0, 10)
    assert sorted(order.tolist()) == list(range(N))
    assert torch.equal(order, source.order(0, 0, 10))
    assert not torch.equal(order, source.order(1, 0, 10))
    assert not torch.equal(order, source.order(0, 1, 10))


def test_batches_hold_similar_lengths_in_no_order_of_length():
    source = make().train.open(torch.device("cpu"))
    order = source.order(0, 0, 10)
    lengths = LENGTHS[order][:200].view(20, 10)
    widths = [source.batch(part)[0]["input_ids"].shape[1] for part in order[:200].split(10)]
    assert 1 - lengths.sum() / (10 * sum(widths)) < 0.3 < 0.4 < 1 - LENGTHS.float().mean() / L
    assert widths != sorted(widths)


def test_shapes_are_those_of_the_step_and_contents_those_of_the_seed():
    source = make().train.open(torch.device("cpu"))
    for epoch in (0, 1):
        widths, contents = [], []
        for seed in (0, 1, 2):
            parts = source.order(seed, epoch, 10)[:200].split(10)
            widths.append([source.batch(part)[0]["input_ids"].shape[1] for part in parts])
            contents.append([sorted(part.tolist()) for part in parts])
        assert widths[0] == widths[1] == widths[2]
        assert not any(a == b for a, b in zip(*contents[:2], strict=True))


def test_whoever_is_left_out_of_an_epoch_is_drawn_anew():
    source = make().train.open(torch.device("cpu"))
    left = {tuple(source.order(0, epoch, 10)[200:].tolist()) for epoch in range(20)}
    assert len(left) > 15


def test_a_batch_is_padded_to_its_longest_and_masks_the_rest():
    x, y = make().train.open(torch.device("cpu")).batch(torch.tensor([3, 8]))
    longest = int(LENGTHS[[3, 8]].max())
    assert x["input_ids"].shape == (2, min(L, -(-longest // 8) * 8))
    assert x["attention_mask"].sum(1).tolist() == LENGTHS[[3, 8]].tolist()
    assert y.tolist() == Y[[3, 8]].tolist()


def test_a_member_equals_its_solo_run():
    population = Population(make(), [Member(solo_runs.adam, None, s) for s in (0, 1)], steps=45)
    chunks = population.advance(45)
    for place in (0, 1):
        run = solo_runs.solo(make(), seed=place, steps=45)
        torch.testing.assert_close(run.advance(45).loss, chunks[place].loss, rtol=1e-4, atol=1e-6)
        assert run.order_hash == population.order_hash(place)
        ours, theirs = run.evaluate("val")["loss"], population.evaluate("val")[place]["loss"]
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_stopped_run_goes_on_bitwise():
    whole, first, second = (solo_runs.solo(make(), steps=45) for _ in range(3))
    whole.advance(45)
    first.advance(13)
    second.restore(first.state())
    second.advance(32)
    assert solo_runs.bits(second) == solo_runs.bits(whole)


def test_one_changed_token_is_another_task():
    changed = TOKENS.clone()
    changed[100, 5] += 1
    other = Task(**{**solo_runs_fields(make()), "train": Sequences(changed, LENGTHS, Y)})
    assert make().fingerprint()["train"] != other.fingerprint()["train"]
    assert make().fingerprint()["val"] == other.fingerprint()["val"]


def solo_runs_fields(task):
    return {name: getattr(task, name) for name in ("name", "model", "loss", "train", "val")}


def test_wrong_shapes_and_lengths_are_refused():
    with pytest.raises(TaskError, match=r"tokens \[N, L\]"):
        Sequences(TOKENS, LENGTHS[:5], Y)
    with pytest.raises(TaskError, match=r"must be 1 to 30, got 0 to"):
        Sequences(TOKENS, LENGTHS - LENGTHS.min(), Y)
