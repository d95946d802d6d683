"""The tuning stage: equal budgets, no look at the test data, what is chosen and what is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from steepest.errors import InputError
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Silent
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.selection import EQUAL_BUDGET, budgets
from steepest.racing.spec import Plan
from steepest.train.solo import SoloRun
from steepest.train.task import Task

SGD = "sgd(lr=1e-3..1)"
ADAM = "torch.optim:Adam(lr=1e-4..1e-1)"
GIVEN = "torch.optim:SGD(lr=0.1)"
QUICK: dict[str, Any] = {"trials": 4, "seeds": 2, "epochs": 1}
Race = Callable[..., Result]


def rows(folder: Path, query: str, *arguments: Any) -> list[dict[str, Any]]:
    with Ledger.read(folder) as ledger:
        return ledger.rows(query, *arguments)


class Watching(Silent):
    """Reads the ledger whenever something happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.looked = 0
        self.totals: list[int] = []
        self.plans = 0

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        self.totals.append(sum(run.steps for run in plan.runs) + plan.later)

    def added(self, plan: Plan) -> None:
        self.plans += 1
        self.totals.append(sum(run.steps for run in plan.runs) + plan.later)
        self.look()

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        self.look()

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        self.look()
        stage = rows(self.folder, "SELECT stage FROM runs WHERE run_id = ?", run_id)[0]["stage"]
        assert any(key.startswith("test") for key in metrics) == (stage == "final")

    def look(self) -> None:
        """No number of the test data, and no run that may read it, before all is chosen."""
        self.looked += 1
        chosen = rows(self.folder, "SELECT COUNT(*) AS n FROM selections")[0]["n"]
        read = rows(self.folder, "SELECT COUNT(*) AS n FROM evaluations WHERE split = 'test'")
        final = rows(self.folder, "SELECT COUNT(*) AS n FROM runs WHERE stage = 'final'")
        assert chosen or not (read[0]["n"] or final[0]["n"])
        wrong = rows(
            self.folder,
            "SELECT COUNT(*) AS n FROM evaluations JOIN runs USING (run_id) "
            "WHERE split = 'test' AND stage = 'tuning'",
        )
        assert wrong[0]["n"] == 0


METHODS: list[dict[str, Any]] = [
    {"method": "sobol"},
    {"method": "random", "tuning_seeds": 2},
    {"method": "grid"},
    {"method": "halving", "trials": 7, "steps": 30, "epochs": None},
    {"method": "optuna:tpe", "trials": 6},
    {"method": "sobol", "widen": 1},
]


