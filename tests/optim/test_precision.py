"""Parameters of 16 bits: float32 slots beside them, and rounding that is right on average."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch

from steepest import optim
from steepest.errors import InputError, UnsupportedError

N = 60_000


def run(
    steps, *, rule="sgd", threads=None, start=1.0, seed=0, cuts=(N,), dtype=torch.bfloat16, **v
):
    """Parameters after steps against a constant gradient of 1."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        params = [torch.nn.Parameter(torch.full((n,), start, dtype=dtype)) for n in cuts]
        v = {"rounding": "stochastic", "rounding_seed": seed, **v}
        optimizer = optim.build(rule, params, **v)
        for _ in range(steps):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        return params, optimizer
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("steps", [1, 16])
def test_steps_far_below_the_last_bit_count_on_average(steps):
    """1 - 1e-3 is an eighth of the way to bfloat16's next lower neighbour, 1 - 2**-8."""
    (p,), _ = run(steps, lr=5e-4)
    mean, spread = p.detach().double().mean().item(), 2**-8 / 2
    tolerance = 5 * spread * np.sqrt(steps / N)  # of the mean of N coins, 5 deviations
    assert mean == pytest.approx(1 - 5e-4 * steps, abs=tolerance)
    assert set(p.unique().tolist()) <= {1 - i * 2**-8 for i in range(steps + 1)}


def test_rounding_to_nearest_would_have_lost_them():
    (p,), _ = run(16, lr=5e-4, rounding="nearest")
    assert p.unique().tolist() == [1.0]


def test_neighbours_and_steps_draw_independent_numbers():
    """As many pairs both go down as two independent coins would."""
    share = 5e-4 * 2**8
    (first,), _ = run(1, lr=5e-4)
    down = (first.detach() < 1).double()
    both = (down[1:] * down[:-1]).mean().item()
    assert both == pytest.approx(share**2, abs=5 * share / np.sqrt(N))
    (second,), _ = run(2, lr=5e-4)
    twice = (second.detach().float() < 1 - 1.5 * 2**-8).double().mean().item()
    assert twice == pytest.approx(share**2, abs=5 * share / np.sqrt(N))
    a, b = (run(1, lr=5e-4, cuts=(N, N))[0][i].detach() < 1 for i in (0, 1))
    assert (a & b).double().mean().item() == pytest.approx(share**2, abs=5 * share / np.sqrt(N))


def test_the_same_seed_rounds_the_same_way_whatever_the_threads():
    results = [
        run(5, lr=5e-4, rule="adam", threads=threads, seed=seed, cuts=(200_000, 7))[0]
        for threads, seed in ((1, 3), (2, 3), (1, 4))
    ]
    assert all(torch.equal(p, q) for p, q in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])


def test_a_second_moment_in_bfloat16_moves_too():
    """By 1e-3 a step, below its last bit; to nearest it stands still."""
    means = {}
    for rounding in ("nearest", "stochastic"):
        (p,), optimizer = run(1, rule="adam", rounding=rounding)
        state = optimizer.state[p]
        state["exp_avg_sq"].fill_(0.5)
        for _ in range(8):
            optimizer.step()
        means[rounding] = state["exp_avg_sq"].double().mean().item()
    expected = 1 - 0.5 * 0.999**8
    assert means["nearest"] == 0.5
    assert means["stochastic"] == pytest.approx(expected, abs=1e-4)


def test_infinities_and_nan_stay_what_they_are():
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0, 3e38], dtype=torch.bfloat16))
    inf = float("inf")
    p.grad = torch.tensor([inf, -inf, float("nan"), 0.0], dtype=torch.bfloat16)
    optim.build("sgd", [p], lr=1.0, rounding="stochastic").step()
    assert p[:2].tolist() == [-inf, inf]
    assert p[2].isnan()
    assert p[3] == torch.tensor(3e38, dtype=torch.bfloat16)


