"""Kernels of rules that have numbers of rows and columns: Adafactor, gradient centralisation."""

from __future__ import annotations

import copy

import pytest
import torch

from steepest import optim

SHAPES = [(3, 5), (40_000,), (), (2, 3, 4, 4), (1, 7), (9, 2), (300, 700), (64,)]
RULES = [
    ("adafactor", {}),
    ("adafactor", {"beta1": 0.9, "weight_decay": 0.1}),
    ("adafactor", {"eps_mode": "added", "rate": "scaled", "decay": "relative"}),
    ("adafactor", {"rate": "plain", "lr": 1e-3}),
    ("cautious(adafactor)", {}),
    ("centralised(adam)", {}),
    ("centralised(sgd)", {"momentum": 0.9}),
    ("centralised(lamb)", {}),
    ("clip_global_norm(centralised(adam))", {}),
]


def parameters(dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    return [torch.nn.Parameter(p) for p in made]


def give_gradients(step, *models):
    """The same to all; the third parameter has none in every third step."""
    generator = torch.Generator().manual_seed(100 + step)
    for at, same in enumerate(zip(*models, strict=True)):
        g = torch.randn(same[0].shape, generator=generator, dtype=torch.float64)
        for p in same:
            p.grad = None if at == 2 and step % 3 == 2 else torch.empty_like(p).copy_(g)


def train(name, steps, dtype=torch.float64, **values):
    models = parameters(dtype), parameters(dtype)
    pair = [
        optim.build(name, model, engine=engine, **values)
        for model, engine in zip(models, ("kernel", "eager"), strict=True)
    ]
    for step in range(steps):
        give_gradients(step, *models)
        for optimizer in pair:
            optimizer.param_groups[0]["lr"] *= 0.99
            optimizer.step()
    return models, pair


@pytest.mark.parametrize(("name", "values"), RULES)
def test_kernels_equal_the_formula_in_float64(name, values):
    models, (ours, theirs) = train(name, 30, **values)
    assert ours._prepared is not None
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)
        for slot, value in theirs.state[q].items():
            torch.testing.assert_close(ours.state[p][slot], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "values"), RULES[:2] + RULES[5:7])
def test_float32_equals_the_formula_up_to_rounding(name, values):
    models, _ = train(name, 10, torch.float32, **values)
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_with_float32_slots_are_rounded_once(dtype):
    models = parameters(dtype), parameters(torch.float32)
    with torch.no_grad():
        for p, q in zip(*models, strict=True):
            q.copy_(p)
    values = {"eps1": 1e-7}  # by default it is the machine epsilon of the parameter's type
    ours = optim.build("adafactor", models[0], engine="kernel", slot_dtype=torch.float32, **values)
    wide = optim.build("adafactor", models[1], engine="eager", **values)
    give_gradients(0, models[0])
    for p, q in zip(*models, strict=True):
        q.grad = p.grad.float()
    for optimizer in (ours, wide):
        optimizer.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p.float(), q, rtol=torch.finfo(dtype).eps, atol=1e-6)
        for slot, value in wide.state[q].items():
            assert ours.state[p][slot].dtype is torch.float32
            torch.testing.assert_close(ours.state[p][slot], value, rtol=1e-5, atol=1e-9)


def test_the_outcome_depends_on_no_number_of_threads():
    outcomes = []
    for threads in (1, 2, 5):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = parameters(torch.float32, [(700, 300), (40, 5, 3, 3), (100_000, 2)])
            optimizer = optim.build("adafactor", model, engine="kernel")
            for step in range(3):
                give_gradients(step, model)
                optimizer.step()
        finally:
            torch.set_num_threads(before)
        outcomes.append(model)
    for model in outcomes[1:]:
        assert all(torch.equal(p, q) for p, q in zip(model, outcomes[0], strict=True))


def test_a_checkpoint_of_the_kernel_goes_on_in_the_eager_engine():
    models, (ours, _) = train("adafactor", 5)
    copied = copy.deepcopy(models[0])
    other = optim.build("adafactor", copied, engine="eager")
    other.load_state_dict(ours.state_dict())
    for step in range(5, 9):
        give_gradients(step, models[0], copied)
        for optimizer in (ours, other):
            optimizer.step()
    for p, q in zip(models[0], copied, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "accepted"), [("adafactor", False), ("centralised(adam)", True)])
def test_rows_that_do_not_lie_one_after_the_other_go_to_eager_with_a_reason(name, accepted):
    """Channels-last: the last two axes are scattered, but all of an output unit lies together."""
    shape = (4, 3, 5, 5)
    models = [
        [torch.nn.Parameter(p.detach().contiguous(memory_format=torch.channels_last))]
        for p in (parameters(torch.float64, [shape])[0] for _ in range(2))
    ]
    ours = optim.build(name, models[0])
    theirs = optim.build(name, models[1], engine="eager")
    for step in range(3):
        give_gradients(step, *models)
        for optimizer in (ours, theirs):
            optimizer.step()
    assert any("one after the other" in said for said in ours.refusals) == (not accepted)
    torch.testing.assert_close(models[0][0], models[1][0], rtol=1e-11, atol=1e-12)
