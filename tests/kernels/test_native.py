"""The kernel engine notices everything that can change between two steps, and costs little."""

from __future__ import annotations

import copy
import gc
import resource

import pytest
import torch

from steepest import optim
from steepest.errors import UnsupportedError
from steepest.kernels import compiler, cpu, engines, native, walk


def make(engine="kernel", rule="adam", count=4, dtype=torch.float32, **values):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(3 + i, 5, dtype=dtype)) for i in range(count)]
    return params, optim.build(rule, params, engine=engine, **values)


def pair(**kwargs):
    return make("kernel", **kwargs), make("eager", **kwargs)


def give(step, *models, missing=()):
    generator = torch.Generator().manual_seed(step)
    for at, same in enumerate(zip(*models, strict=True)):
        g = torch.randn(same[0].shape, generator=generator, dtype=torch.float64)
        for p in same:
            p.grad = None if at in missing else torch.empty_like(p).copy_(g)


def assert_same(ours, theirs, tolerance=1e-6):
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=["in C", "in Python"], autouse=True)
def looking(request, monkeypatch):
    """Everything here holds too where torch's objects are not laid out as expected."""
    if request.param == "in Python":
        monkeypatch.setattr(walk, "walker", lambda: None)
    return request.param


def test_new_gradient_tensors_every_step_are_found():
    (ours, a), (theirs, b) = pair()
    for step in range(5):
        for optimizer in (a, b):
            optimizer.zero_grad(set_to_none=step % 2 == 0)
        give(step, ours, theirs)
        a.step()
        b.step()
        assert_same(ours, theirs)


def test_gradients_written_in_place_are_read_anew():
    (ours, a), (theirs, b) = pair()
    give(0, ours, theirs)
    for _ in range(4):
        for p in (*ours, *theirs):
            p.grad.mul_(-1.5)
        a.step()
        b.step()
        assert_same(ours, theirs)


@pytest.mark.parametrize("rule", ["adam", "nadam", "asgd", "sgd"])
def test_parameters_without_a_gradient_rest_and_keep_their_own_step(rule):
    extra = {"momentum": 0.9} if rule == "sgd" else {}
    (ours, a), (theirs, b) = pair(rule=rule, **extra)
    for step, missing in enumerate([(), (0,), (1, 2), (), (0, 1, 2, 3), (3,), ()]):
        give(step, ours, theirs, missing=missing)
        a.step()
        b.step()
        assert_same(ours, theirs)
    for p, q in zip(ours, theirs, strict=True):
        assert a.state[p].get("step") == b.state[q].get("step")


def test_a_parameter_that_gets_its_first_gradient_late_starts_at_one():
    (ours, a), (theirs, b) = pair()
    for step in range(6):
        give(step, ours, theirs, missing=(2,) if step < 3 else ())
        a.step()
        b.step()
    assert_same(ours, theirs)
    assert a.state[ours[2]]["step"].item() == 3


def test_changed_hyperparameters_count_from_the_next_step():
    (ours, a), (theirs, b) = pair(weight_decay=0.1)
    for step in range(8):
        give(step, ours, theirs)
        for optimizer in (a, b):
            group = optimizer.param_groups[0]
            group["lr"] = 0.1 / (step + 1)
            if step == 3:
                group["betas"] = (0.5, 0.9)
            if step == 4:
                group["weight_decay"] = 0.0
            if step == 5:
                group["weight_decay"] = 0.3
            if step == 6:
                group["maximize"] = True
            optimizer.step()
        assert_same(ours, theirs)


def test_a_rate_in_a_tensor_is_read_every_step():
    (ours, a), (theirs, b) = (
        make(engine, lr=torch.tensor(0.1, dtype=torch.float64)) for engine in ("kernel", "eager")
    )
    for step in range(4):
        give(step, ours, theirs)
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"].mul_(0.5)
            optimizer.step()
        assert_same(ours, theirs)


def test_an_option_switched_on_later_is_obeyed():
    (ours, a), (theirs, b) = pair()
    for step in range(5):
        give(step, ours, theirs)
        for optimizer in (a, b):
            optimizer.param_groups[0]["amsgrad"] = step >= 2
            optimizer.step()
        assert_same(ours, theirs)


def test_groups_may_be_added_and_grow_and_share_one_launch():
    (ours, a), (theirs, b) = pair()
    more, others = ([torch.nn.Parameter(torch.ones(7)) for _ in range(2)] for _ in range(2))
    for step in range(6):
        if step == 2:
            a.add_param_group({"params": [more[0]], "lr": 0.5})
            b.add_param_group({"params": [others[0]], "lr": 0.5})
        if step == 4:
            a.param_groups[1]["params"].append(more[1])
            b.param_groups[1]["params"].append(others[1])
        give(step, [*ours, *more], [*theirs, *others])
        a.step()
        b.step()
        assert_same([*ours, *more], [*theirs, *others])
    assert len(a._prepared._launches) == 1


