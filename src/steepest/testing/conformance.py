"""What every optimizer has to do, whatever its rule: one table of checks.

    from steepest.testing import check_rule
    check_rule("my_rule")               # all checks that make sense for it; AssertionError if not

Every registered rule is checked by itself in our own tests; authors call `check_rule` on theirs.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest import optim, rules
from steepest.kernels import EngineName
from steepest.kernels.eager import apply
from steepest.rules import Rule
from steepest.testing.follow import Trajectory, follow, follow_oracle
from steepest.testing.oracles import ORACLES
from steepest.testing.oracles_modern import Oracle
from steepest.testing.trials import Trial, hard_values, train, trial

__all__ = ["CHECKS", "check_rule", "why_skipped"]

Check = Callable[[Rule, EngineName], None]

_EXACT = 1e-11
"""Of the longest way: the same operations in another order, over tens of steps, in float64."""


def check_rule(
    name: str, *, engine: EngineName = "eager", oracle: Oracle | None = None
) -> dict[str, str]:
    """Run every check that makes sense for a rule.

    Args:
        name: The rule's name.
        engine: What executes it.
        oracle: An independent float64 step to compare with, if it is not a rule of ours.

    Returns:
        The checks that were left out, with the reason.

    Raises:
        AssertionError: The check's name, and what was expected.
    """
    rule = rules.get(name)
    left_out = {}
    for label, check in CHECKS.items():
        reason = why_skipped(rule, label)
        if reason is None:
            check(rule, engine)
        else:
            left_out[label] = reason
    if oracle is not None:
        _agrees_with(rule, engine, oracle)
    return left_out


def why_skipped(rule: Rule, label: str) -> str | None:
    """Why a check makes no sense for a rule; None if it does."""
    if label == "follows its oracle" and rule.name not in ORACLES:
        return "there is no oracle of one tensor for it"
    if label in _ELEMENTWISE and rule.kind != "elementwise":
        return f"a rule of kind {rule.kind} sees whole tensors"
    if label in _SEPARATE and rule.has_totals:
        return "it sums over all parameters, so that groups are not independent"
    if label in _SIXTEEN_BITS and rule.kind == "matrix":
        return "torch factorises no matrices of 16-bit numbers"
    return None


def _shapes(rule: Rule) -> list[tuple[int, ...]]:
    return [(6, 5), (7, 7)] if rule.kind == "matrix" else [(7, 3), (5,), (), (2, 3, 4, 4)]


def _build(rule: Rule, engine: EngineName, params: Sequence[Any], **values: Any) -> optim.Facade:
    return optim.build(rule.name, params, engine=engine, **{**hard_values(rule), **values})


def _tensors(given: Trial, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor(p, dtype=dtype)) for p in given.params]


def _assert_same(path: Trajectory, other: Trajectory, what: str, *, bound: float = _EXACT) -> None:
    assert len(path) == len(other)
    last = zip(other[-1], other[0], strict=True)
    way = max(float(np.abs(a - b).max(initial=0.0)) for a, b in last)
    pairs = [pair for a, b in zip(path, other, strict=True) for pair in zip(a, b, strict=True)]
    apart = max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)
    assert way > 0, f"{what}: nothing has moved"
    assert apart <= bound * max(way, 1.0), f"{what}: {apart:.3g} apart after a way of {way:.3g}"


class _Float64:
    """Single numbers of the state in float64 too, which torch keeps in the default dtype."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


def _changing(rule: Rule, given: Trial) -> list[dict[str, float]]:
    lr = rule.hyperparameters["lr"]
    return [{**hard_values(rule), "lr": lr * rate} for rate in given.rates]


def _agrees_with(rule: Rule, engine: EngineName, oracle: Oracle) -> None:
    given = trial(_shapes(rule))
    with _Float64():
        ours = train(_build(rule, engine, _tensors(given)), given)
    expected = follow_oracle(oracle, rule, given.params, given.grads, _changing(rule, given))
    _assert_same(ours, expected, "against the oracle")


