"""Generated C++ does what the formula does with torch's operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steepest import optim, rules
from steepest.kernels import cpu
from steepest.kernels.trace import specialise, trace

ELEMENTWISE = [name for name in rules.names() if rules.get(name).kind == "elementwise"]
SHAPES = [(3, 5), (17,), (), (0, 2), (2, 3, 4, 4), (1,)]


def configurations():
    for name in ELEMENTWISE:
        rule = rules.get(name)
        yield name, {}
        for option, default in rule.options.items():
            for choice in rule.choices.get(option, (True, False)):
                if choice != default and (name, option) != ("sgd", "nesterov"):
                    yield name, {option: choice}
        if "momentum" in rule.hyperparameters:
            yield name, {"momentum": 0.8}
    yield "sgd", {"momentum": 0.9, "nesterov": True}
    yield "sgd", {"momentum": 0.9, "dampening": 0.5}
    yield "rmsprop", {"momentum": 0.9, "centered": True}
    yield "asgd", {"t0": 20.0, "lambd": 0.01}
    yield "nadam", {"weight_decay": 0.0}
    yield "adamw", {"weight_decay": 0.0}


def parameters(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]
    made[0] = made[0].t()
    made[4] = made[4].contiguous(memory_format=torch.channels_last)
    return [torch.nn.Parameter(p) for p in made]


def give_gradients(step, *owners):
    """The same to all; the second parameter has none in every third step."""
    generator = torch.Generator().manual_seed(100 + step)
    for at, same in enumerate(zip(*owners, strict=True)):
        g = torch.randn(same[0].shape, generator=generator, dtype=torch.float64)
        for p in same:
            p.grad = None if at == 1 and step % 3 == 2 else torch.empty_like(p).copy_(g)


def train(name, dtype, steps, values):
    rule = rules.get(name)
    values = {"weight_decay": 0.1} | values if "weight_decay" in rule.hyperparameters else values
    models = parameters(dtype), parameters(dtype)
    pair = [
        optim.build(name, model, engine=engine, **values)
        for model, engine in zip(models, ("kernel", "eager"), strict=True)
    ]
    for step in range(steps):
        give_gradients(step, *models)
        for optimizer in pair:
            for group in optimizer.param_groups:
                group["lr"] *= 0.99
            optimizer.step()
    return models, pair


def everything(model, optimizer):
    yield from (p.detach() for p in model)
    for p in model:
        for name, value in sorted(optimizer.state.get(p, {}).items()):
            if name != "step" and value is not None:
                yield value


@pytest.mark.parametrize(("name", "values"), list(configurations()))
def test_kernels_equal_the_formula_in_float64_over_100_steps(name, values):
    models, pair = train(name, torch.float64, 100, values)
    for a, b in zip(everything(models[0], pair[0]), everything(models[1], pair[1]), strict=True):
        scale = b.abs().max().item() if b.numel() else 0.0
        # numbers per tensor are stored in float32, by torch.optim too
        exact = 1e-12 if b.dtype is torch.float64 else 1e-7
        torch.testing.assert_close(a, b, rtol=exact, atol=exact * scale)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_kernels_equal_the_formula_in_float32_up_to_rounding(name):
    models, _ = train(name, torch.float32, 100, {})
    start = parameters(torch.float32)
    for a, b, before in zip(*models, start, strict=True):
        if not b.numel():
            continue
        ulp = np.spacing(np.float32(max(b.abs().max(), before.abs().max()).item()))
        moved = (b - before).abs().max().item()
        # half an ulp of p is lost at random in each of 100 steps, and a few of each step itself
        assert (a - b).abs().max().item() <= 12 * ulp + 1e-5 * moved


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["adam", "sgd", "nadam", "lion"])
def test_halves_are_computed_with_in_float32_and_rounded_once(name, dtype):
    models, pair = train(name, dtype, 20, {})
    differing = 0
    for a, b in zip(everything(models[0], pair[0]), everything(models[1], pair[1]), strict=True):
        tolerance = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        differing += int((a != b).sum())
    total = sum(x.numel() for x in everything(models[0], pair[0]))
    assert differing <= 0.1 * total  # the last bit of float32 decides few roundings


def test_bfloat16_parameters_may_have_float32_slots():
    """Then what a slot remembers is not rounded: it is that of a float32 run."""
    grads = [torch.randn(500).bfloat16() for _ in range(20)]
    half = torch.nn.Parameter(torch.randn(500).bfloat16())
    full = torch.nn.Parameter(half.detach().float())
    a, b = (optim.Adam([p], engine="kernel") for p in (half, full))
    for step, g in enumerate(grads):
        half.grad, full.grad = g.clone(), g.float()
        a.step()
        b.step()
        if step == 0:
            for slot in ("exp_avg", "exp_avg_sq"):
                a.state[half][slot] = b.state[full][slot].clone()
    for slot in ("exp_avg", "exp_avg_sq"):
        assert a.state[half][slot].dtype is torch.float32
        torch.testing.assert_close(a.state[half][slot], b.state[full][slot], rtol=0, atol=0)


HALVES = """
extern "C" void convert_half(const uint16_t *in, float *wide, uint16_t *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    half h; h.bits = in[i]; wide[i] = load(h); store(h, wide[i]); out[i] = h.bits;
  }
}
extern "C" void round_half(const float *in, uint16_t *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) { half h; store(h, in[i]); out[i] = h.bits; }
}
extern "C" void round_bfloat(const float *in, uint16_t *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) { bfloat16 h; store(h, in[i]); out[i] = h.bits; }
}
"""


def test_every_float16_survives_the_way_to_float32_and_back():
    library = cpu.compiler.load(cpu.PRELUDE + HALVES)
    bits = np.arange(65536, dtype=np.uint16)
    wide, back = np.empty(65536, np.float32), np.empty(65536, np.uint16)
    library.convert_half(*(cpu.ctypes.c_void_p(x.ctypes.data) for x in (bits, wide, back)), 65536)
    expected = bits.view(np.float16)
    np.testing.assert_array_equal(wide, expected.astype(np.float32))
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(back[number], bits[number])
    assert np.isnan(back.view(np.float16)[~number]).all()


def test_rounding_to_halves_is_that_of_numpy_and_torch():
    library = cpu.compiler.load(cpu.PRELUDE + HALVES)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    near = (rng.standard_normal(200_000) * 10.0 ** rng.uniform(-9, 6, 200_000)).astype(np.float32)
    ties = (np.arange(65536, dtype=np.uint16).view(np.float16)).astype(np.float32)
    with np.errstate(all="ignore"):
        ties = (ties + np.nextafter(ties, np.float32(np.inf))) / 2
        values = np.concatenate([values, near, ties.astype(np.float32)])
        values = values[~np.isnan(values)]
        half = values.astype(np.float16).view(np.uint16)
    out = np.empty(len(values), np.uint16)
    pointers = [cpu.ctypes.c_void_p(x.ctypes.data) for x in (values, out)]
    library.round_half(*pointers, cpu.ctypes.c_int64(len(values)))
    np.testing.assert_array_equal(out, half)
    library.round_bfloat(*pointers, cpu.ctypes.c_int64(len(values)))
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(out, expected)


def test_every_kernel_is_one_loop_of_vector_instructions():
    for name in ELEMENTWISE:
        rule = rules.get(name)
        text = cpu.source(trace(rule, specialise(rule, {})), torch.float32, torch.float32)
        assert text.count("for (int64_t i = 0; i < length; ++i)") == 1
        body = text[text.index("static void chunk") :]
        assert not {"pow(", "exp(", "log(", "if ("} & set(body.split())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shapes=st.lists(st.lists(st.integers(0, 7), max_size=4).map(tuple), min_size=1, max_size=6),
    orders=st.randoms(use_true_random=False),
    groups=st.integers(1, 3),
    name=st.sampled_from(["adam", "nadam", "sgd", "asgd"]),
    late=st.booleans(),
)
def test_any_shapes_strides_groups_and_missing_gradients(shapes, orders, groups, name, late):
    def model():
        made = []
        for at, shape in enumerate(shapes):
            axes = list(range(len(shape)))
            orders_of[at] = orders_of.get(at) or orders.sample(axes, len(axes))
            x = torch.randn([shape[a] for a in orders_of[at]], dtype=torch.float64)
            back = [orders_of[at].index(a) for a in axes]
            made.append(torch.nn.Parameter(x.permute(back)))
        return made

    orders_of = {}
    torch.manual_seed(0)
    ours = model()
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    extra = {"momentum": 0.9} if name == "sgd" else {}

    def build(params, engine):
        parts = [params[i::groups] for i in range(groups)]
        entries = [
            {"params": part, "lr": 0.01 * (i + 1), "weight_decay": 0.1 * i, "maximize": i == 1}
            for i, part in enumerate(parts)
            if part
        ]
        first = entries[:-1] if late and len(entries) > 1 else entries
        return optim.build(name, first, engine=engine, **extra), entries[len(first) :]

    (a, rest_a), (b, rest_b) = build(ours, "kernel"), build(theirs, "eager")
    for step in range(6):
        if step == 3:
            for optimizer, rest in ((a, rest_a), (b, rest_b)):
                for group in rest:
                    optimizer.add_param_group(group)
        for p, q in zip(ours, theirs, strict=True):
            g = torch.randn(p.shape, dtype=p.dtype)
            missing = orders.random() < 0.3
            p.grad = None if missing else torch.empty_like(p).copy_(g)
            q.grad = None if missing else torch.empty_like(q).copy_(g)
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-11)
