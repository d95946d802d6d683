"""The Triton kernels, run by Triton's interpreter on CPU tensors, equal the formula."""

from __future__ import annotations

import copy

import pytest
import torch

from steepest import optim, rules
from steepest.kernels import cuda, device, native
from steepest.kernels.trace import specialise, trace

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # NumPy's, for NaN

ELEMENTWISE = [name for name in rules.names() if rules.get(name).kind == "elementwise"]
INTERPRETED = native.Kernels(optional=False, triton=True)


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(cuda, "_BUILT", {})


def parameters(dtype, sizes=((3, 5), (1500,), (), (0, 2))):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in sizes]
    made[0] = made[0].t()
    return [torch.nn.Parameter(p) for p in made]


def give_gradients(step, *owners):
    generator = torch.Generator().manual_seed(100 + step)
    for at, same in enumerate(zip(*owners, strict=True)):
        g = torch.randn(same[0].shape, generator=generator, dtype=torch.float64)
        for p in same:
            p.grad = None if at == 1 and step % 3 == 2 else torch.empty_like(p).copy_(g)


def pair(name, dtype=torch.float32, **values):
    models = parameters(dtype), parameters(dtype)
    ours = optim.build(name, models[0], engine="auto", **values)
    ours._engines = (INTERPRETED,)
    return models, (ours, optim.build(name, models[1], engine="eager", **values))


def values_of(name, **values):
    rule = rules.get(name)
    if "weight_decay" in rule.hyperparameters:
        values["weight_decay"] = 0.1
    if "momentum" in rule.hyperparameters:
        values["momentum"] = 0.9
    return values


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_rule_equals_the_formula_in_float64(name):
    models, pair_ = pair(name, torch.float64, **values_of(name))
    for step in range(5):
        give_gradients(step, *models)
        for optimizer in pair_:
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "lamb",
        "lars",
        "prodigy",
        "clip_norm(adam)",
        "cautious(adamw)",
        "clip_norm(cautious(lion))",
        "clip_global_norm(nadam)",
        "clip_norm(clip_global_norm(sgd))",
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_rules_that_look_at_their_tensor_equal_the_formula_in_float64(name, there, request):
    """The second tensor has two rows of elements, so that sums are added up over rows."""
    if there:
        request.getfixturevalue("_on_device")
    models, pair_ = pair(name, torch.float64, **values_of(name))
    for step in range(5):
        give_gradients(step, *models)
        for optimizer in pair_:
            optimizer.step()
    for p, q in zip(*models, strict=True):
        exact = 1e-7 if there else 1e-12
        torch.testing.assert_close(p, q, rtol=exact, atol=exact)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("adafactor", {"beta1": 0.9, "weight_decay": 0.1}),
        ("adafactor", {"eps_mode": "added", "rate": "scaled", "decay": "relative"}),
        ("centralised(adam)", {}),
        ("clip_global_norm(centralised(sgd))", {"momentum": 0.9}),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_rules_with_numbers_of_rows_and_columns_equal_the_formula(name, values, there, request):
    """One tensor is a stack of matrices, one has more columns than a program takes at a time."""
    if there:
        request.getfixturevalue("_on_device")
    sizes = ((5, 3), (300,), (), (2, 3, 4), (2, 300))
    models = [parameters(torch.float64, sizes) for _ in range(2)]
    for model in models:
        model[0] = torch.nn.Parameter(model[0].detach().contiguous())
    ours = optim.build(name, models[0], **values)
    ours._engines = (INTERPRETED,)
    theirs = optim.build(name, models[1], engine="eager", **values)
    for step in range(3):
        give_gradients(step, *models)
        for optimizer in (ours, theirs):
            optimizer.step()
    exact = 1e-7 if there else 1e-12
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=exact, atol=exact)
        for slot, value in theirs.state.get(q, {}).items():
            torch.testing.assert_close(ours.state[p][slot], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_sums_over_all_parameters_are_over_all_launches(there, request):
    """Two types of parameters are two launches; the norm is that of all gradients together."""
    if there:
        request.getfixturevalue("_on_device")
    models = [[*parameters(torch.float64), *parameters(torch.float32)] for _ in range(2)]
    ours = optim.build("clip_global_norm(adam)", models[0], max_global_norm=0.5)
    ours._engines = (INTERPRETED,)
    theirs = optim.build("clip_global_norm(adam)", models[1], engine="eager", max_global_norm=0.5)
    for step in range(4):
        give_gradients(step, *models)
        for optimizer in (ours, theirs):
            optimizer.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
    if there:
        assert ours._prepared is not None
        assert len(ours._prepared._launches) == 2


@pytest.mark.usefixtures("_on_device")
def test_sums_over_all_parameters_are_not_read_on_the_host(monkeypatch):
    models, (ours, theirs) = pair("prodigy", torch.float64)
    for step in range(5):
        give_gradients(step, *models)
        theirs.step()
        with monkeypatch.context() as nothing_is_read:
            if step > 1:
                nothing_is_read.setattr(torch.Tensor, "item", None)
                nothing_is_read.setattr(torch.Tensor, "tolist", None)
            ours.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_stochastic_rounding_takes_the_same_bits_as_on_the_cpu(there, request):
    """Each kernel rounds three numbers per element: parameter and both slots are bfloat16."""
    if there:
        request.getfixturevalue("_on_device")
    models = parameters(torch.bfloat16), parameters(torch.bfloat16)
    pair_ = [optim.build("adam", model, rounding="stochastic") for model in models]
    pair_[0]._engines = (INTERPRETED,)
    for step in range(4):
        give_gradients(step, *models)
        for optimizer in pair_:
            optimizer.step()
    for p, q in zip(*models, strict=True):
        assert torch.equal(p, q)
        for slot, value in pair_[1].state.get(q, {}).items():
            assert torch.equal(pair_[0].state[p][slot], value)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "rprop", "radam"])