@pytest.mark.parametrize("rule", ["adam", "sgd", "lamb", "prodigy"])
@pytest.mark.parametrize("engine", ["kernel", "eager"])
def test_slots_of_float32_are_those_of_a_float32_run(rule, engine):
    extra = {"momentum": 0.9} if rule == "sgd" else {}
    torch.manual_seed(0)
    half = torch.nn.Parameter(torch.randn(50).bfloat16())
    full = torch.nn.Parameter(half.detach().float())
    a = optim.build(rule, [half], engine=engine, slot_dtype=torch.float32, **extra)
    b = optim.build(rule, [full], engine=engine, **extra)
    half.grad = torch.randn(50).bfloat16()
    full.grad = half.grad.float()
    a.step()
    b.step()
    for name, slot in b.state[full].items():
        assert a.state[half][name].dtype is torch.float32
        torch.testing.assert_close(a.state[half][name], slot, rtol=1e-6, atol=0)
    assert torch.equal(half, full.bfloat16())


@pytest.mark.parametrize("values", [{"slot_dtype": torch.float32}, {"rounding": "stochastic"}])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(values):
    def fresh():
        return torch.nn.Parameter(torch.linspace(-1, 1, 300).bfloat16())

    def steps(p, optimizer, numbers):
        for i in numbers:
            p.grad = torch.full_like(p, 0.1 * (i + 1))
            optimizer.step()

    p, q = fresh(), fresh()
    a = optim.build("adamw", [p], **values)
    steps(p, a, range(6))
    b = optim.build("adamw", [q], **values)
    steps(q, b, range(3))
    file = io.BytesIO()
    torch.save(b.state_dict(), file)
    file.seek(0)
    r = torch.nn.Parameter(q.detach().clone())
    c = optim.build("adamw", [r])  # the groups come with the state
    c.load_state_dict(torch.load(file, weights_only=True))
    assert c.param_groups[0].get("rounding", "nearest") == values.get("rounding", "nearest")
    steps(r, c, range(3, 6))
    assert torch.equal(p, r)
    for name, slot in a.state[p].items():
        assert c.state[r][name].dtype is slot.dtype
        assert torch.equal(c.state[r][name], slot)


def test_a_checkpoint_of_torch_is_widened():
    p = torch.nn.Parameter(torch.ones(5).bfloat16())
    p.grad = torch.ones_like(p)
    theirs = torch.optim.AdamW([p])
    theirs.step()
    ours = optim.build("adamw", [p], slot_dtype=torch.float32)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert ours.state[p]["exp_avg"].dtype is torch.float32
    ours.step()
    assert ours._prepared is not None


def test_what_cannot_be_is_refused():
    p = torch.nn.Parameter(torch.ones(5).half())
    p.grad = torch.ones_like(p)
    with pytest.raises(InputError, match=r"slot_dtype must be torch\.float32 or None"):
        optim.build("adam", [p], slot_dtype=torch.int8)
    with pytest.raises(InputError, match="rounding must be 'nearest' or 'stochastic', got 'up'"):
        optim.Adam([{"params": [p], "rounding": "up"}])
    with pytest.raises(InputError, match="rounding_seed must be a whole number"):
        optim.build("adam", [p], rounding="stochastic", rounding_seed=-1)
    with pytest.raises(UnsupportedError, match=r"is for bfloat16, not for torch\.float16"):
        optim.build("adam", [p], rounding="stochastic").step()
    q = torch.nn.Parameter(torch.ones(5).bfloat16())
    q.grad = torch.ones_like(q)
    optimizer = optim.build("adafactor", [q], rounding="stochastic", engine="eager")
    with pytest.raises(UnsupportedError, match="torch's operations round to nearest"):
        optimizer.step()
    assert torch.equal(q, torch.ones(5).bfloat16())


def test_numbers_of_rows_and_columns_are_not_rounded_stochastically():
    q = torch.nn.Parameter(torch.ones(3, 5).bfloat16())
    q.grad = torch.ones_like(q)
    with pytest.raises(UnsupportedError, match=r"give them slot_dtype=torch\.float32"):
        optim.build("adafactor", [q], rounding="stochastic", engine="kernel").step()
    assert torch.equal(q, torch.ones(3, 5).bfloat16())
    wide = {"rounding": "stochastic", "slot_dtype": torch.float32}
    optim.build("adafactor", [q], engine="kernel", **wide).step()
    assert not torch.equal(q, torch.ones(3, 5).bfloat16())
