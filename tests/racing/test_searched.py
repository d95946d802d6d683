"""A tuning stage looked at as a search: scores of equal length, importance, coverage."""

import math

import numpy as np
import pytest
from tuned_ledger import tuned_ledger

from steepest.errors import InputError
from steepest.racing.searched import searched
from steepest.tune import Choice, Range, Space, propose


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return tuned_ledger(tmp_path_factory.mktemp("race") / "r", trials=32)


def test_the_scores_are_the_means_over_tuning_seeds_and_lost_runs_are_none(result):
    one = searched(result, "adamw")
    assert len(one.trials) == len(one.scores) == 32
    for trial, score in zip(one.trials, one.scores, strict=True):
        runs = [run for run in result.tuning_runs if run.trial == trial.trial_id]
        if any(run.status == "diverged" for run in runs):
            assert math.isnan(score)
        else:
            assert score == pytest.approx(np.mean([r.metrics["val_accuracy"] for r in runs]))
            assert score == pytest.approx(trial.score)
    assert any(math.isnan(score) for score in one.scores)  # the fast ones diverge


def test_the_learning_rate_explains_what_the_made_up_numbers_made_it_explain(result):
    one = searched(result, "adamw")
    assert one.focus == "lr"
    assert [row.name for row in one.importances.clear] == ["lr"]
    decay = next(row for row in one.importances.rows if row.name == "weight_decay")
    assert decay.share < 0.1


def test_coverage_counts_values_and_gaps_of_every_method(result):
    one = searched(result, "adamw")
    by_method = {c.method: c for c in one.coverage}
    assert list(by_method) == ["sobol", "random", "grid"]
    assert [c.ran for c in one.coverage] == [True, False, False]
    assert {c.points.shape for c in one.coverage} == {(32, 2)}
    # 6 × 5 = 30 points of a grid, filled up with 2 of Sobol
    assert by_method["grid"].values == 6 + 2
    assert by_method["sobol"].values == 32
    column = np.sort(by_method["random"].points[:, 0])
    gaps = np.diff(np.concatenate([[0.0], column, [1.0]]))
    assert by_method["random"].gap == pytest.approx(gaps.max(), abs=1e-6)
    settings = propose(one.space, method="random", trials=32, seed=0)
    assert by_method["random"].points.tolist() == [one.space.position(s).tolist() for s in settings]
    assert by_method["sobol"].gap < by_method["random"].gap


def test_of_several_arms_one_must_be_named(result):
    with pytest.raises(InputError, match="several arms were tuned, name one: adamw, sgd"):
        searched(result)
    with pytest.raises(InputError, match=r"'adam\(lr=0.001\)' was not tuned; tuned: adamw"):
        searched(result, "adam(lr=0.001)")


def test_a_search_that_is_not_over_claims_what_it_can(tmp_path):
    result = tuned_ledger(tmp_path / "r", trials=8, stage="tuning", given=None)
    one = searched(result, "adamw")
    assert one.coverage == ()
    assert "8 trials are too few" in one.importances.reason


def test_a_space_of_the_ledger_finds_its_settings_again_in_json():
    space = Space({"betas[0]": Range(0.5, 0.9), "mode": Choice(("a", "b"))}, {"betas[1]": 0.99})
    setting = space.at([0.3, 0.6])
    as_read = {"betas": list(setting["betas"]), "mode": setting["mode"]}
    assert space.position(as_read).tolist() == space.position(setting).tolist()