def follows_its_oracle(rule: Rule, engine: EngineName) -> None:
    """100 steps in float64: decay, large ε, a changing rate, missing gradients."""
    _agrees_with(rule, engine, ORACLES[rule.name])


def is_its_formula(rule: Rule, engine: EngineName) -> None:
    """The optimizer on torch tensors does what the bare formula does on NumPy arrays."""
    given = trial(_shapes(rule), steps=40)
    with _Float64():
        ours = train(_build(rule, engine, _tensors(given)), given)
    expected, _ = follow(rule, given.params, given.grads, _changing(rule, given))
    _assert_same(ours, expected, "the optimizer against its formula")


def layouts_do_not_matter(rule: Rule, engine: EngineName) -> None:
    """Transposed, channels-last, expanded and empty parameters take the steps of compact ones."""
    if rule.kind == "matrix":
        given = trial([(6, 5), (7, 7)], steps=10)
        arranged = _tensors(given)
        arranged[0] = torch.nn.Parameter(arranged[0].detach().t().contiguous().t())
    else:
        given = trial([(7, 3), (2, 3, 4, 4), (4,), (0, 3), ()], steps=10)
        arranged = _tensors(given)
        arranged[0] = torch.nn.Parameter(arranged[0].detach().t().contiguous().t())
        arranged[1] = torch.nn.Parameter(
            arranged[1].detach().contiguous(memory_format=torch.channels_last)
        )
        arranged[2] = torch.nn.Parameter(torch.stack([arranged[2].detach()] * 2, dim=1)[:, 0])
    optimizer = _build(rule, engine, arranged)
    _assert_same(
        train(optimizer, given), train(_build(rule, engine, _tensors(given)), given), "layouts"
    )
    for p in arranged[:2]:
        for held in optimizer.state[p].values():
            if isinstance(held, Tensor) and held.shape == p.shape:
                assert held.stride() == p.stride(), "a slot has not the layout of its parameter"


