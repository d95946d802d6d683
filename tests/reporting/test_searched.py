"""What a report says and draws about a search."""

import io
import json

import numpy as np
import pytest
from tuned_ledger import SPACES, tuned_ledger

from steepest.racing.searched import searched
from steepest.reporting.searched import (
    coverage_says,
    importance_picture,
    importance_says,
    importance_table,
    methods_picture,
)
from steepest.reporting.terminal import print_result, result_json


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return tuned_ledger(tmp_path_factory.mktemp("race") / "r", trials=32)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A search of one arm."""
    monkeypatch.delitem(SPACES, "sgd(lr=0.001..0.1)")
    return tuned_ledger(tmp_path / "r", trials=16, given=None, defaults=False)


def test_the_sentence_names_what_matters_with_its_share_and_interval(several):
    one = searched(several, "adamw")
    row = one.importances.rows[0]
    text = importance_says(one)
    interval = f"({100 * row.low:.0f} to {100 * row.high:.0f}\xa0%)"
    assert text.startswith(
        f"adamw: lr explains {100 * row.share:.0f}\xa0% {interval} of the differences between its "
        "32 trials"
    )
    assert text.endswith("weight_decay cannot be told from noise.")


def test_every_tuned_arm_has_a_panel_and_its_rows(several):
    picture = importance_picture(several)
    assert picture is not None
    assert [panel.title for panel in picture.panels] == ["adamw", "sgd(lr=0.001..0.1)"]
    table = importance_table(several)
    assert table is not None
    assert [row[1].text for row in table.rows] == ["lr", "weight_decay", "lr"]
    marks = picture.panels[0].figure.data[0].marker.symbol
    assert marks[0] == "circle"
    assert marks[1] == "circle-open"  # not told from noise


def test_too_few_trials_are_said_and_not_drawn(tmp_path):
    result = tuned_ledger(tmp_path / "r", trials=8, given=None)
    picture = importance_picture(result)
    assert picture is not None
    assert "8 trials are too few to say which of 2 hyperparameters matters" in picture.says
    assert [panel.title for panel in picture.panels] == ["sgd(lr=0.001..0.1)"]


def test_the_methods_are_drawn_side_by_side_and_only_one_of_them_as_trained(alone):
    picture = methods_picture(alone)
    assert picture is not None
    assert [panel.title for panel in picture.panels] == [
        "sobol: 16 values of lr",
        "random: 16 values of lr (not run)",
        "grid: 4 values of lr (not run)",
    ]
    for panel in picture.panels:
        trials, ticks = panel.figure.data
        assert len(trials.x) == 16
        assert set(np.round(ticks.x, 6)) == set(np.round(trials.x, 6))  # the projection
        assert ("-open" in str(trials.marker.symbol)) == ("not run" in panel.title)
    assert picture.says == coverage_says(searched(alone))
    assert "grid would have tried 4 values of lr, at widest 33\xa0%" in picture.says


def test_a_race_of_several_arms_has_no_picture_of_methods(several):
    assert methods_picture(several) is None


def test_terminal_and_json_tell_the_setting_and_what_matters(alone):
    from rich.console import Console

    console = Console(record=True, width=120, file=io.StringIO())
    print_result(alone, console)
    text = console.export_text()
    chosen = alone.chosen("adamw")
    assert "The best of 16 settings of adamw reaches a test accuracy of" in text
    assert f"Its setting: adamw(lr={chosen.values['lr']}" in text
    assert "lr explains" in text
    assert "There is one arm" not in text
    body = json.loads(json.dumps(result_json(alone), allow_nan=False))
    found = body["searches"][0]
    assert found["focus"] == "lr"
    assert [c["method"] for c in found["coverage"]] == ["sobol", "random", "grid"]
    assert len(found["scores"]) == 16
