"""Early stopping: when it stops, what it keeps, and that it goes on where it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steepest.errors import InputError, LedgerError
from steepest.train.stopping import EarlyStopping, Stopper, StopRule
from steepest.train.task import hash_tensors


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(model, generator):
    """A step that changes every parameter and buffer."""
    model.train()
    x = torch.randn(8, 3, generator=generator)
    with torch.no_grad():
        model(x)
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)


def fingerprint(model):
    return hash_tensors(dict(model.state_dict()))


def loop(losses, stopper, model, generator, *, start=0):
    """Train and evaluate; the fingerprint at every evaluation."""
    seen = {}
    for step in range(start, len(losses)):
        train(model, generator)
        seen[step] = fingerprint(model)
        if stopper.update(step, {"val_loss": losses[step]}, model):
            break
    return seen


LOSSES = [1.0, 0.8, 0.9, 0.7, 0.75, 0.7, 0.72, 0.1]


@pytest.mark.parametrize("where", [None, "folder"])
def test_what_is_restored_is_bit_for_bit_the_best_evaluations_model(where, tmp_path) -> None:
    folder = None if where is None else tmp_path / "best"
    stopper = EarlyStopping("val_loss", patience=3, folder=folder)
    model = net()
    seen = loop(LOSSES, stopper, model, torch.Generator().manual_seed(1))
    assert list(seen) == [0, 1, 2, 3, 4, 5, 6]  # 0.7 again at step 5 is no improvement
    assert (stopper.stopped_at, stopper.best_step, stopper.best) == (6, 3, 0.7)
    assert fingerprint(model) == seen[6] != seen[3]
    assert stopper.restore(model) == 3
    assert fingerprint(model) == seen[3]
    assert len(set(seen.values())) == 7
    (file,) = stopper.kept.folder.iterdir()
    loaded = safetensors.torch.load_file(file)  # an ordinary file of the model's state
    assert hash_tensors({k: loaded[k] for k in model.state_dict()}) == seen[3]


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_resumed_is_uninterrupted_bit_for_bit(stop, tmp_path) -> None:
    whole, model = EarlyStopping(patience=3, folder=tmp_path / "a"), net()
    expected = loop(LOSSES, whole, model, torch.Generator().manual_seed(1))
    whole.restore(model)

    part, other = EarlyStopping(patience=3, folder=tmp_path / "b"), net()
    generator = torch.Generator().manual_seed(1)
    loop(LOSSES[:stop], part, other, generator)
    saved = json.dumps(part.state_dict())
    weights, chance = {k: v.clone() for k, v in other.state_dict().items()}, generator.get_state()
    loop(LOSSES, part, other, generator, start=stop)  # goes on, and is then killed

    again, third = EarlyStopping(patience=3, folder=tmp_path / "b"), net()
    again.load_state_dict(json.loads(saved))
    third.load_state_dict(weights)
    generator.set_state(chance)
    loop(LOSSES, again, third, generator, start=stop)
    assert again.restore(third) == whole.best_step
    assert fingerprint(third) == fingerprint(model) == expected[3]
    strip = lambda s: {k: v for k, v in s.state_dict().items() if k != "kept"}  # noqa: E731
    assert strip(again) == strip(whole)
    assert again.reason == whole.reason


def test_only_the_best_and_what_states_speak_of_stays_on_disk(tmp_path) -> None:
    stopper, model = EarlyStopping(patience=99, folder=tmp_path), net()
    for step in range(6):
        stopper.update(step, {"val_loss": -step}, model)
        if step in (1, 2, 4):
            stopper.state_dict()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"best-val_loss-{step}.safetensors" for step in (2, 4, 5)]


def value(rule, values):
    """By definition: the evaluation at which to stop, and the best one."""
    best, best_at = None, -1
    for k, v in enumerate(values):
        if not math.isnan(v):
            d = rule.min_delta * (1 if rule.min_delta_mode == "absolute" else abs(best or 0))
            sign = -1 if rule.mode == "min" else 1
            if best is None or sign * v > sign * best + d:
                best, best_at = v, k
                continue
        if k - best_at >= rule.patience:
            return k, best
    return None, best


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.55, 1.0, 1.1, math.nan]), max_size=30),
    st.sampled_from(["min", "max"]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from(["absolute", "relative"]),
    st.integers(1, 4),
)
def test_it_stops_where_the_definition_says(values, mode, delta, delta_mode, patience) -> None:
    rule = StopRule(
        monitor="score", mode=mode, min_delta=delta, min_delta_mode=delta_mode, patience=patience
    )
    stopper = Stopper(rule)
    for k, v in enumerate(values):
        if stopper.see(k, {"score": v}):
            break
    stop, best = value(rule, values)
    assert stopper.stopped_at == stop
    if stop is None:
        assert stopper.best == best


def test_an_improvement_is_strict_and_by_at_least_min_delta() -> None:
    plain = StopRule(monitor="loss")
    assert not plain.is_better(1.0, 1.0)
    assert plain.is_better(math.nextafter(1.0, 0), 1.0)
    absolute = StopRule(monitor="accuracy", min_delta=0.25)
    assert not absolute.is_better(0.75, 0.5)
    assert absolute.is_better(0.7500001, 0.5)
    relative = StopRule(monitor="loss", min_delta=0.01, min_delta_mode="relative")
    assert not relative.is_better(198.0, 200.0)
    assert relative.is_better(197.9, 200.0)
    assert relative.is_better(-202.1, -200.0)
    assert not relative.is_better(-201.9, -200.0)
    assert plain.is_better(3.0, math.inf)
    assert not plain.is_better(math.inf, math.inf)
    assert not plain.is_better(math.nan, None)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("val_loss", "min"), ("test_error", "min"), ("perplexity", "min"), ("rmse", "min"),
     ("accuracy", "max"), ("macro_f1", "max"), ("val_AUC", "max")],
)  # fmt: skip
def test_the_good_side_is_told_from_plain_names(name, mode) -> None:
    assert StopRule(monitor=name).mode == mode


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patience": 0}, "patience must be a whole number of evaluations >= 1, got 0"),
        ({"patience": 1.5}, "patience must be"),
        ({"patience": True}, "patience must be"),
        ({"min_delta": -1}, "min_delta must be a number >= 0, got -1"),
        ({"min_delta": math.nan}, "min_delta must be"),
        ({"min_delta_mode": "relativ"}, "did you mean 'relative'"),
        ({"mode": "low"}, "unknown mode 'low'"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, said) -> None:
    with pytest.raises(InputError, match=said):
        EarlyStopping(**arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("val_loss, patience=0", "patience must be"),
        ("val_loss, patiense=3", "did you mean 'patience'"),
        ("val_loss, val_accuracy", "cannot read 'val_accuracy'"),
        ("patience=1, patience=2", "patience was given twice"),
    ],
)
def test_a_text_that_cannot_be_is_refused(text, said) -> None:
    with pytest.raises(InputError, match=said):
        StopRule.parse(text)


def test_text_and_rule_are_the_same_thing() -> None:
    rule = StopRule(monitor="val_accuracy", patience=3, min_delta=0.01, min_delta_mode="relative")
    assert StopRule.parse(rule.text) == rule
    assert StopRule.parse("val_loss, patience=7") == StopRule(patience=7)


def test_a_monitor_that_is_not_measured_is_named_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match="unknown metric to monitor 'val_los'; did you mean 'val_loss'"
    ):
        EarlyStopping("val_los").update(0, {"val_loss": 1.0, "val_accuracy": 0.5})


def test_a_name_that_does_not_tell_the_good_side_asks_for_it() -> None:
    with pytest.raises(InputError, match="whether a higher 'score' is better cannot be told"):
        EarlyStopping("score").update(0, {"score": 1.0})
    assert not EarlyStopping("score", mode="max").update(0, {"score": 1.0})


def test_evaluations_out_of_order_are_refused() -> None:
    stopper = EarlyStopping()
    stopper.update(5, {"val_loss": 1.0})
    with pytest.raises(InputError, match="step 5 after step 5"):
        stopper.update(5, {"val_loss": 1.0})


def test_what_cannot_be_restored_says_why(tmp_path: Path) -> None:
    stopper = EarlyStopping(folder=tmp_path)
    stopper.update(0, {"val_loss": 1.0})
    with pytest.raises(InputError, match="no weights were kept"):
        stopper.restore(net())
    stopper.update(1, {"val_loss": 0.5}, net())
    with pytest.raises(InputError, match="weights of another model"):
        stopper.restore(nn.Linear(2, 2))
    state = stopper.state_dict()
    stopper.kept.path.write_bytes(b"broken")
    with pytest.raises(LedgerError, match="damaged"):
        stopper.restore(net())
    stopper.kept.path.unlink()
    with pytest.raises(LedgerError, match="which is gone"):
        EarlyStopping(folder=tmp_path).load_state_dict(state)
    with pytest.raises(InputError, match="saved with patience=5, and patience=6"):
        EarlyStopping(patience=6).load_state_dict(state)


def test_a_temporary_folder_ends_with_its_stopper() -> None:
    stopper = EarlyStopping()
    stopper.update(0, {"val_loss": 1.0}, net())
    folder = stopper.kept.folder
    assert folder.exists()
    del stopper
    assert not folder.exists()