@pytest.mark.parametrize("options", METHODS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_tuned_arm_gets_the_same_trials_and_steps_and_no_test_number_is_read_before(
    tmp_path: Path, race: Race, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []
    evaluate = SoloRun.evaluate

    def spy(self: SoloRun, split: Any, **options: Any) -> dict[str, float]:
        asked.append((self.seed, split))
        return evaluate(self, split, **options)

    monkeypatch.setattr(SoloRun, "evaluate", spy)
    settings = {**QUICK, **options}
    narrow = "torch.optim:Adam(lr=1e-5..3e-5)"  # so that widening has a reason
    watching = Watching(tmp_path)
    result = race(tmp_path, ["adamw", SGD, narrow, GIVEN], observer=watching, **settings)
    tuning = result.tuning
    assert tuning is not None
    rounds = 2 if "widen" in options else 1
    assert tuning.rounds == rounds
    assert set(tuning.trials_per_arm) == {"adamw", "sgd(lr=0.001..1.0)", result.arms[2].label}
    assert set(tuning.trials_per_arm.values()) == {rounds * settings["trials"]}
    assert len(set(tuning.steps_per_arm.values())) == 1
    assert tuning.equal
    # counted anew, from the runs
    spent: dict[str, int] = {}
    for run in result.tuning_runs:
        assert run.steps == run.planned_steps
        spent[run.arm] = spent.get(run.arm, 0) + run.steps
    assert spent == tuning.steps_per_arm
    assert watching.looked > 50
    seeds = set(tuning.seeds)
    assert not seeds & set(result.seeds)
    assert {split for seed, split in asked if seed in seeds} == {"val"}
    assert {seed for seed, split in asked if split == "test"} == set(result.seeds)
    if rounds == 1:  # what is ahead was known from the start
        assert set(watching.totals) == {sum(run.planned_steps for run in result.runs)}
    assert result.complete
    assert len(result.to_dataframe()) == len(result.runs)


def test_the_query_for_equal_budgets_is_the_documented_one_and_sees_an_unequal_budget(
    tmp_path: Path, race: Race
) -> None:
    race(tmp_path, [SGD, ADAM], **QUICK)
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    assert EQUAL_BUDGET.strip() in page
    with Ledger.write(tmp_path) as ledger:
        assert len(set(budgets(ledger).values())) == 1
        with ledger.transaction():  # an arm that gets more steps than another
            ledger._connection.execute(
                "UPDATE runs SET steps = steps + 1 WHERE run_id = 'a1-t0-s1000000000'"
            )
        assert len(set(budgets(ledger).values())) == 2
    tuning = Result(tmp_path).tuning
    assert tuning is not None
    assert not tuning.equal
    with Ledger.write(tmp_path) as ledger:
        with ledger.transaction():
            ledger._connection.execute(
                "UPDATE runs SET steps = steps - 1 WHERE run_id = 'a1-t0-s1000000000'"
            )
            ledger._connection.execute("PRAGMA defer_foreign_keys = ON")
            ledger._connection.execute(
                "UPDATE runs SET trial_id = (SELECT MAX(trial_id) FROM trials WHERE arm_id = 0), "
                "seed = 5 WHERE run_id = 'a1-t0-s1000000000'"
            )
        assert len(set(budgets(ledger).values())) == 2


def test_everything_is_in_the_ledger_before_anything_runs(task: Task, tmp_path: Path) -> None:
    from steepest.racing.folder import open_race

    settled = plan(task, ["adamw", GIVEN], budget="quick", steps=10, defaults=True)
    with open_race(tmp_path, settled) as ledger:
        roles = [trial.role for trial in ledger.trials()]
        assert roles == ["candidate"] * 8 + ["defaults", "fixed"]
        assert {(r["stage"], r["status"]) for r in ledger.runs()} == {("tuning", "pending")}
        spec = ledger.meta()["spec"]["tuning"]
        assert (spec["method"], spec["trials"], spec["budget"]) == ("sobol", 8, "quick")
        space = ledger.meta()["spaces"]["adamw"][0]
        assert {d["name"] for d in space["dimensions"]} == {"lr", "beta1", "weight_decay"}
    # 8 trials and 6 seeds of the quick budget; adamw, its defaults and the given arm in the end
    assert settled.later == 3 * 6 * 10
    assert [arm.label for arm in settled.spec.arms] == ["adamw", GIVEN]
    assert settled.spec.arms[0].schedule is not None
    assert any("given, not tuned" in note for note in settled.notes)


def test_the_chosen_setting_is_the_best_by_validation_over_the_tuning_seeds(
    tmp_path: Path, race: Race
) -> None:
    result = race(tmp_path, [SGD, ADAM], **{**QUICK, "tuning_seeds": 2})
    for arm in result.arms:
        of: dict[int, list[tuple[float, float]]] = {}
        for run in result.tuning_runs:
            if run.arm == arm.label:
                numbers = run.metrics["val_accuracy"], -run.metrics["val_loss"]
                of.setdefault(run.trial, []).append(numbers)
        assert all(len(numbers) == 2 for numbers in of.values())
        means = {k: tuple(map(fmean, zip(*numbers, strict=True))) for k, numbers in of.items()}
        chosen = result.chosen(arm.label)
        assert chosen is not None
        assert chosen.trial_id == max(means, key=lambda k: means[k])  # the loss decides a tie
        assert chosen.score == means[chosen.trial_id][0]
        assert arm.setting == chosen.values
        runs = [run for run in result.final_runs if run.arm == arm.label]
        assert {run.trial for run in runs} == {chosen.trial_id}
        assert [run.seed for run in runs] == [0, 1]
    # final numbers come from fresh runs: other starts, other batches
    tuning = {run.start_hash for run in result.tuning_runs}
    assert not tuning & {run.start_hash for run in result.final_runs}
    assert f"was tuned to lr={result.arms[0].setting['lr']:g}" in result.verdict.text
    table = result.to_dataframe()
    row = table[table.run_id == "a1-t2-s1000000001"].iloc[0]
    trial = next(t for t in result.trials if (t.arm, t.number) == (result.arms[1].label, 2))
    assert (row.lr, row.stage, row.role, row.trial) == (
        trial.values["lr"],
        "tuning",
        "candidate",
        2,
    )


def test_halving_promotes_the_better_ones_with_the_schedule_compressed_to_each_rung(
    tmp_path: Path, race: Race
) -> None:
    arms = [SGD + " + linear()", ADAM]
    settings = {"method": "halving", "trials": 9, "steps": 90, "tuning_seeds": 2, "seeds": 2}
    result = race(tmp_path, arms, epochs=None, **settings)
    tuning = result.tuning
    assert tuning is not None
    assert tuning.rungs == (10, 30, 90)
    for arm in result.arms:
        alive = set(range(9))
        for rung, (steps, keep) in enumerate(zip(tuning.rungs, (3, 1, None), strict=True)):
            runs = [r for r in result.tuning_runs if (r.arm, r.rung) == (arm.label, rung)]
            numbers = {t.trial_id: t.number for t in result.trials}
            assert {numbers[r.trial] for r in runs} == alive
            assert {r.steps for r in runs} == {steps}
            means = {
                n: tuple(
                    fmean(r.metrics[key] for r in runs if numbers[r.trial] == n)
                    for key in ("val_accuracy", "val_loss")
                )
                for n in alive
            }
            if keep:
                alive = set(sorted(alive, key=lambda n: (-means[n][0], means[n][1]))[:keep])
        chosen = result.chosen(arm.label)
        assert chosen is not None
        assert {chosen.number} == alive
        assert chosen.rung == 2
    rates = result.tuning_curves("lr", arm=result.arms[0].label)
    for run in result.tuning_runs:
        if run.arm == result.arms[0].label:
            _, of_run = rates[run.run_id]
            assert of_run[-1] == pytest.approx(of_run[0] / run.planned_steps)  # to the end, always


def test_a_space_that_is_bad_for_one_arm_flips_the_ranking_and_the_verdict_warns(
    tmp_path: Path, race: Race
) -> None:
    settings = {"trials": 8, "seeds": 6, "epochs": 4}
    rival = "torch.optim:Adam(lr=1e-3..1e-2)"
    good = race(tmp_path / "good", {"sgd": "sgd(lr=1e-2..100)", "adam": rival}, **settings)
    bad = race(tmp_path / "bad", {"sgd": "sgd(lr=1e-4..1e-3)", "adam": rival}, **settings)
    assert good.ranking[0].label == "sgd"
    assert bad.ranking[0].label == "adam"
    assert bad.verdict.pair("sgd", "adam").decision == "worse"
    chosen = bad.chosen("sgd")
    assert chosen is not None
    assert len(chosen.edges) == 1
    assert chosen.edges[0].endswith("is the highest that was tried, in a range up to 0.001")
    warning = next(s for s in bad.verdict.tuning_sentences if s.startswith("Warning: sgd"))
    assert "may be better than it looks here: its lr=" in warning
    assert not any(s.startswith("Warning: sgd") for s in good.verdict.tuning_sentences)


def test_widening_moves_flagged_ends_only_and_gives_every_arm_another_round(
    tmp_path: Path, race: Race
) -> None:
    arms = {"sgd": "sgd(lr=1e-3..1e-2)", "adam": "torch.optim:Adam(lr=1e-3..1)"}
    result = race(tmp_path, arms, **{**QUICK, "widen": 2, "epochs": 4})
    tuning = result.tuning
    assert tuning is not None
    assert tuning.rounds == 3
    assert tuning.trials_per_arm == {"sgd": 12, "adam": 12}
    assert tuning.equal
    spaces = result.protocol()["spaces"]
    highs = [space["dimensions"][0]["high"] for space in spaces["sgd"]]
    # half of the range's width in its own scale, which is half a decade at first
    assert highs[1] == pytest.approx(1e-2 * 10**0.5, rel=1e-3)
    assert all(a < b for a, b in pairwise(highs))
    assert {space["dimensions"][0]["low"] for space in spaces["sgd"]} == {1e-3}
    first = [t.values for t in result.trials if (t.arm, t.round) == ("adam", 0)]
    again = [t.values for t in result.trials if (t.arm, t.round) == ("adam", 1)]
    assert len(first) == len(again) == 4
    assert not any(values in first for values in again)
    chosen = result.chosen("sgd")
    assert chosen is not None
    assert chosen.round > 0
    assert any(event["kind"] == "widened" for event in result.events)


def test_defaults_run_beside_their_arms_and_outside_of_the_verdict(
    tmp_path: Path, race: Race
) -> None:
    arms = ["adamw", "sgd(lr=1e-2..1, momentum=0.9) + linear()"]
    result = race(tmp_path, arms, **QUICK, defaults=True)
    assert len(result.verdict.pairs) == 1
    assert [r.run_id for r in result.defaults_runs] == ["a0-d-s0", "a1-d-s0", "a0-d-s1", "a1-d-s1"]
    ids = {run.run_id for run in result.final_runs}
    assert ids == {"a0-s0", "a1-s0", "a0-s1", "a1-s1"}
    by_role = {(t.arm, t.role): t.values for t in result.trials}
    assert by_role["adamw", "defaults"] == {}
    assert by_role[result.arms[1].label, "defaults"] == {"momentum": 0.9}
    with Ledger.read(tmp_path) as ledger:
        adamw, sgd = ledger.curve("a0-d-s0", "lr"), ledger.curve("a1-d-s0", "lr")
    assert adamw.tolist() == pytest.approx([1e-3] * 10)  # torch's, without the preset's schedule
    assert sgd[0] == pytest.approx(1e-3)
    assert sgd[-1] < sgd[0]  # the schedule that was written stays


def test_trials_that_diverge_or_fail_are_worse_than_any_other_and_are_counted(
    tmp_path: Path, race: Race
) -> None:
    class Fragile(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if 0.2 < self.param_groups[0]["lr"] < 2:
                raise RuntimeError("a wire fell off")
            return super().step(closure)

    import functools

    from steepest.tune import Choice

    rates = Choice((1e-6, 1.0, 1e20, 1e-5))
    arms = {
        "fragile": functools.partial(Fragile, lr=rates),
        "sgd": "sgd(lr={1e20, 1e21, 1e22, 1e23})",
    }
    result = race(tmp_path, arms, **{**QUICK, "method": "grid", "tuning_seeds": 2})
    chosen = result.chosen("fragile")
    assert chosen is not None
    assert chosen.values["lr"] in (1e-6, 1e-5)
    by_rate = {t.values["lr"]: t for t in result.trials if t.arm == "fragile"}
    assert (by_rate[1.0].failed, by_rate[1e20].diverged) == (2, 2)
    assert math.isnan(by_rate[1.0].score)
    assert math.isnan(by_rate[1e20].score)
    assert "1 of 4 trials of fragile diverged." in result.verdict.tuning_sentences
    assert "1 of 4 trials of fragile failed." in result.verdict.tuning_sentences
    assert "Every trial of sgd diverged." in result.verdict.tuning_sentences
    assert "sgd diverged on every seed" in result.verdict.text
    with Ledger.read(tmp_path) as ledger:
        assert ledger.selections()[1].score is None


def test_a_race_of_given_arms_knows_nothing_of_tuning(tmp_path: Path, race: Race) -> None:
    result = race(tmp_path)
    assert "tuning" not in result.spec
    assert (result.tuning, result.tuned, result.tuning_runs) == (None, [], [])
    assert result.verdict.tuning_sentences == ()
    assert [t.role for t in result.trials] == ["fixed", "fixed"]
    assert {run.run_id for run in result.final_runs} == {"a0-s0", "a1-s0", "a0-s1", "a1-s1"}


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (["adam(lr=0.5)"], {"trials": 3}, "every arm was given its setting"),
    (["adam(lr=0.5)"], {"widen": 1}, "widen=1: this is about tuning"),
    (["adam(lr=0.5)"], {"defaults": True}, "defaults=True: this is about tuning"),
    (["adam"], {"trials": 0}, "trials must be a whole number >= 1"),
    (["adam"], {"tuning_seeds": 0}, "tuning seeds must be a whole number >= 1"),
    (["adam"], {"budget": "huge"}, "unknown budget 'huge'"),
    (["adam"], {"method": "sobel"}, "did you mean 'sobol'"),
    (["adam"], {"method": "optuna:tpf"}, "did you mean 'optuna:tpe'"),
    (["adam"], {"widen": -1}, "widen must be a whole number >= 0"),
    (["adam"], {"method": "halving", "trials": 2, "steps": 90}, "halving needs at least 3 trials"),
    (["adam"], {"method": "halving", "steps": 5}, "halving needs runs of at least 30 steps"),
    (["sgd(nesterov={true, false}, momentum=0.9, lr=0.1)"], {"trials": 3}, "only 2 different"),
    (["adam"], {"seeds": [0, 1_000_000_000]}, "1000000000 is for tuning"),
    (["adam", "adam"], {}, "two arms are called 'adam'"),
    (["my.nowhere:Class"], {}, "only rules have one"),
]  # fmt: skip


@pytest.mark.parametrize(("arms", "options", "message"), BAD)
def test_what_cannot_be_tuned_is_refused_before_anything_is_written(
    tmp_path: Path, task: Task, arms: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan(task, arms, **options)


def test_tuning_needs_validation_data(make_task: Callable[..., Task]) -> None:
    with pytest.raises(InputError, match="the task has none; give it val data, or fix the setting"):
        plan(make_task(val=None), ["adam"])
    with pytest.raises(InputError, match="all of it is trained on"):
        plan(make_task(val=None), ["adam"], train_on="all")
    notes = plan(make_task(test=None), ["adam"]).notes
    assert any("chosen on the same data" in note for note in notes)
