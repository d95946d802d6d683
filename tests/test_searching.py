"""The verb search in Python, on real training."""

import sqlite3

import pytest
import torch

import steepest
from steepest.errors import InputError
from steepest.tune import rungs, total_steps


def make_task(val: bool = True) -> steepest.Task:
    """A line through noisy points: SGD needs a rate between what does nothing and divergence."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(240, 4, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.3 * torch.randn(
        240, 1, generator=generator
    )
    return steepest.Task(
        name="line",
        model=lambda: torch.nn.Linear(4, 1),
        loss=torch.nn.functional.mse_loss,
        train=(x[:160], y[:160]),
        val=(x[160:200], y[160:200]) if val else None,
        test=(x[200:], y[200:]),
        batch_size=16,
    )


ARM = "sgd(lr=1e-4..10.0, momentum={0.0, 0.9})"


@pytest.mark.parametrize("method", ["sobol", "random", "grid", "optuna:tpe"])
def test_a_search_finds_the_rate_that_matters_and_runs_it_on_fresh_seeds(method, tmp_path):
    found = steepest.search(
        make_task(),
        ARM,
        method=method,
        trials=16,
        seeds=3,
        steps=30,
        engine="solo",
        out=tmp_path / "s",
    )
    assert len(found.trials) == 16
    assert 1e-3 < found.best["lr"] < 1
    assert found.search.focus == "lr"
    assert [row.name for row in found.search.importances.clear][:1] == ["lr"]
    assert {c.method for c in found.search.coverage} == {"sobol", "random", "grid", method}
    best = min(s for s in found.search.scores if s == s)
    chosen = found.chosen(found.arms[0].label)
    assert chosen.score == pytest.approx(best)
    assert {run.seed for run in found.final_runs}.isdisjoint(r.seed for r in found.tuning_runs)
    ranking = found.ranking[0]
    assert (ranking.n, ranking.low < ranking.mean < ranking.high) == (3, True)
    again = steepest.race(
        make_task(), [found.best_text], seeds=3, steps=30, engine="solo", timing=0,
        out=tmp_path / "again",
    )  # fmt: skip
    assert [r.metrics for r in again.final_runs] == [r.metrics for r in found.final_runs]


def test_halving_spends_what_its_plan_says(tmp_path):
    found = steepest.search(
        make_task(), ARM, method="halving", trials=9, seeds=2, steps=90, engine="solo",
        out=tmp_path / "s",
    )  # fmt: skip
    plan = rungs(9, 90)
    assert sum(run.planned_steps for run in found.tuning_runs) == total_steps(plan)
    assert len(found.search.trials) == 9  # compared after the first rung, which all of them had
    with sqlite3.connect(tmp_path / "s" / "ledger.sqlite") as ledger:
        read = ledger.execute(
            "SELECT COUNT(*) FROM evaluations JOIN runs USING (run_id) "
            "WHERE stage = 'tuning' AND split = 'test'"
        ).fetchone()
    assert read == (0,)


def test_the_same_search_again_trains_nothing(tmp_path):
    settings = {"trials": 4, "seeds": 2, "steps": 8, "engine": "solo", "out": tmp_path / "s"}
    first = steepest.search(make_task(), ARM, **settings)
    again = steepest.search(make_task(), ARM, **settings)
    assert again.best == first.best
    assert len(again.runs) == len(first.runs)
    assert first.report().stat().st_size > 100_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arm": "sgd()"}, r"nothing to search: 'sgd\(\)' is one setting; write a bare name"),
        ({"arm": ["sgd", "adam"]}, "a search is about one arm, got 2"),
        ({"arm": "sgd(lr=1..0.1)"}, "the range 1.0..0.1 is empty"),
        ({"arm": "sgd(lr={0.1, 0.2})", "trials": 3}, "only 2 different settings"),
        ({"arm": "torch.optim:SGD"}, "only rules have one"),
        ({"method": "gird"}, "did you mean 'grid'"),
        ({"method": "optuna:tpee"}, "did you mean 'optuna:tpe'"),
        ({"method": "halving", "trials": 2}, "halving needs at least 3 trials"),
        ({"method": "halving", "steps": 20}, "halving needs runs of at least 30 steps"),
        ({"budget": "quik"}, "did you mean 'quick'"),
        ({"trials": 0}, "number of trials must be a whole number"),
        ({"val": False}, "chosen on validation data"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(
    arguments, message, tmp_path
):
    task = make_task(val=arguments.pop("val", True))
    settings = {"arm": ARM, "trials": 4, "seeds": 2, "steps": 40, **arguments}
    with pytest.raises(InputError, match=message):
        steepest.search(task, settings.pop("arm"), out=tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()


def test_a_widened_search_is_looked_at_over_its_widest_space(tmp_path):
    found = steepest.search(
        make_task(), "sgd(lr=1e-5..1e-3)", trials=8, seeds=2, steps=30, widen=1, engine="solo",
        out=tmp_path / "s",
    )  # fmt: skip
    assert found.tuning.rounds == 2
    assert len(found.search.trials) == 16
    lr = found.search.space.dimensions["lr"]
    assert (lr.low, lr.high) == (1e-5, pytest.approx(1e-2, rel=0.01))  # by half of two decades
    assert found.best["lr"] > 1e-3
    assert found.search.coverage[0].points.shape == (16, 1)
    assert found.search.importances.clear
