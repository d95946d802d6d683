"""Kernels of rules that look at whole tensors: passes of sums, then the elements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steepest import optim, rules
from steepest.kernels.symbols import ordered
from steepest.kernels.trace import specialise, trace

RULES = [
    "lamb",
    "lars",
    "prodigy",
    "clip_norm(adam)",
    "clip_norm(lamb)",
    "clip_global_norm(lamb)",
    "clip_global_norm(nadam)",
    "clip_norm(clip_global_norm(sgd))",
    "cautious(adamw)",
    "clip_norm(cautious(adamw))",
    "clip_global_norm(cautious(lion))",
]
OPTIONS = [
    ("lamb", {"trust_clip": True}),
    ("lamb", {"adapt": "decayed", "weight_decay": 0.0}),
    ("lars", {"ratio": "joint"}),
    ("lars", {"lr_place": "step", "nesterov": True}),
    ("lars", {"momentum": 0.0, "adapt": "decayed"}),
    ("prodigy", {"decay": "l2", "weight_decay": 0.1, "d0": 1e-3}),
    ("prodigy", {"use_bias_correction": True, "safeguard_warmup": True, "growth_rate": 1.5}),
    ("cautious(adamw)", {"caution_scale": "paper"}),
]
SHAPES = [(3, 5), (40_000,), (), (0, 2), (2, 3, 4, 4)]


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]
    made[4] = made[4].contiguous(memory_format=torch.channels_last)
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


@pytest.mark.parametrize(("name", "values"), [*((name, {}) for name in RULES), *OPTIONS])
def test_kernels_equal_the_formula_in_float64_over_100_steps(name, values):
    models, (ours, theirs) = train(name, 100, **values)
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)
        for slot, value in theirs.state[q].items():
            exact = 1e-11 if value.dtype is torch.float64 else 1e-6  # numbers are float32
            torch.testing.assert_close(ours.state[p][slot], value, rtol=exact, atol=1e-11)


@pytest.mark.parametrize("name", RULES)
def test_float32_equals_the_formula_up_to_rounding(name):
    models, _ = train(name, 20, torch.float32)
    for p, q, start in zip(*models, parameters(torch.float32), strict=True):
        if not q.numel():
            continue
        ulp = np.spacing(np.float32(max(q.abs().max(), start.abs().max()).item()))
        moved = (q - start).abs().max().item()
        assert (p - q).abs().max().item() <= 12 * ulp + 2e-5 * moved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_summed_up_in_float64(dtype):
    (ours, theirs), _ = train("lamb", 5, dtype)
    for p, q in zip(ours, theirs, strict=True):
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def test_a_norm_is_that_of_numpy_in_float64():
    """SGD at rate 1 with clipped gradients moves by exactly the clipped gradient."""
    generator = np.random.default_rng(0)
    g = generator.standard_normal((2, 50_000)) * 10
    params = [torch.nn.Parameter(torch.zeros(50_000, dtype=torch.float64)) for _ in g]
    for p, one in zip(params, g, strict=True):
        p.grad = torch.from_numpy(one.copy())
    optim.build("clip_global_norm(sgd)", params, lr=1.0, engine="kernel").step()
    expected = -g / (np.linalg.norm(g) + 1e-6)
    for p, one in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), one, rtol=1e-13)


def test_sums_over_all_parameters_join_groups_dtypes_and_options():
    """Groups of another dtype or with other slots are other launches, but there is one norm."""

    def model():
        torch.manual_seed(1)
        return [torch.nn.Parameter(torch.randn(9, dtype=d)) for d in (torch.float64, torch.float32)]

    models = model(), model()
    pair = [
        optim.build(
            "clip_global_norm(sgd)",
            [{"params": m[:1], "momentum": 0.9}, {"params": m[1:], "lr": 0.5, "maximize": True}],
            engine=engine,
            lr=0.1,
        )
        for m, engine in zip(models, ("kernel", "eager"), strict=True)
    ]
    for step in range(5):
        for p, q in zip(*models, strict=True):
            torch.manual_seed(step)
            p.grad = torch.randn_like(p) * 5
            q.grad = p.grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert len(pair[0]._prepared._launches) == 2
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_sums_do_not_depend_on_threads():
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            params = [torch.nn.Parameter(torch.randn(n)) for n in (300_000, 11)]
            optimizer = optim.LAMB(params, engine="kernel")
            for _ in range(3):
                for p in params:
                    p.grad = p.detach() * 0.3
                optimizer.step()
            results.append(torch.cat([p.detach() for p in params]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_scaled_gradients_are_unscaled_before_their_norm_is_taken():
    models = parameters(), parameters()
    ours, theirs = (
        optim.build("clip_global_norm(lamb)", m, engine=e)
        for m, e in zip(models, ("kernel", "eager"), strict=True)
    )
    for step in range(4):
        give_gradients(step, *models)
        for p in models[0]:
            if p.grad is not None:
                p.grad.mul_(512.0)
        ours.grad_scale, ours.found_inf = torch.tensor(512.0), torch.tensor(float(step == 2))
        ours.step()
        if step != 2:
            theirs.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_a_clipped_gradient_needs_no_pass_of_its_own_for_the_norm_after_clipping():
    rule = rules.get("clip_norm(clip_global_norm(sgd))")
    program = trace(rule, specialise(rule, {}))
    assert [len(one.sums) for one in program.passes] == [1, 0]
    assert program.early == 1


def test_what_depends_on_a_sum_of_scaled_elements_comes_a_pass_later():
    rule = rules.get("clip_norm(lamb)")
    program = trace(rule, specialise(rule, {}))
    assert [len(one.sums) for one in program.passes] == [2, 1]
    sums = [n for n in ordered(program.element_roots) if n.op == "sum"]
    assert {n.stage for n in sums} == {1, 2}