def size_does_not_matter(rule: Rule, engine: EngineName) -> None:
    """A tensor that is worked on in parts takes the steps of its elements."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=(3, 50_000))
    grads: Any = [[rng.normal(size=p.shape)] for _ in range(3)]
    large = Trial([p], grads, [1.0] * 3)
    few = Trial([p[:, ::1000]], [[g[0][:, ::1000]] for g in grads], [1.0] * 3)
    whole = train(_build(rule, engine, _tensors(large)), large)
    _assert_same(
        [[x[0][:, ::1000]] for x in whole],
        train(_build(rule, engine, _tensors(few)), few),
        "in parts",
    )


def missing_gradients_change_nothing(rule: Rule, engine: EngineName) -> None:
    """A parameter without a gradient keeps its value, its state and its number of steps."""
    given = trial(_shapes(rule), steps=6)
    params = _tensors(given)
    optimizer = _build(rule, engine, params)
    train(optimizer, given, stop=4)
    for p in params:
        p.grad = torch.ones_like(p)
    params[0].grad = None
    shared = {name for name, slot in rule.slots.items() if slot.per == "all"}
    before = copy.deepcopy((params[0].detach(), dict(optimizer.state[params[0]])))
    optimizer.step()
    assert torch.equal(params[0].detach(), before[0])
    for name, held in optimizer.state[params[0]].items():
        assert name in shared or torch.equal(held, before[1][name]), f"{name} has changed"


def maximising_is_minimising_the_negative(rule: Rule, engine: EngineName) -> None:
    """``maximize=True`` on the negative gradients: the same bits."""
    given = trial(_shapes(rule), steps=10)
    negative = [[None if g is None else np.asarray(-g) for g in grads] for grads in given.grads]
    up = train(
        _build(rule, engine, _tensors(given), maximize=True),
        Trial(given.params, negative, given.rates),
    )
    _assert_same(up, train(_build(rule, engine, _tensors(given)), given), "maximize", bound=0.0)


def groups_are_independent(rule: Rule, engine: EngineName) -> None:
    """Two groups with rates of their own are two optimizers."""
    given = trial(_shapes(rule), steps=10)
    lr = rule.hyperparameters["lr"]
    together = _tensors(given)
    one = _build(rule, engine, [{"params": together[:1], "lr": 3 * lr}, {"params": together[1:]}])
    apart = _tensors(given)
    two = [_build(rule, engine, apart[:1], lr=3 * lr), _build(rule, engine, apart[1:])]
    for step, grads in enumerate(given.grads):
        for params in (together, apart):
            for p, g in zip(params, grads, strict=True):
                p.grad = None if g is None else torch.from_numpy(g)
        one.step()
        for optimizer in two:
            optimizer.step()
        if step == 4:
            one.add_param_group({"params": [torch.nn.Parameter(torch.ones(6, 6))]})
    for p, q in zip(together, apart, strict=True):
        torch.testing.assert_close(p, q, rtol=_EXACT, atol=_EXACT)


def state_survives(rule: Rule, engine: EngineName) -> None:
    """Saved and loaded, copied deeply or pickled in the middle, training goes on to the bit."""
    given = trial(_shapes(rule), steps=12)
    params = _tensors(given)
    optimizer = _build(rule, engine, params)
    train(optimizer, given, stop=6)

    def loaded(through: Callable[[Any], Any]) -> optim.Facade:
        fresh = _build(rule, engine, [torch.nn.Parameter(p.detach().clone()) for p in params])
        fresh.load_state_dict(through(optimizer.state_dict()))
        return fresh

    def through_a_file(state: Any) -> Any:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    others = {
        "a state dict": loaded(lambda state: state),
        "a file": loaded(through_a_file),
        "deepcopy": copy.deepcopy(optimizer),
        "pickle": pickle.loads(pickle.dumps(optimizer)),  # noqa: S301  (our own bytes)
    }
    lr = rule.hyperparameters["lr"]
    expected = train(optimizer, given, start=6)
    for way, other in others.items():
        assert other.defaults["lr"] == lr
        _assert_same(train(other, given, start=6), expected, f"through {way}", bound=0.0)


def rate_may_be_a_tensor(rule: Rule, engine: EngineName) -> None:
    """A learning rate in a tensor, changed in place, does what a float does."""
    given = trial(_shapes(rule), steps=8)
    lr = rule.hyperparameters["lr"]
    tensor = torch.tensor(lr, dtype=torch.float64)
    params, others = _tensors(given), _tensors(given)
    a, b = _build(rule, engine, params, lr=tensor), _build(rule, engine, others)
    for grads, rate in zip(given.grads, given.rates, strict=True):
        tensor.fill_(lr * rate)
        b.param_groups[0]["lr"] = lr * rate
        for owner in (params, others):
            for p, g in zip(owner, grads, strict=True):
                p.grad = None if g is None else torch.from_numpy(g)
        a.step()
        b.step()
    # the state's single numbers are float32 here, and a rate in a tensor is multiplied elsewhere
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)


def sixteen_bits_are_rounded_once(rule: Rule, engine: EngineName) -> None:
    """One step in bfloat16 and float16 is the float32 step, rounded."""
    for dtype in (torch.bfloat16, torch.float16):
        given = trial(_shapes(rule), steps=1)
        rounded = [torch.tensor(p).to(dtype).double().numpy() for p in given.params]
        grads: Any = [[np.ones(1)[0] if g is None else g for g in given.grads[0]]]
        grads = [[torch.tensor(g).to(dtype).double().numpy() for g in grads[0]]]
        given = Trial(rounded, grads, [1.0])
        low = train(_build(rule, engine, _tensors(given, dtype)), given)
        high = train(_build(rule, engine, _tensors(given, torch.float32)), given)
        for a, b in zip(low[0], high[0], strict=True):
            torch.testing.assert_close(
                torch.tensor(a).to(dtype),
                torch.tensor(b).to(dtype),
                rtol=torch.finfo(dtype).eps,
                atol=torch.finfo(dtype).eps,
            )


def members_are_separate_runs(rule: Rule, _: EngineName) -> None:
    """Under vmap, with a learning rate and a decay per member: every member's own run."""
    rng = np.random.default_rng(0)
    start, gradients = (
        torch.tensor(rng.normal(size=(3, 4))),
        torch.tensor(rng.normal(size=(5, 3, 4))),
    )
    lr = rule.hyperparameters["lr"]
    values: dict[str, Any] = {**hard_values(rule)}
    per_member = {"lr": torch.tensor([lr, 3 * lr, lr / 7], dtype=torch.float64)}
    if "weight_decay" in values:
        per_member["weight_decay"] = torch.tensor([0.1, 0.3, 0.0], dtype=torch.float64)
    names = rule.active_slots(values)

    def step(p: Tensor, g: Tensor, slots: Mapping[str, Any], own: Mapping[str, Any], t: int) -> Any:
        given = [slots.get(name) for name in rule.slots]
        change, *new = apply(rule, p, g, given, t=t, values={**values, **own})
        kept = zip(rule.slots, new, strict=True)
        return p + change, {n: torch.as_tensor(v, dtype=p.dtype) for n, v in kept if n in names}

    def first(p: Tensor, own: Mapping[str, Any]) -> dict[str, Any]:
        slots = {}
        for name in names:
            slot = rule.slots[name]
            like = torch.zeros((), dtype=p.dtype) if slot.per == "tensor" else torch.zeros_like(p)
            known = {**rule.hyperparameters, **values, **own, "p": p}
            slots[name] = like + (known[slot.init] if isinstance(slot.init, str) else slot.init)
        return slots

    def run(p: Tensor, grads: Tensor, own: Mapping[str, Any]) -> Tensor:
        slots = first(p, own)
        for at in range(5):
            p, slots = step(p, grads[at], slots, own, at + 1)
        return p

    together = torch.func.vmap(run, in_dims=(0, 1, 0))(start, gradients, per_member)
    for member in range(3):
        own = {name: x[member].item() for name, x in per_member.items()}
        alone = run(start[member], gradients[:, member], own)
        torch.testing.assert_close(together[member], alone, rtol=_EXACT, atol=_EXACT)


