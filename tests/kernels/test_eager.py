"""The eager engine: whatever torch can compute with, in whatever portions."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steepest import optim, rules
from steepest.kernels import eager
from steepest.testing.follow import follow

ELEMENTWISE = [name for name in rules.names() if rules.get(name).kind == "elementwise"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(ELEMENTWISE),
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=5),
    present=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    small=st.sampled_from([0, 3, 8192]),
    chunk=st.sampled_from([1, 4, 65536]),
    seed=st.integers(0, 99),
)
def test_any_shapes_in_any_portions_take_the_steps_of_the_formula(
    name, shapes, present, small, chunk, seed
):
    rng = np.random.default_rng(seed)
    rule = rules.get(name)
    start = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    grads = [
        [
            np.asarray(rng.normal(size=s)) if there else None
            for s, there in zip(shapes, row, strict=False)
        ]
        for row in present
    ]
    values = [{"lr": rule.hyperparameters["lr"] * (1 + at)} for at in range(len(present))]
    expected, _ = follow(rule, start, grads, values)
    default, before = torch.get_default_dtype(), (eager._SMALL, eager._CHUNK)
    try:
        torch.set_default_dtype(torch.float64)
        eager._SMALL, eager._CHUNK = small, chunk
        params = [torch.nn.Parameter(torch.tensor(p)) for p in start]
        optimizer = optim.build(name, params, engine="eager")
        for row, given_values, after in zip(grads, values, expected, strict=True):
            optimizer.param_groups[0].update(given_values)
            for p, g in zip(params, row, strict=True):
                p.grad = None if g is None else torch.tensor(g)
            optimizer.step()
            for p, q in zip(params, after, strict=True):
                np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-11, atol=1e-13)
    finally:
        torch.set_default_dtype(default)
        eager._SMALL, eager._CHUNK = before


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_step_is_the_same_under_torch_compile(name):
    rule = rules.get(name)
    p, g = torch.linspace(-1, 1, 7), torch.linspace(2, -1, 7)
    active = rule.active_slots({})
    slots = [
        None
        if n not in active
        else torch.tensor(0.5)
        if s.per == "tensor"
        else torch.linspace(0.1, 1, 7)
        for n, s in rule.slots.items()
    ]

    def step(p, g, slots, t, lr):
        return eager.apply(rule, p, g, slots, t=t, values={"lr": lr})

    torch._dynamo.reset()  # or the rules before this one count as its recompilations
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for t, lr in ((3.0, 0.1), (4.0, 0.2)):
        arguments = (p, g, slots, torch.tensor(t), torch.tensor(lr))
        for a, b in zip(compiled(*arguments), step(*arguments), strict=True):
            torch.testing.assert_close(a, b)


def test_single_numbers_on_a_device_are_not_read_on_the_host():
    """Stands in for a device: 0-d tensors whose ``item()`` fails, on the meta device."""
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer = optim.NAdam([p], engine="eager")
    optimizer.numbers_on_device = True
    p.grad = torch.ones(3, device="meta")
    optimizer.step()  # an item() on the meta device raises
    assert optimizer.state[p]["step"].device.type == "meta"


def test_two_rates_of_a_group_are_not_mixed_when_small_tensors_go_together():
    params = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    optimizer = optim.Adam(params, lr=1.0, engine="eager")
    for step in range(3):  # the second parameter starts two steps later: other bias corrections
        for at, p in enumerate(params):
            p.grad = torch.ones(3) if at != 1 or step == 2 else None
        optimizer.step()
    # with a constant gradient every step of Adam is -lr
    for p, steps in zip(params, (3, 1, 3), strict=True):
        torch.testing.assert_close(p.detach(), torch.full((3,), -float(steps)))


_WITHOUT = """
import warnings, torch
from steepest import optim
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        p = torch.nn.Parameter(torch.ones(200_000))
        p.grad = torch.ones_like(p)
        optimizer = optim.Adam([p], lr=0.5)
        optimizer.step()
        optimizer.step()
print(len(said), said[0].category.__name__, said[0].message)
print(sorted(set(optimizer.refusals.values())), round(p[0].item(), 5))
"""


def test_a_machine_without_a_compiler_is_told_so_once(tmp_path):
    """A process of its own: nothing compiled, an empty cache, paths that lead nowhere."""
    environment = {
        **os.environ,
        "CXX": "/nonexistent/c++",
        "PATH": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    said, outcome = done.stdout.splitlines()
    assert said.startswith("1 RuntimeWarning optimizers run on plain torch operations")
    assert "no C++ compiler (/nonexistent/c++: not found; c++: not found" in said
    assert said.endswith("install one, or set CXX to its path")
    assert outcome == "['kernel'] 0.0"


def test_without_kernels_large_tensors_are_done_in_parts_that_fit_into_a_cache(monkeypatch):
    parts = []
    apply = eager.apply
    monkeypatch.setattr(
        eager, "apply", lambda *a, **k: parts.append(a[1].numel()) or apply(*a, **k)
    )
    p = torch.nn.Parameter(torch.ones(200_000))
    p.grad = torch.ones_like(p)
    optim.Adam([p], engine="eager").step()
    assert sum(parts) == 200_000
    assert max(parts) <= 65_536
