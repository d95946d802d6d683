"""The table of preset spaces: complete, as published, and buildable throughout."""

from pathlib import Path

import pytest
import torch

from steepest import optim, rules, schedules
from steepest.errors import InputError
from steepest.tune import (
    BUDGETS,
    DEEPOBS_RATES,
    PRESETS,
    Range,
    preset,
    presets_page,
    propose,
    rates_only,
)
from steepest.tune.presets_page import filled

# tuning_search_space.json of AlgoPerf's paper baselines, as they stand there: (min, max), log.
ALGOPERF = {
    "sgd": {  # nesterov
        "learning_rate": (2e-2, 5.0),
        "one_minus_beta1": (5e-3, 0.3),
        "weight_decay": (1e-7, 5e-5),
    },
    "adamw": {
        "learning_rate": (1e-4, 1e-2),
        "one_minus_beta1": (2e-2, 0.5),
        "weight_decay": (5e-3, 1.0),
    },
    "nadam": {"learning_rate": (1e-4, 1e-2), "one_minus_beta1": (4e-3, 0.1)},
    "lamb": {
        "learning_rate": (1e-4, 1e-2),
        "one_minus_beta1": (5e-2, 0.3),
        "weight_decay": (1e-3, 1.0),
    },
    "adafactor": {
        "learning_rate": (1e-4, 1e-2),
        "one_minus_beta1": (1e-2, 0.45),
        "weight_decay": (1e-3, 1.0),
    },
}


def test_every_rule_has_a_preset_and_every_number_a_source():
    assert set(PRESETS) == set(rules.names())
    for name, found in PRESETS.items():
        assert found.space.rule == name
        assert found.space.dim >= 1
        named = {*found.space.dimensions, *found.space.fixed, "schedule"}
        assert set(found.sources) == named
        assert all(source.strip() for source in found.sources.values())
        assert found.source
        if found.schedule is not None:
            schedules.parse(found.schedule).check(100)


@pytest.mark.parametrize("name", ALGOPERF)
def test_published_spaces_are_as_published(name):
    space = preset(name).space
    for key, (low, high) in ALGOPERF[name].items():
        ours = {"learning_rate": "lr", "weight_decay": "weight_decay"}.get(key)
        if ours is None:
            ours = "momentum" if name == "sgd" else "beta1"
        ends = (low, high) if key != "one_minus_beta1" else (1 - high, 1 - low)
        found = space.dimensions[ours]
        assert isinstance(found, Range)
        assert (found.low, found.high) == pytest.approx(ends)
        assert found.scale == ("log" if key != "one_minus_beta1" else "one_minus_log")
        assert "AlgoPerf" in preset(name).sources[ours]


@pytest.mark.parametrize("name", rules.names())
def test_every_trial_of_every_preset_builds_and_steps(name):
    for setting in propose(preset(name).space, method="sobol", trials=4, seed=0):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6))
        optimizer = optim.build(name, [weight], **setting)
        weight.grad = torch.full_like(weight, 0.1)
        optimizer.step()
        assert torch.isfinite(weight).all()


def test_a_modifier_keeps_the_preset_of_its_rule():
    found = preset("cautious(adamw)")
    assert found.space.rule == "cautious(adamw)"
    assert found.space.dimensions == preset("adamw").space.dimensions


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.optim:Adam", r"write .* for example torch.optim:Adam\(lr=1e-4..1e-1\)"),
        ("my opt.py:Lion", "no rule of steepest"),
        ("adm", "did you mean 'adam'"),
    ],
)
def test_what_has_no_preset_says_what_to_write(name, message):
    with pytest.raises(InputError, match=message):
        preset(name)


def test_deepobs_rates_are_five_to_a_decade():
    low, high, count = DEEPOBS_RATES
    trials = propose(rates_only("sgd"), method="grid", trials=count, seed=0)
    rates = [setting["lr"] for setting in trials]
    assert rates[0] == low
    assert rates[-1] == high
    assert rates == pytest.approx([10 ** (-5 + i / 5) for i in range(36)], rel=0.01)


PAGE = Path(__file__).parents[2] / "docs" / "tuning.md"


def test_the_table_in_the_documentation_is_current():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "write it again: python -m steepest.tune.presets_page"
    for name in rules.names():
        assert f"| `{name}` |" in text


def test_the_page_is_written_where_it_is_asked_for(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{presets_page.BEGIN}\nold\n{presets_page.END}\nafter")
    presets_page.main([str(page)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert "old" not in text
    assert presets_page.table() in text
    page.write_text("no marks")
    with pytest.raises(InputError, match="no place for the table"):
        presets_page.main([str(page)])


def test_budgets_in_the_documentation_are_those_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    for name, budget in BUDGETS.items():
        row = f"| `{name}` | {budget.trials} | {budget.tuning_seeds} | {budget.seeds} |"
        assert row in text
