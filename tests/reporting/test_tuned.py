"""What the report shows of a tuning stage, against the ledger's own rows."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from tuned_ledger import tuned_ledger

from steepest.racing.result import Result
from steepest.reporting import print_result, result_json
from steepest.reporting.bought import bought_picture, gains, settings_table
from steepest.reporting.facts import single_seed, single_seed_words
from steepest.reporting.html import render
from steepest.reporting.sensitivity import sensitivities, sensitivity_picture
from steepest.reporting.spending import (
    anytime_picture,
    budget_flags,
    budget_says,
    cost_table,
    incumbents,
    spent,
)
from steepest.reporting.trials import best_of_k_picture, space_picture, trials_table
from steepest.stats import sign_flip_interval

SGD = "sgd(lr=0.001..0.1)"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tuned_ledger(tmp_path_factory.mktemp("tuned") / "race")


class Changed:
    """A result with some of its answers replaced."""

    def __init__(self, result: Result, **other: Any) -> None:
        self._result, self._other = result, other

    def __getattr__(self, name: str) -> Any:
        return self._other[name] if name in self._other else getattr(self._result, name)


# --- learning rates ------------------------------------------------------------------------------


def test_sensitivity_has_every_trial_and_says_how_its_width_was_found(tuned: Result) -> None:
    adamw, sgd = sensitivities(tuned)
    assert (adamw.exact, sgd.exact) == (False, True)
    for row in (adamw, sgd):
        trials = [t for t in tuned.trials if t.arm == row.arm and t.role == "candidate"]
        assert row.rates.tolist() == [t.values["lr"] for t in trials]
        np.testing.assert_array_equal(row.scores, [t.score for t in trials])
    assert sgd.near is not None
    assert sgd.near.open_high  # its best is the largest rate that was tried
    best = max(t.score for t in tuned.trials if t.arm == SGD and t.role == "candidate")
    ends = np.interp([math.log10(sgd.near.low)], np.log10(sgd.line_rates), sgd.line_scores)
    assert best - ends[0] == pytest.approx(0.01, abs=1e-6)  # one point of accuracy
    picture = sensitivity_picture(tuned)
    assert picture is not None
    assert any("upper envelope" in note for note in picture.notes)
    assert f"{SGD} over at least" in picture.says


def test_trials_below_the_drawn_range_stay_on_the_picture(tuned: Result) -> None:
    picture = sensitivity_picture(tuned)
    assert picture is not None
    figure = picture.panels[0].figure
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in marks] == [16, 16]
    low, high = figure.layout.yaxis.range
    for trace in marks:
        assert (np.array(trace.y) >= low).all()
        assert (np.array(trace.y) <= high).all()
    hollow = sum(symbol.endswith("-open") for trace in marks for symbol in trace.marker.symbol)
    assert f"{hollow} trials worse than the drawn range stand hollow" in picture.notes[0]
    lost = sum(t.diverged > 0 for t in tuned.trials if t.role == "candidate")
    assert sum(symbol == "x" for trace in marks for symbol in trace.marker.symbol) == lost > 0


def test_the_tolerance_is_the_smallest_difference_that_matters_if_there_is_one(
    tuned: Result,
) -> None:
    strict: Any = Changed(tuned, spec={**tuned.spec, "min_effect": 0.002})
    wide, narrow = sensitivities(tuned)[1].near, sensitivities(strict)[1].near
    assert wide is not None
    assert narrow is not None
    assert narrow.decades < wide.decades


# --- best of k -----------------------------------------------------------------------------------


def test_best_of_k_is_drawn_for_every_arm_and_ends_at_its_best_trial(tuned: Result) -> None:
    picture = best_of_k_picture(tuned)
    assert picture is not None
    lines = [t for t in picture.panels[0].figure.data if "lines" in t.mode and t.line.width > 0]
    for label, trace in zip(tuned.tuned, lines, strict=True):
        scores = [t.score for t in tuned.trials if t.arm == label and t.role == "candidate"]
        assert trace.y[-1] == pytest.approx(100 * np.nanmax(scores))
        assert trace.x[-1] == 16
    assert "Median" in picture.panels[0].title  # a trial diverged, so there is no mean
    # by enumeration: the median of the best of two
    scores = [-math.inf if math.isnan(t.score) else t.score for t in tuned.trials
              if t.arm == SGD and t.role == "candidate"]  # fmt: skip
    pairs = sorted(max(pair) for pair in itertools.combinations(scores, 2))
    assert lines[1].y[1] == pytest.approx(100 * pairs[math.ceil(len(pairs) / 2) - 1])


def test_after_halving_there_is_no_best_of_k(tuned: Result) -> None:
    assert tuned.tuning is not None
    halved: Any = Changed(tuned, tuning=dataclasses.replace(tuned.tuning, rungs=(50, 200)))
    assert best_of_k_picture(halved) is None
    picture = sensitivity_picture(halved)
    assert picture is not None
    assert "Successive halving: trials ran for 50, 200 steps" in picture.notes[-1]


# --- what was spent ------------------------------------------------------------------------------


def test_the_budget_is_counted_from_the_runs(tuned: Result) -> None:
    costs = spent(tuned)
    assert costs["adamw"].trials == costs[SGD].trials == 16
    assert costs["adamw"].planned_steps == costs[SGD].planned_steps == 16 * 2 * 200
    frame = tuned.to_dataframe()
    tuning = frame[frame["stage"] == "tuning"].groupby("arm")["steps"].sum()
    assert costs["adamw"].tuning_steps == tuning["adamw"] < 6400  # a trial diverged
    assert costs["adam(lr=0.001)"].planned_steps == 0
    assert tuned.tuning is not None
    says = budget_says(tuned, tuned.tuning)
    assert says.startswith(
        "Each of the 2 tuned arms was given the same 16 trials × 2 seeds and 6,400 steps"
    )
    table = cost_table(tuned)
    assert table is not None
    assert [row[5].text for row in table.rows] == [
        f"{c.tuning_steps + c.final_steps:,}" for c in costs.values()
    ]


def test_an_unequal_budget_stops_the_reader(tuned: Result) -> None:
    assert not any(flag.kind == "stop" for flag in budget_flags(tuned))
    fewer = [run for run in tuned.tuning_runs if not (run.arm == SGD and run.trial % 2)]
    broken: Any = Changed(tuned, tuning_runs=fewer)
    flags = [flag for flag in budget_flags(broken) if flag.kind == "stop"]
    assert len(flags) == 1
    assert f"{SGD}: 16 trials, 3,200 steps" in flags[0].text


def test_an_optimum_at_an_edge_and_an_arm_that_was_not_tuned_are_flagged(tuned: Result) -> None:
    texts = [flag.text for flag in budget_flags(tuned) if flag.kind == "warn"]
    assert len(texts) == 2
    assert texts[0].startswith(f"{SGD}: lr=")
    assert "near the high end of its range, 0.1" in texts[0]
    assert texts[1].startswith("adam(lr=0.001) was given, not tuned")
    table = settings_table(tuned)
    assert table is not None
    assert [row[5].text.split()[0] for row in table.rows] == ["inside", "⚠", "given,"]


def test_the_anytime_curve_is_the_running_best_over_trials(tuned: Result) -> None:
    runs = [run for run in tuned.tuning_runs if run.arm == "adamw"]
    steps, best = incumbents(runs, "val_accuracy", seeds=2, higher_is_better=True)
    trials = [t for t in tuned.trials if t.arm == "adamw" and t.role == "candidate"]
    running = -math.inf
    for place, trial in enumerate(trials):
        running = max(running, trial.score) if math.isfinite(trial.score) else running
        assert best[place] == pytest.approx(running)
    assert steps[-1] == sum(run.steps for run in runs)
    assert anytime_picture(tuned) is not None


def test_in_halving_a_longer_run_replaces_what_shorter_ones_reached() -> None:
    def run(trial: int, rung: int, value: float, steps: int) -> Any:
        return SimpleNamespace(trial=trial, rung=rung, steps=steps, seconds=1.0, status="done",
                               metrics={"val_loss": value})  # fmt: skip

    runs = [run(0, 0, 0.5, 10), run(1, 0, 0.4, 10), run(0, 1, 0.45, 20), run(1, 1, 0.3, 20)]
    steps, best = incumbents(runs, "val_loss", seeds=1, higher_is_better=False)
    assert steps.tolist() == [10, 20, 40, 60]
    assert best.tolist() == [0.5, 0.4, 0.45, 0.3]


# --- what tuning bought --------------------------------------------------------------------------


def test_gains_are_paired_with_intervals_that_hold_together(tuned: Result) -> None:
    rows = {row.arm: row for row in gains(tuned)}
    assert set(rows) == {"adamw", SGD}
    frame = tuned.to_dataframe()
    for label, row in rows.items():
        final = frame[(frame["stage"] == "final") & (frame["arm"] == label)]
        by_role = {
            role: of.sort_values("seed")["test_accuracy"].to_numpy()
            for role, of in final.groupby("role")
        }
        difference = by_role["candidate"] - by_role["defaults"]
        assert row.comparison.difference == pytest.approx(difference.mean())
        assert row.comparison.level == pytest.approx(0.975)
        expected = sign_flip_interval(difference, 0.975)
        assert (row.comparison.low, row.comparison.high) == pytest.approx(expected)
    picture = bought_picture(tuned)
    assert picture is not None
    assert picture.says == f"Tuning made adamw and {SGD} better than their defaults."


def test_without_defaults_nothing_is_said_about_them(tmp_path: Path) -> None:
    plain = tuned_ledger(tmp_path / "race", defaults=False, given=None)
    assert gains(plain) == []
    assert bought_picture(plain) is None
    assert 'id="bought"' not in render(plain)


# --- one seed ------------------------------------------------------------------------------------


def test_one_seed_claims_are_counted_over_the_final_runs(tuned: Result) -> None:
    claims = single_seed(tuned)
    assert claims is not None
    frame = tuned.to_dataframe()
    finals = frame[(frame["stage"] == "final") & (frame["role"] != "defaults")]
    winners = finals.loc[finals.groupby("seed")["test_accuracy"].idxmax(), "arm"]
    assert {a: n for a, n in claims.named.items() if n} == winners.value_counts().to_dict()
    assert single_seed_words(tuned).startswith("A comparison on any one of the 8 seeds")


# --- page, terminal, JSON ------------------------------------------------------------------------


def test_the_page_has_the_pictures_of_the_search_before_those_of_training(tuned: Result) -> None:
    page = render(tuned)
    places = [page.index(f'<section id="{key}"') for key in (
        "ranking", "pairs", "settings", "final", "bought", "sensitivity", "best-of-k", "anytime",
        "space", "protocol")]  # fmt: skip
    assert places == sorted(places)
    assert "Every trial of the tuning stage, best first (32 rows)" in page
    table = trials_table(tuned)
    assert table is not None
    assert sum(row[5].text == "✓ chosen" for row in table.rows) == 2
    space = space_picture(tuned)
    assert space is not None
    assert [panel.title for panel in space.panels] == ["adamw", SGD]


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_has_the_same_facts_within_its_width(tuned: Result, width: int) -> None:
    file = io.StringIO()
    print_result(tuned, Console(file=file, width=width))
    text = file.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    for words in ("was given the same", "The settings that went to the final stage", "Defaults and",
                  "What every arm was given and used", "A comparison on any one"):  # fmt: skip
        assert words in text


def test_no_number_is_torn_from_its_per_cent_sign(tuned: Result) -> None:
    file = io.StringIO()
    for width in range(60, 100):
        print_result(tuned, Console(file=file, width=width))
    assert not [line for line in file.getvalue().splitlines() if line.startswith(("%", "\xa0"))]


def test_json_carries_the_search_with_every_trial(tuned: Result) -> None:
    values = result_json(tuned)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    tuning = values["tuning"]
    assert tuning["equal"]
    assert len(tuning["trial_rows"]) == len(tuned.trials)
    assert tuning["learning_rates"][SGD]["exact"]
    assert [row["k"] for row in tuning["best_of_k"]["adamw"]] == list(range(1, 17))
    assert tuning["bought"][0]["comparison"]["difference"] == (
        gains(tuned)[0].comparison.difference
    )
    assert values["single_seed"]["named"]["adamw"] == 8.0


def test_a_race_in_its_tuning_stage_can_be_looked_at(tmp_path: Path) -> None:
    young = tuned_ledger(tmp_path / "race", stage="tuning")
    page = render(young)
    assert "not chosen yet" in page
    assert 'id="sensitivity"' in page
    file = io.StringIO()
    print_result(young, Console(file=file, width=100))
    values = result_json(young)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
