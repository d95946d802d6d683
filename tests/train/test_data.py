"""Batches come in an order that is a function of (seed, epoch), from every kind of data."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steepest.errors import TaskError
from steepest.train.data import eval_batches, join, open_stream, sample
from steepest.train.randomness import batch_order

CPU = torch.device("cpu")
X, Y = torch.arange(50.0)[:, None], torch.arange(50)


def stream(data, *, seed=0, batch_size=None, default=8):
    return open_stream(
        data, seed=seed, batch_size=batch_size, default=default, device=CPU, where="task 't': train"
    )


def loader(**changes):
    given = {"batch_size": 8, "shuffle": True, "drop_last": True} | changes
    return lambda: DataLoader(TensorDataset(X, Y), **given)


def targets(s, steps):
    return [s.batch(k)[1].tolist() for k in steps]


def flat(batches):
    return [i for batch in batches for i in batch]


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y)], ids=["tensors", "dataset"])
def test_an_epoch_is_the_permutation_cut_into_full_batches(data):
    s = stream(data, seed=3)
    assert s.steps_per_epoch == 6
    for epoch in range(2):
        seen = flat(targets(s, range(6 * epoch, 6 * epoch + 6)))
        assert seen == batch_order(3, epoch, 50)[:48].tolist()


def test_x_and_y_stay_together_in_tuples_and_dicts():
    s = stream(({"a": X, "b": X + 1}, Y))
    x, y = s.batch(0)
    assert torch.equal(x["a"][:, 0], y.float())
    assert torch.equal(x["b"][:, 0], y.float() + 1)
    x, y = stream(((X, -X), Y)).batch(0)
    assert torch.equal(x[1][:, 0], -y.float())


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y), loader()], ids=["t", "d", "l"])
def test_order_hashes_are_equal_for_equal_seeds_and_differ_otherwise(data):
    def hashed(seed, steps):
        s = stream(data, seed=seed)
        for k in steps:
            s.batch(k)
        return s.digest

    assert hashed(1, range(9)) == hashed(1, range(9))
    assert hashed(1, range(9)) != hashed(2, range(9))
    assert hashed(1, range(9)) != hashed(1, range(8))
    assert hashed(1, range(9)) != hashed(1, [0, 2, 1, 3, 4, 5, 6, 7, 8])


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y), loader()], ids=["t", "d", "l"])
def test_a_stream_entered_in_the_middle_goes_on_as_if_it_had_been_there(data):
    whole = targets(stream(data), range(15))
    assert targets(stream(data), range(9, 15)) == whole[9:]
    again = stream(data)
    again.batch(0)
    assert targets(again, range(15)) == whole


@pytest.mark.parametrize("own", [False, True], ids=["global generator", "the loader's own"])
def test_a_loaders_shuffling_is_a_function_of_seed_and_epoch(own):
    make = loader(generator=torch.Generator()) if own else loader()
    first = targets(stream(make), range(12))
    torch.rand(7)
    assert targets(stream(make), range(12)) == first
    assert targets(stream(make, seed=1), range(12)) != first
    assert sorted(flat(first[:6])) != sorted(range(48)), "shuffled before the last is dropped"
    assert first[:6] != first[6:]


class _Noisy(Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, i):
        return torch.rand(1), Y[i]


def test_augmentation_in_a_dataset_is_a_function_of_seed_and_step():
    for data in (_Noisy(), lambda: DataLoader(_Noisy(), batch_size=8, shuffle=True)):
        whole = [stream(data).batch(k)[0] for k in range(5)]
        one = stream(data)
        torch.rand(3)
        assert torch.equal(one.batch(4)[0], whole[4])
        assert not torch.equal(whole[3], whole[4])


@pytest.mark.slow
def test_worker_processes_change_no_batch():
    make = loader(num_workers=1)
    assert targets(stream(make), range(8)) == targets(stream(loader()), range(8))


def test_evaluation_reads_every_example_in_order():
    for data in ((X, Y), TensorDataset(X, Y), loader(shuffle=False, drop_last=False)):
        parts = list(eval_batches(data, batch_size=16, device=CPU, where="w"))
        assert torch.cat([y for _, y in parts]).tolist() == list(range(50))


def test_a_sample_is_spread_evenly():
    assert sample((X, Y), 6, where="w")[1].tolist() == [0, 10, 20, 29, 39, 49]
    assert len(sample((X, Y), 1000, where="w")[1]) == 50


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(TaskError, match=r"a batch of 51 is larger than the data \(50 examples\)"):
        stream((X, Y), batch_size=51)
    with pytest.raises(TaskError, match="must be at least 1, got 0"):
        stream((X, Y), batch_size=0)


def test_a_loader_keeps_its_own_batch_size():
    assert len(stream(loader(), batch_size=8).batch(0)[1]) == 8
    with pytest.raises(TaskError, match=r"batch size 4 was asked for, but its DataLoader .* of 8"):
        stream(loader(), batch_size=4)


def test_loaders_that_cannot_serve_are_refused():
    with pytest.raises(TaskError, match="must return a torch DataLoader, got int"):
        stream(lambda: 3)
    with pytest.raises(TaskError, match="yields no batch"):
        stream(loader(batch_size=64))

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(TaskError, match="has no length"):
        stream(lambda: DataLoader(Endless()))

    class Liar(Endless):
        def __len__(self):
            return 5

    with pytest.raises(TaskError, match="ended before its len"):
        stream(lambda: DataLoader(Liar())).batch(0)


class _Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_examples_that_do_not_fit_together_are_refused():
    unequal = _Rows([(torch.zeros(i + 1), i) for i in range(8)])
    with pytest.raises(TaskError, match=r"cannot be put into one batch.*equal in shape"):
        stream(unequal, batch_size=4).batch(0)
    with pytest.raises(TaskError, match=r"must be a pair \(x, y\); got"):
        stream(_Rows([(1.0, 2.0, 3) for _ in range(8)]), batch_size=4).batch(0)
    with pytest.raises(TaskError, match=r"must be a pair \(x, y\); got Tensor"):
        stream(_Rows([torch.zeros(3) for _ in range(8)]), batch_size=4).batch(0)


def test_splits_are_joined_in_order():
    x, y = join(({"a": X}, Y), ({"a": X + 50}, Y + 50), where="w")
    assert y.tolist() == list(range(100)) == x["a"][:, 0].long().tolist()
    assert len(join(TensorDataset(X, Y), TensorDataset(X, Y), where="w")) == 100
    with pytest.raises(TaskError, match="both are tensors or both are Datasets"):
        join((X, Y), TensorDataset(X, Y), where="w")
