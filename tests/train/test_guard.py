"""The guard against blow-ups: when it ends a run, and which weights it has from before."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from steepest.errors import InputError
from steepest.train.guard import DivergenceGuard, GuardRule, Watch
from steepest.train.task import hash_tensors


def watch(losses, **rule):
    found = Watch(GuardRule(**rule))
    for step, loss in enumerate(losses):
        if found.see(step, loss):
            return found, step
    return found, None


def noisy(n, *, level=1.0, spread=0.3, seed=0):
    return level * np.exp(spread * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_run_at_once(bad) -> None:
    found, step = watch([1.0, 1.0, bad], factor=None)
    assert (step, found.blown_at) == (2, 2)
    assert found.reason == "its loss was not finite at step 2"


def test_a_threshold_ends_the_run_at_once_and_lower_losses_never() -> None:
    found, step = watch([1.0, 50.0, 100.0, 100.1], threshold=100)
    assert (step, found.blown_at) == (3, 3)
    assert "100" in found.reason


def test_so_many_high_steps_in_a_row_are_a_blow_up_dated_to_the_first() -> None:
    losses = [*noisy(60), *[30.0] * 4, 1.0, *[30.0] * 5]
    found, step = watch(losses, steps=5)
    assert (step, found.blown_at) == (69, 65)  # four in a row were not enough
    assert "for 5 steps from step 65 on" in found.reason


def test_a_blow_up_does_not_raise_its_own_reference() -> None:
    slow = [*noisy(100), *np.full(400, 11.5)]
    assert watch(slow, steps=300, window=50)[1] == 399
    assert watch([*noisy(100), *np.full(400, 8.0)], steps=10)[1] is None


def test_the_reference_follows_a_falling_loss_or_stays_at_the_start() -> None:
    falling = [*np.geomspace(1.0, 1e-3, 400), *np.full(20, 0.05)]
    assert watch(falling, factor=10, window=50)[1] == 409
    assert watch(falling, factor=10, of="start")[1] is None
    risen = [*falling, *np.full(20, 11.0)]
    assert watch(risen, factor=10, of="start", steps=5)[1] == 424


def test_losses_below_zero_are_compared_by_their_size() -> None:
    below = [-2.0] * 30
    assert watch([*below, *[17.9] * 30], factor=11)[1] is None
    assert watch([*below, *[18.1] * 30], factor=11, steps=3)[1] == 32


def test_healthy_noisy_runs_are_left_alone() -> None:
    for seed in range(40):
        falling = np.geomspace(2.3, 0.05, 1500) * noisy(1500, spread=0.6, seed=seed)
        assert watch(falling)[1] is None


# ---------------------------------------------------------------------- with a model


def fingerprint(model):
    return hash_tensors(dict(model.state_dict()))


def blow_up(guard, *, lr_from=60, until=200, model=None, optimizer=None, start=0):
    """SGD on a quadratic whose rate is far too large from a step on; the models of all steps."""
    if model is None:
        torch.manual_seed(0)
        model = nn.Linear(4, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    seen = {}
    for step in range(start, until):
        optimizer.param_groups[0]["lr"] = 0.05 if step < lr_from else 0.6
        loss = (model(x) - 1).square().mean() + 0.2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen[step] = (loss.item(), fingerprint(model))
        if guard.update(step, loss.item(), model):
            break
    return model, optimizer, seen


def test_what_is_restored_is_bit_for_bit_a_model_from_before_the_blow_up(tmp_path) -> None:
    guard = DivergenceGuard(factor=5, steps=4, every=7, folder=tmp_path)
    model, _, seen = blow_up(guard)
    losses = [loss for loss, _ in seen.values()]
    reference = np.median(losses[:60])
    first = next(s for s, loss in enumerate(losses) if s >= 60 and loss > 5 * reference)
    assert guard.blown_at == first
    assert len(losses) == first + 4
    assert losses[-1] > 100 * reference
    step = guard.restore(model)
    assert first - 14 <= step < first
    assert fingerprint(model) == seen[step][1]
    x = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert ((model(x) - 1).square().mean() + 0.2).item() <= 2 * reference
    assert len(list(tmp_path.iterdir())) == 1


def test_a_loss_that_is_no_number_never_comes_out_of_kept_weights() -> None:
    """Weights are written after the step; those that give the bad loss are not trusted."""
    torch.manual_seed(0)
    model, guard = nn.Linear(1, 1, bias=False), DivergenceGuard(every=1)
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(float(step))
        if guard.update(step, 1.0 if step < 20 else math.nan, model):
            break
    assert (step, guard.restore(model), model.weight.item()) == (20, 18, 18.0)


@pytest.mark.parametrize("stop", [5, 59, 63])
def test_resumed_is_uninterrupted_bit_for_bit(stop, tmp_path) -> None:
    rule = {"factor": 5, "steps": 4, "every": 7}
    whole = DivergenceGuard(**rule, folder=tmp_path / "a")
    model, _, _ = blow_up(whole)
    expected = whole.restore(model)

    part = DivergenceGuard(**rule, folder=tmp_path / "b")
    other, optimizer, _ = blow_up(part, until=stop)
    saved = json.dumps(part.state_dict())
    weights = {k: v.clone() for k, v in other.state_dict().items()}
    blow_up(part, model=other, optimizer=optimizer, start=stop)  # goes on, and is then killed
    again = DivergenceGuard(**rule, folder=tmp_path / "b")
    again.load_state_dict(json.loads(saved))
    other.load_state_dict(weights)
    blow_up(again, model=other, optimizer=optimizer, start=stop)
    assert again.restore(other) == expected
    assert fingerprint(other) == fingerprint(model)
    assert (again.blown_at, again.reason) == (whole.blown_at, whole.reason)


def test_a_run_that_never_was_calm_has_nothing_to_go_back_to() -> None:
    guard, model = DivergenceGuard(), nn.Linear(1, 1)
    assert guard.update(0, math.nan, model)
    with pytest.raises(InputError, match="before any of its weights were known to be good"):
        guard.restore(model)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"factor": 1.0}, "factor must be a number > 1, got 1.0"),
        ({"factor": math.nan}, "factor must be a number > 1"),
        ({"factor": "x"}, "factor must be a number, got 'x'"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"window": 3}, "window must be a whole number >= 10"),
        ({"threshold": math.inf}, "threshold must be"),
        ({"of": "mean"}, "unknown reference"),
    ],
)
def test_settings_that_cannot_be_are_refused(rule, said) -> None:
    with pytest.raises(InputError, match=said):
        GuardRule(**rule)


def test_text_and_rule_are_the_same_thing() -> None:
    for rule in (
        GuardRule(),
        GuardRule(factor=3.5, of="start"),
        GuardRule(threshold=50, factor=None),
    ):
        assert GuardRule.parse(rule.text) == rule
    with pytest.raises(InputError, match="did you mean 'factor'"):
        GuardRule.parse("faktor=3")
    with pytest.raises(InputError, match="saved with the guard"):
        Watch(GuardRule()).load_state_dict(Watch(GuardRule(factor=3)).state_dict())