def test_storage_swapped_behind_a_parameter_is_noticed():
    (ours, a), (theirs, b) = pair()
    for step in range(5):
        give(step, ours, theirs)
        if step == 2:
            for params in (ours, theirs):
                params[1].data = torch.full_like(params[1], 2.0)
        a.step()
        b.step()
        assert_same(ours, theirs)


def test_swapped_tensors_are_noticed():
    (ours, a), (theirs, b) = pair()
    for step in range(4):
        if step == 2:
            for params in (ours, theirs):
                params[0].grad = None
                torch.utils.swap_tensors(params[0], torch.nn.Parameter(torch.ones(3, 5)))
        give(step, ours, theirs)
        a.step()
        b.step()
        assert_same(ours, theirs)


def test_replaced_slots_are_noticed():
    (ours, a), (theirs, b) = pair()
    for step in range(5):
        give(step, ours, theirs)
        if step == 2:
            for params, optimizer in ((ours, a), (theirs, b)):
                optimizer.state[params[0]]["exp_avg"] = torch.ones(3, 5)
        if step == 3:
            for params, optimizer in ((ours, a), (theirs, b)):
                optimizer.state[params[1]]["exp_avg_sq"].data = torch.ones(4, 5)
                optimizer.state[params[2]]["step"].fill_(50)
        a.step()
        b.step()
        assert_same(ours, theirs)


def test_a_loaded_state_goes_on_as_if_nothing_had_happened():
    (ours, a), (theirs, b) = pair()
    for step in range(6):
        if step == 3:
            a.load_state_dict(copy.deepcopy(a.state_dict()))
        give(step, ours, theirs)
        a.step()
        b.step()
        assert_same(ours, theirs)


def test_gradients_of_another_layout_go_to_eager_and_back():
    ours, a = make("auto")
    theirs, b = make("eager")
    for step in range(5):
        give(step, ours, theirs)
        if step == 2:
            ours[0].grad = ours[0].grad.t().contiguous().t()
        a.step()
        b.step()
        assert_same(ours, theirs)
        assert (a._prepared is None) == (step == 2)
    assert any("laid out" in reason for reason in a.refusals)


def test_autograd_notices_that_a_parameter_was_written():
    params, optimizer = make()
    for _ in range(3):
        loss = (params[0] ** 2).sum()
        give(0, params)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_scaled_gradients_are_unscaled_and_infinite_ones_skipped():
    (ours, a), (theirs, b) = pair(rule="nadam")
    scale = 1024.0
    for step in range(6):
        give(step, ours, theirs)
        for p in ours:
            p.grad.mul_(scale)
        a.grad_scale = torch.tensor(scale)
        a.found_inf = torch.tensor(float(step == 4))
        a.step()
        if step != 4:
            b.step()
        assert_same(ours, theirs)
    assert a.state[ours[0]]["step"].item() == 5


def test_threads_may_change_between_steps():
    ours, theirs = ([torch.nn.Parameter(torch.ones(200_000))] for _ in range(2))
    a, b = optim.Adam(ours, engine="kernel"), optim.Adam(theirs, engine="eager")
    before = torch.get_num_threads()
    try:
        for step, threads in enumerate([1, 2, 1, 2]):
            torch.set_num_threads(threads)
            give(step, ours, theirs)
            a.step()
            b.step()
            assert_same(ours, theirs)
    finally:
        torch.set_num_threads(before)