def test_float32_equals_the_formula_up_to_rounding(name):
    models, pair_ = pair(name, **values_of(name))
    for step in range(5):
        give_gradients(step, *models)
        for optimizer in pair_:
            optimizer.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.fixture
def _on_device(monkeypatch):
    """Count where the parameters are, as capturable=True does; here both are the CPU."""
    for module in (native, device):
        monkeypatch.setattr(module, "counts_on_device", lambda block: True)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "radam", "asgd", "rmsprop", "adamax"])
@pytest.mark.usefixtures("_on_device")
def test_the_scalar_program_on_the_device_counts_and_agrees(name, monkeypatch):
    models, (ours, theirs) = pair(name, torch.float64, **values_of(name))
    for step in range(5):
        give_gradients(step, *models)
        theirs.step()
        with monkeypatch.context() as nothing_is_read:
            if step > 1:
                nothing_is_read.setattr(torch.Tensor, "item", None)
            ours.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)
        for slot, value in theirs.state.get(q, {}).items():
            torch.testing.assert_close(ours.state[p][slot], value, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_on_device")
def test_a_rate_in_a_tensor_is_read_on_the_device():
    rates = torch.tensor(0.1), torch.tensor(0.1)
    models = parameters(torch.float32), parameters(torch.float32)
    ours = optim.Adam(models[0], lr=rates[0])
    ours._engines = (INTERPRETED,)
    theirs = optim.Adam(models[1], lr=rates[1], engine="eager")
    for step in range(4):
        give_gradients(step, *models)
        for rate, optimizer in zip(rates, (ours, theirs), strict=True):
            rate.mul_(0.5)
            optimizer.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("there", [False, True], ids=["host", "device"])
def test_scaled_gradients_are_unscaled_and_infinite_ones_change_nothing(there, request):
    if there:
        request.getfixturevalue("_on_device")
    models, (ours, theirs) = pair("nadam")
    for step in range(5):
        give_gradients(step, *models)
        for p in models[0]:
            if p.grad is not None:
                p.grad.mul_(256.0)
        ours.grad_scale = torch.tensor(256.0)
        ours.found_inf = torch.tensor(float(step == 3))
        before = copy.deepcopy(ours.state_dict()["state"]) if step == 3 else None
        ours.step()
        if step == 3:
            for key, held in ours.state_dict()["state"].items():
                for slot, value in held.items():
                    assert torch.equal(value, before[key][slot])
        else:
            theirs.step()
    for p, q in zip(*models, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_with_in_float32(dtype):
    models, pair_ = pair("adam", dtype)
    for step in range(3):
        give_gradients(step, *models)
        for optimizer in pair_:
            optimizer.step()
    for p, q in zip(*models, strict=True):
        tolerance = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def test_a_kernel_reads_and_writes_each_array_once():
    rule = rules.get("adamw")
    text = cuda.source(trace(rule, specialise(rule, {})), torch.float32, torch.float32)
    elements = text[: text.index("def scalars")]
    assert elements.count("mask=inside, other=0.0") == 4  # p, g, exp_avg, exp_avg_sq
    assert elements.count("tl.store(") == 3
    assert "float64" not in elements