def wrong_input_changes_nothing(rule: Rule, engine: EngineName) -> None:
    """A NaN rate, or a gradient of another shape: an error, and everything as it was."""
    given = trial(_shapes(rule), steps=3)
    params = _tensors(given)
    optimizer = _build(rule, engine, params)
    train(optimizer, given, stop=2)
    for p in params:
        p.grad = torch.ones_like(p)
    before = copy.deepcopy((params, optimizer.state_dict()))
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = float("nan")
    _assert_refused(optimizer, ValueError)
    optimizer.param_groups[0]["lr"] = rate
    params[-1].data = params[-1].data.float()
    _assert_refused(optimizer, ValueError)
    params[-1].data = before[0][-1].data
    for p, q in zip(params, before[0], strict=True):
        assert torch.equal(p, q)
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)


def _assert_refused(optimizer: optim.Facade, kind: type[Exception]) -> None:
    try:
        optimizer.step()
    except kind:
        return
    raise AssertionError(f"step() went on where it had to raise {kind.__name__}")


CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        follows_its_oracle,
        is_its_formula,
        layouts_do_not_matter,
        size_does_not_matter,
        missing_gradients_change_nothing,
        maximising_is_minimising_the_negative,
        groups_are_independent,
        state_survives,
        rate_may_be_a_tensor,
        sixteen_bits_are_rounded_once,
        members_are_separate_runs,
        wrong_input_changes_nothing,
    )
}
"""What is promised, and the function that checks it."""

_ELEMENTWISE = ("size does not matter", "members are separate runs")
_SEPARATE = ("groups are independent",)
_SIXTEEN_BITS = ("sixteen bits are rounded once",)