def test_results_do_not_depend_on_threads_or_on_neighbours():
    """Bitwise: an element's result depends on nothing but itself."""
    x = torch.randn(300_000)
    results = []
    before = torch.get_num_threads()
    try:
        for threads, cuts in ((1, [300_000]), (2, [300_000]), (2, [7, 100_001, 199_992])):
            torch.set_num_threads(threads)
            params = [torch.nn.Parameter(part.clone()) for part in x.split(cuts)]
            optimizer = optim.NAdam(params, engine="kernel")
            for _ in range(3):
                for p, part in zip(params, x.split(cuts), strict=True):
                    p.grad = part * 0.3
                optimizer.step()
            results.append(torch.cat([p.detach() for p in params]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nothing_is_compiled_again_when_only_numbers_change(monkeypatch):
    params, optimizer = make(weight_decay=0.1)
    give(0, params)
    optimizer.step()
    monkeypatch.setattr(compiler, "load", None)
    monkeypatch.setattr(cpu, "source", None)
    for step in range(20):
        group = optimizer.param_groups[0]
        group.update(lr=0.1 / (step + 1), weight_decay=0.1 + step, betas=(0.5, 0.9), eps=1e-3)
        give(step, params, missing=(step % 4,))
        optimizer.step()


def test_a_step_leaves_no_old_gradients_in_memory():
    params, optimizer = make()
    gone = []
    for step in range(3):
        give(step, params)
        gone.append([p.grad.data_ptr() for p in params])
        optimizer.step()
        kept = [p.grad for p in params]
        optimizer.zero_grad()
        gc.collect()
        assert all(len(gc.get_referrers(g)) <= 1 for g in kept)


@pytest.mark.slow
def test_memory_does_not_grow_over_10000_steps():
    params, optimizer = make(rule="nadam")
    torch.manual_seed(0)
    peaks = []
    for step in range(10_000):
        for at, p in enumerate(params):
            p.grad = None if (step + at) % 7 == 0 else torch.ones_like(p)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
        if step % 2500 == 2499:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[0] < 2048  # kilobytes; the allocator's own steps are about 100


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ([torch.zeros(3, dtype=torch.complex64)], "no kernel for torch.complex64"),
        ([torch.zeros(8)[::2]], "has gaps"),
        ([torch.zeros(3, 4)[:, :2]], "has gaps"),
    ],
)
def test_what_a_kernel_cannot_do_is_refused_with_a_reason(params, reason):
    params = [torch.nn.Parameter(p) for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = optim.Adam(params, engine="kernel")
    with pytest.raises(UnsupportedError, match=reason):
        optimizer.step()
    optimizer = optim.Adam(params, engine="auto")
    optimizer.step()
    assert any(reason in said for said in optimizer.refusals)


def test_parameters_that_overlap_only_in_axes_of_one_are_dense():
    p = torch.nn.Parameter(torch.ones(6).as_strided((3, 1, 2), (2, 77, 1)))
    p.grad = torch.ones(3, 1, 2)
    optim.SGD([p], lr=0.5, engine="kernel").step()
    assert torch.equal(p.detach().flatten(), torch.full((6,), 0.5))


def test_without_a_compiler_it_is_said_once_and_eager_goes_on(monkeypatch):
    def unavailable(*_, **__):
        raise native.KernelUnavailable("no C++ compiler (c++: not found)")

    monkeypatch.setattr(cpu, "build", unavailable)
    monkeypatch.setattr(native, "_SAID", [])
    ours, a = make("auto")
    theirs, b = make("eager")
    give(0, ours, theirs)
    b.step()
    with pytest.warns(RuntimeWarning, match="several times slower: no C\\+\\+ compiler"):
        a.step()
    assert_same(ours, theirs)
    other, c = make("auto")  # not said again: warnings are errors here
    give(0, other)
    c.step()
    third, d = make("kernel")
    give(0, third)
    with pytest.raises(UnsupportedError, match="no C\\+\\+ compiler"):
        d.step()


def test_the_engine_is_the_preferred_one_and_named():
    assert [e.name for e in engines("auto")] == ["kernel", "eager"]
    assert [e.name for e in engines("kernel")] == ["kernel"]


@pytest.mark.parametrize("rule", ["adam", "sgd", "clip_global_norm(adam)"])
def test_parameters_that_take_turns_stay_in_one_table(rule, monkeypatch):
    """Experts, layers left out by chance: nothing is put together anew once all have had a turn."""
    made = []
    monkeypatch.setattr(native.Work, "watch", _counting(native.Work.watch, made))
    extra = {"momentum": 0.9} if "sgd" in rule else {}
    (ours, a), (theirs, b) = pair(rule=rule, count=6, **extra)
    for step in range(16):
        give(step, ours, theirs, missing=[i for i in range(6) if i % 3 != step % 3])
        if step == 8:
            made.clear()
        a.step()
        b.step()
        assert_same(ours, theirs)
    assert not made
    for p, q in zip(ours, theirs, strict=True):
        assert a.state[p].get("step") == b.state[q].get("step")


def _counting(function, calls):
    def counted(*args):
        calls.append(args)
        return function(*args)

    return counted


def test_groups_that_take_turns_stay_in_one_table(monkeypatch):
    made = []
    monkeypatch.setattr(native.Work, "watch", _counting(native.Work.watch, made))
    ours, theirs = make(count=4)[0], make(count=4)[0]
    a, b = (
        optim.Adam([{"params": m[:2]}, {"params": m[2:], "lr": 0.1}], engine=engine)
        for m, engine in ((ours, "kernel"), (theirs, "eager"))
    )
    for step in range(8):
        give(step, ours, theirs, missing=(0, 1) if step % 2 else (2, 3))
        if step == 4:
            made.clear()
        a.step()
        b.step()
        assert_same(ours, theirs)
    assert not made
