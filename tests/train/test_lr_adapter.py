"""The LambdaLR adapter: the same rates, saved and loaded mid-run."""

import io

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from steepest import schedules
from steepest.errors import InputError
from steepest.schedules import cosine, parse
from steepest.train.lr_adapter import to_lambda_lr

TOTAL = 40


def make(schedule="cosine(warmup=0.1)", lr=0.5):
    parameters = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=lr)
    return optimizer, to_lambda_lr(optimizer, schedule, total=TOTAL)


def train(optimizer, scheduler, steps):
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("text", ["cosine(warmup=0.1)", "one_cycle()", "wsd(decay=0.5)"])
def test_every_group_follows_the_schedule_from_its_own_rate(text):
    schedule = parse(text)
    rates = train(*make(text), TOTAL)
    expected = [[0.5 * schedule(s, TOTAL), 0.1 * schedule(s, TOTAL)] for s in range(TOTAL)]
    for row, wanted in zip(rates, expected, strict=True):
        assert row == pytest.approx(wanted)


def test_schedules_and_their_texts_are_both_taken():
    assert isinstance(make(cosine(warmup=4))[1], LambdaLR)
    assert train(*make(cosine(warmup=4)), 9) == train(*make("cosine(warmup=4)"), 9)


EVERY = [f"{name}(warmup=3)" for name in schedules.names()]


@pytest.mark.parametrize(
    ("text", "stop"),
    [("cosine(warmup=0.1)", stop) for stop in (0, 1, 39)] + [(t, 13) for t in EVERY],
)
def test_saved_and_loaded_mid_run_goes_on_as_if_nothing_had_happened(text, stop):
    whole = train(*make(text), TOTAL)
    assert len({rates[0] for rates in whole}) > 1
    optimizer, scheduler = make(text)
    first = train(optimizer, scheduler, stop)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)  # plain values only: nothing is unpickled
    optimizer, scheduler = make("linear()", lr=9.0)  # all of it comes from the state
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    assert first + train(optimizer, scheduler, TOTAL - stop) == whole


def test_schedule_that_does_not_fit_the_run_is_refused_at_once():
    with pytest.raises(InputError, match="leaves nothing"):
        make("cosine(warmup=50)")
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        make("cosin")
