"""Populations look their batches up ahead, and count in what they hand out."""

import pytest
import torch

from steepest.errors import InputError
from steepest.train.data import OrderStream, TensorSource
from steepest.train.orders import Orders

CPU = torch.device("cpu")


def source(n=1000):
    x = torch.arange(n)
    return TensorSource((x, x), CPU)


def test_every_member_is_given_what_its_stream_gives_over_epochs_and_windows():
    orders = Orders(source(), [4, 7, 4], 6, CPU)
    streams = {seed: OrderStream(source(), seed=seed, batch_size=6) for seed in (4, 7)}
    assert orders.steps_per_epoch == 166
    for step in range(400):
        x = {seed: stream.batch(step)[0] for seed, stream in streams.items()}
        assert torch.equal(orders.numbers(step), torch.cat([x[4], x[7], x[4]]))
        if step % 37 == 0 or step in (63, 64, 165, 166, 331, 332):
            for place, seed in enumerate((4, 7, 4)):
                assert orders.digest(place, step + 1) == streams[seed].digest.hex()


@pytest.mark.parametrize("steps", [0, 5, 64, 166, 200])
def test_they_go_on_where_they_were_left(steps):
    whole, again = (Orders(source(), [1, 2], 6, CPU) for _ in range(2))
    for step in range(steps):
        whole.numbers(step)
    for place in range(2):
        again.restore(place, steps, whole.digest(place, steps))
    for step in range(steps, steps + 190):
        assert torch.equal(whole.numbers(step), again.numbers(step))
    assert whole.digest(1, steps + 190) == again.digest(1, steps + 190)


def test_another_order_is_noticed():
    one = Orders(source(), [1], 6, CPU)
    for step in range(10):
        one.numbers(step)
    with pytest.raises(InputError, match="its batches came in another order"):
        Orders(source(), [2], 6, CPU).restore(0, 10, one.digest(0, 10))
