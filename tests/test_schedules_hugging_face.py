"""Every schedule that Hugging Face has too, against their own code at every step."""

import pytest
import torch

from steepest.schedules import parse

optimization = pytest.importorskip(
    "transformers.optimization",
    reason="transformers is not installed; it comes with 'steepest[hf]'",
)

T, LR = 97, 0.5


def theirs(make, *arguments, **more):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer, *arguments, **more)
    rates = []
    for _ in range(T):
        rates.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        scheduler.step()
    return rates


W = 8
CASES = {
    "constant()": ("get_constant_schedule", (), {}),
    f"constant(warmup={W})": ("get_constant_schedule_with_warmup", (W,), {}),
    f"linear(warmup={W})": ("get_linear_schedule_with_warmup", (W, T), {}),
    "linear()": ("get_linear_schedule_with_warmup", (0, T), {}),
    f"cosine(warmup={W})": ("get_cosine_schedule_with_warmup", (W, T), {}),
    f"cosine(warmup={W}, final=0.1)": (
        "get_cosine_with_min_lr_schedule_with_warmup",
        (W, T),
        {"min_lr_rate": 0.1},
    ),
    f"cosine_restarts(period={1 / 3}, warmup={W})": (
        "get_cosine_with_hard_restarts_schedule_with_warmup",
        (W, T),
        {"num_cycles": 3},
    ),
    f"polynomial(power=1.7, final=0.1, warmup={W})": (
        "get_polynomial_decay_schedule_with_warmup",
        (W, T),
        {"lr_end": 0.1 * LR, "power": 1.7},
    ),
    f"inverse_sqrt(warmup={W})": ("get_inverse_sqrt_schedule", (W,), {}),
    "inverse_sqrt(timescale=30, warmup=8)": ("get_inverse_sqrt_schedule", (W, 30), {}),
    "inverse_sqrt()": ("get_inverse_sqrt_schedule", (0,), {}),
    f"wsd(decay=30, warmup={W})": (
        "get_wsd_schedule",
        (W, 30, T),
        {"decay_type": "linear"},
    ),
    # with a floor their warmup starts at the floor, where every other one of theirs starts at 0
    "wsd(decay=30, shape=cosine, final=0.05)": (
        "get_wsd_schedule",
        (0, 30, T),
        {"decay_type": "cosine", "min_lr_ratio": 0.05},
    ),
    f"wsd(decay=30, shape=sqrt, warmup={W})": (
        "get_wsd_schedule",
        (W, 30, T),
        {"decay_type": "1-sqrt"},
    ),
}


@pytest.mark.parametrize("text", CASES)
def test_the_rates_are_hugging_faces_at_every_step(text):
    name, arguments, more = CASES[text]
    schedule = parse(text)
    ours = [schedule(s, T) for s in range(T)]
    expected = theirs(getattr(optimization, name), *arguments, **more)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len(set(expected)) > 1 or text == "constant()"


def test_a_warmup_given_as_a_fraction_has_as_many_steps_as_their_trainers():
    from transformers import TrainingArguments

    warmup = TrainingArguments(output_dir="unused", warmup_steps=0.05).get_warmup_steps(T)
    name, arguments, _ = CASES[f"linear(warmup={W})"]
    expected = theirs(getattr(optimization, name), warmup, *arguments[1:])
    schedule = parse("linear(warmup=0.05)")
    assert [schedule(s, T) for s in range(T)] == pytest.approx(expected, rel=1e-9)
