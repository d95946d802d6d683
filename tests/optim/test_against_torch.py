"""Our classes do what torch's classes of the same name do: torch's own table of cases."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from torch.testing._internal.common_optimizers import (
    OptimizerErrorEnum,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
)

from steepest import optim

OURS = {
    info.optim_cls.__name__: info for info in optim_db if hasattr(optim, info.optim_cls.__name__)
}
CONFIGURATIONS = [
    pytest.param(info, entry.kwargs, id=f"{name}-{entry.desc}-{at}")
    for name, info in OURS.items()
    for at, entry in enumerate(
        _get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float64, info)
    )
]
ERRORS = [
    pytest.param(info, case, id=f"{name}-{case.optimizer_error_input.desc}")
    for name, info in OURS.items()
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
]
SHAPES = [(7, 3), (5,), (), (2, 3, 4, 4), (0, 2), (1, 1), (300, 300)]
SHAPES_OF = {
    "Adafactor": [
        (7, 3),
        (5,),
        (),
        (2, 3, 4, 4),
        (3, 2),
        (1, 1),
        (300, 30),
    ],  # torch: no empty ones
    "Muon": [(7, 5), (5, 5), (4, 8), (5, 7), (5, 5), (60, 30)],  # torch: matrices only
}


def test_every_class_of_torch_that_has_a_rule_is_covered():
    expected = (
        "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax Muon NAdam RAdam RMSprop Rprop SGD"
    )
    assert sorted(OURS) == expected.split()


def parameters(dtype, name=""):
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES_OF.get(name, SHAPES)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    if made[3].ndim == 4:
        made[3] = made[3].contiguous(memory_format=torch.channels_last)
    made[0] = made[0].t()
    return [torch.nn.Parameter(p) for p in made]


def give_gradients(step, *models):
    """The same gradients to all; the second parameter has none in every third step."""
    generator = torch.Generator().manual_seed(1000 + step)
    for at, owners in enumerate(zip(*models, strict=True)):
        g = torch.randn(owners[0].shape, generator=generator, dtype=owners[0].dtype)
        for p in owners:
            # in the parameter's layout, as autograd makes it: torch's fused CPU kernels go
            # through memory in order and are wrong where the two differ
            g = torch.empty_like(p).copy_(g)
            p.grad = None if at == 1 and step % 3 == 2 else g


def pair(info, kwargs, dtype):
    name = info.optim_cls.__name__
    ours, theirs = parameters(dtype, name), parameters(dtype, name)
    if kwargs.get("differentiable"):
        ours, theirs = [p.clone() for p in ours], [p.clone() for p in theirs]
        for p in (*ours, *theirs):
            p.retain_grad()
    a = getattr(optim, name)(ours, **copy.deepcopy(kwargs))
    b = info.optim_cls(theirs, **copy.deepcopy(kwargs))
    return ours, theirs, a, b


def assert_same(ours, theirs, tolerance):
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def assert_same_state(a, b, tolerance):
    a, b = a.state_dict(), b.state_dict()
    assert a["state"].keys() == b["state"].keys()
    for key, held in b["state"].items():
        assert a["state"][key].keys() == held.keys()
        for name, value in held.items():
            assert a["state"][key][name].dtype == value.dtype
            assert a["state"][key][name].stride() == value.stride() or value.numel() < 2
            torch.testing.assert_close(a["state"][key][name], value, rtol=tolerance, atol=tolerance)
    assert a["param_groups"] == b["param_groups"]


# Over 12 steps the two differ only in the order of rounding: a few units in the last place of
# float64, which the smallest second moments blow up to about 1e-12. NAdam's and ASGD's single
# numbers are stored in float32 by both, but rounded at other places: 1e-7 of the distance moved.
# torch's Adam with differentiable=True (only then) corrects the bias in float32.
TOLERANCE = {"NAdam": 2e-7, "ASGD": 2e-7}


def tolerance_of(info, kwargs):
    name = info.optim_cls.__name__
    if kwargs.get("differentiable") and name in ("Adam", "AdamW"):
        return 1e-5
    if name == "Muon" and isinstance(kwargs.get("lr"), torch.Tensor):
        return 1e-6  # torch rounds 1 - lr * weight_decay to float32
    return TOLERANCE.get(name, 1e-11)


@pytest.fixture(autouse=True)
def newton_schulz_of_torch_in_full_precision(request, monkeypatch):
    """torch.optim.Muon rounds to bfloat16 there, which would hide every other difference."""
    if "Muon" in request.node.name:
        monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())


@pytest.mark.parametrize(("info", "kwargs"), CONFIGURATIONS)
def test_configuration_of_torch_takes_the_same_steps_and_keeps_the_same_state(info, kwargs):
    ours, theirs, a, b = pair(info, kwargs, torch.float64)
    tolerance = tolerance_of(info, kwargs)
    for step in range(12):
        give_gradients(step, ours, theirs)
        a.step()
        b.step()
        assert_same(ours, theirs, tolerance)
        if step % 4 == 3 and not isinstance(kwargs.get("lr"), torch.Tensor):
            for optimizer in (a, b):
                optimizer.param_groups[0]["lr"] *= 0.7
    assert_same_state(a, b, tolerance)


@pytest.mark.parametrize(("info", "case"), ERRORS)
def test_error_of_torch_is_raised_with_its_type_and_words(info, case):
    ours = getattr(optim, info.optim_cls.__name__)
    wrong = case.optimizer_error_input
    params = wrong.params or [torch.nn.Parameter(torch.randn(2, 3))]
    if wrong.desc == "only support 2D parameters":
        assert ours(params).assignments[0].rule == "adamw"
        pytest.skip("ours routes what is no matrix to an auxiliary rule")
    if case.error_on is not OptimizerErrorEnum.CONSTRUCTION_ERROR:
        optimizer = ours([{"params": params, "use_muon": True}] if ours is optim.Muon else params)
        with pytest.raises(case.error_type, match=case.error_regex):
            optimizer.step()
        return
    if issubclass(case.error_type, Warning):
        with pytest.warns(case.error_type, match=case.error_regex):
            ours(params, **wrong.kwargs)
        return
    with pytest.raises(case.error_type, match=case.error_regex), warnings.catch_warnings():
        ours(params, **wrong.kwargs)


# without differentiable=True, whose state is part of a graph
@pytest.mark.parametrize(
    ("info", "kwargs"), [c for c in CONFIGURATIONS if not c.values[1].get("differentiable")]
)
def test_checkpoint_changes_hands_in_the_middle_and_training_goes_on(info, kwargs):
    ours, theirs, a, b = pair(info, kwargs, torch.float64)
    tolerance = tolerance_of(info, kwargs)
    for step in range(5):
        give_gradients(step, ours, theirs)
        a.step()
        b.step()
    _, _, a2, b2 = pair(info, kwargs, torch.float64)
    swapped_a, swapped_b = a2.param_groups[0]["params"], b2.param_groups[0]["params"]
    with torch.no_grad():
        for new, old in (*zip(swapped_a, theirs, strict=True), *zip(swapped_b, ours, strict=True)):
            new.copy_(old)
    a2.load_state_dict(b.state_dict())
    b2.load_state_dict(copy.deepcopy(a.state_dict()))
    for step in range(5, 12):
        give_gradients(step, ours, theirs, swapped_a, swapped_b)
        for optimizer in (a, b, a2, b2):
            optimizer.step()
        assert_same(swapped_a, theirs, tolerance)
        assert_same(ours, swapped_b, tolerance)


@pytest.mark.parametrize("name", OURS)
def test_signature_is_torchs_with_engine_added(name):
    import inspect

    def described(cls):
        return [
            (p.name, p.kind, p.default)
            for p in inspect.signature(cls).parameters.values()
            if p.name not in ("engine", "auxiliary")
        ]

    assert described(getattr(optim, name)) == described(OURS[name].optim_cls)
    assert (
        getattr(optim, name)([torch.zeros(4, 4)]).defaults
        == OURS[name].optim_cls([torch.zeros(4, 4)]).defaults
    )


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_parameters_are_pairs_of_real_ones(name, dtype):
    if not OURS[name].supports_complex:
        pytest.skip("not in torch either")
    ours, theirs, a, b = pair(OURS[name], {}, dtype)
    tolerance = 1e-5 if dtype == torch.complex64 else TOLERANCE.get(name, 1e-11)
    for step in range(10):
        give_gradients(step, ours, theirs)
        a.step()
        b.step()
    assert_same(ours, theirs, tolerance)
    assert_same_state(a, b, tolerance)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions_stay_as_near_as_their_rounding(name, dtype):
    kwargs = {"eps": 1e-3} if "eps" in optim.__dict__[name]([torch.zeros(1)]).defaults else {}
    if name == "Adafactor":
        kwargs = {"eps": (1e-3, 1e-3)}
    if name == "Muon" and dtype != torch.float32:
        pytest.skip("five products of matrices, each rounded to 16 bits by torch alone")
    ours, theirs, a, b = pair(OURS[name], kwargs, dtype)
    for step in range(10):
        give_gradients(step, ours, theirs)
        a.step()
        b.step()
    # ten steps of one rounding each; torch rounds every operation of a step
    assert_same(ours, theirs, 40 * torch.finfo(dtype).eps)
    assert all(p.dtype == dtype for p in ours)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("Adagrad", {}),
        ("Adagrad", {"lr_decay": 0.1, "maximize": True}),
    ],
)
def test_sparse_gradients_as_in_torch(name, kwargs):
    ours, theirs = (torch.nn.Parameter(torch.ones(6, 2)) for _ in range(2))
    a, b = (
        getattr(optim, name)([ours], lr=0.1, **kwargs),
        OURS[name].optim_cls([theirs], lr=0.1, **kwargs),
    )
    for step in range(6):  # with rows that occur twice
        rows = torch.tensor([[step % 6, (step * 2) % 6, step % 6]])
        g = torch.sparse_coo_tensor(
            rows, torch.arange(6.0).reshape(3, 2) + 1, (6, 2), check_invariants=True
        )
        ours.grad, theirs.grad = g.clone(), g.clone()
        with torch.sparse.check_sparse_tensor_invariants():
            a.step()
            b.step()
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", sorted(set(OURS) - {"SGD", "Adagrad"}))
def test_sparse_gradients_are_refused_where_torch_refuses_them(name):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3).to_sparse()
    optimizer = getattr(optim, name)([p])
    with pytest.raises(RuntimeError, match=re.escape(f"{name} does not support sparse gradients")):
        optimizer.step()
    assert torch.equal(p, torch.ones(3))
    assert not optimizer.state
