"""Snapshot ensembles and independent ones, against what is put together by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from steepest import ensemble, schedules
from steepest.errors import InputError, TaskError, UnsupportedError
from steepest.racing.observer import StoppedError
from steepest.racing.result import Result
from steepest.studies import training
from steepest.studies.independent import seeds_of_runs
from steepest.studies.snapshots import cycle_ends, cyclic_schedule
from steepest.train import checkpoint
from steepest.train.solo import SoloRun
from steepest.train.task import build_model

ARM = "torch.optim:SGD(lr=0.5)"


def _mean_accuracy(task, models):
    x, y = task.test
    with torch.no_grad():
        p = np.mean([m.eval()(x).double().softmax(1).numpy() for m in models], axis=0)
    return (p.argmax(1) == y.numpy()).mean()


@pytest.mark.parametrize(("cycles", "steps"), [(2, 10), (3, 10), (5, 1562), (7, 100), (4, 8)])
def test_cycles_end_where_the_formula_of_restarts_says(cycles, steps):
    schedule = cyclic_schedule(None, cycles=cycles, steps=steps)
    expected = [math.ceil(i * steps / cycles - 1e-9) for i in range(1, cycles + 1)]
    assert cycle_ends(schedule, steps) == expected


def test_growing_cycles_and_a_warmup_are_found():
    assert cycle_ends(schedules.cosine_restarts(period=2, mult=2), 14) == [2, 6, 14]
    assert cycle_ends(schedules.cosine_restarts(period=5, warmup=4), 14) == [9, 14]
    assert cycle_ends(schedules.cosine_restarts(period=0.5, warmup=0.25), 16) == [10, 16]


@pytest.mark.parametrize("together", [True, False])
def test_a_snapshot_ensemble_is_the_mean_of_what_the_run_was_at_the_ends_of_cycles(
    task, tmp_path, monkeypatch, together
):
    monkeypatch.setattr(
        training, "how_to_train", lambda *a, **k: (4 if together else 1, together, "as the test")
    )
    study = ensemble(task, ARM, snapshots=3, last=2, seeds=2, steps=20, out=tmp_path)
    for seed in (0, 1):
        make = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.5), "seed": seed, "steps": 20}
        run = SoloRun(task, schedule=schedules.cosine_restarts(period=1 / 3), **make)
        models = []
        for end in (7, 14, 20):
            run.advance(end - run.position)
            model = build_model(task, seed)
            model.load_state_dict(run.model.state_dict())
            models.append(model)
        value = {key: study.values(key)[seed] for key in ("ensemble", "last", "cosine")}
        assert value["ensemble"] == pytest.approx(_mean_accuracy(task, models[1:]), abs=0.0101)
        assert value["last"] == pytest.approx(run.evaluate("test")["accuracy"], abs=0.0101)
        plain = SoloRun(task, schedule=schedules.cosine(), **make)
        plain.advance(20)
        assert value["cosine"] == pytest.approx(plain.evaluate("test")["accuracy"], abs=0.0101)
        row = study.rows[seed]
        assert row["sizes"][0] == value["last"]
        assert row["sizes"][1] == value["ensemble"]
        assert row["best"] == int(np.argmax(row["single"]["val_accuracy"]))
        assert row["how"] == "vmap"
        count = sum(row["reliability"]["ensemble"]["count"])
        assert count == 110


def test_a_stopped_snapshot_study_goes_on_to_the_same_rows(task, tmp_path, stop_after):
    settings = {"snapshots": 2, "seeds": 2, "steps": 20}
    whole = ensemble(task, ARM, out=tmp_path / "whole", **settings)
    with pytest.raises(StoppedError):
        ensemble(task, ARM, out=tmp_path / "cut", watcher=stop_after(40), **settings)
    cut = ensemble(task, ARM, out=tmp_path / "cut", **settings)
    numbers = ("values", "single", "sizes", "best")
    for a, b in zip(cut.rows, whole.rows, strict=True):
        assert json.dumps([a[n] for n in numbers]) == json.dumps([b[n] for n in numbers])


def test_independent_ensembles_are_made_of_a_races_runs_none_of_them_twice(task, tmp_path):
    study = ensemble(task, ARM, members=3, seeds=2, steps=15, out=tmp_path)
    result = Result(tmp_path / "race")
    assert [row["runs"] for row in study.rows] == [[0, 1, 2], [3, 4, 5]]
    for row in study.rows:
        single = [r.metrics["test_accuracy"] for r in result.runs if r.seed in row["runs"]]
        assert row["single"]["test_accuracy"] == pytest.approx(single, abs=1e-9)
        models = []
        for seed in row["runs"]:
            run = next(r for r in result.runs if r.seed == seed)
            saved = checkpoint.load(tmp_path / "race" / "weights" / f"{run.run_id}.safetensors")
            model = build_model(task, seed)
            model.load_state_dict(saved.tensors)
            models.append(model)
        values = {key: of["test_accuracy"] for key, of in row["values"].items()}
        assert values["ensemble"] == pytest.approx(_mean_accuracy(task, models), abs=1e-9)
        assert values["mean"] == pytest.approx(np.mean(single))
        assert values["hindsight"] == max(single)
        assert values["best"] == single[int(np.argmax(row["single"]["val_accuracy"]))]
    page = study.report().read_text()
    assert "Does it know when it is wrong?" in page
    assert "wrong answers" in page


def test_fresh_races_again_and_keeps_nothing_of_what_was_there(task, tmp_path):
    settings = {"members": 2, "seeds": 1, "out": tmp_path}
    first = ensemble(task, ARM, steps=5, **settings)
    again = ensemble(task, ARM, steps=6, fresh=True, **settings)
    assert again.spec["steps"] == 6
    assert first.rows != again.rows
    other = ensemble(task, ARM, steps=8, snapshots=2, seeds=1, out=tmp_path, fresh=True)
    assert other.kind == "snapshots"
    assert not (tmp_path / "race").exists()


def test_members_with_batch_norm_have_it_measured_again_and_the_page_says_so(make_task, tmp_path):
    task = make_task(
        model=lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    )
    study = ensemble(task, ARM, members=2, seeds=1, epochs=3, out=tmp_path)
    race = [r.metrics["test_accuracy"] for r in Result(tmp_path / "race").runs]
    assert study.rows[0]["single"]["test_accuracy"] == pytest.approx(race, abs=0.05)
    assert any("measured again" in event["text"] for event in study.events)


def test_an_ensemble_that_lost_a_member_counts_as_the_worst(task, tmp_path):
    study = ensemble(task, "torch.optim:SGD(lr=1e30)", members=2, seeds=1, steps=5, out=tmp_path)
    assert study.rows[0]["status"] == "diverged"
    assert study.rows[0]["lost"] == ["0 (diverged)", "1 (diverged)"]
    assert math.isnan(study.values("ensemble")[0])


def test_no_run_is_in_two_ensembles():
    seeds = [seed for of in seeds_of_runs(4, 5) for seed in of]
    assert sorted(seeds) == list(range(20))


class Remembers(nn.Module):
    """Keeps a running mean of its own, which a race does not keep."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.seen = self.seen * 0.9 + x.detach().mean(0) * 0.1
        return self.head(x - self.seen)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give one of the two"),
        ({"members": 3, "snapshots": 3}, "give one of the two"),
        ({"members": 1}, "at least 2 members, got 1"),
        ({"snapshots": 1}, "at least 2 snapshots, got 1"),
        ({"snapshots": 11}, "11 cycles do not fit into a run of 20 steps"),
        ({"snapshots": 4, "last": 5}, "between 2 and 4"),
        ({"snapshots": 4, "last": 1}, "between 2 and 4"),
        ({"members": 4, "last": 2}, "chooses among snapshots"),
        ({"snapshots": 3, "arm": f"{ARM} + cosine()"}, "cosine.. does not restart"),
        ({"snapshots": 3, "arm": f"{ARM} + cosine_restarts(period=0.5)"}, "has 2 cycles"),
        (
            {"snapshots": 3, "arm": f"{ARM} + cosine_restarts(period=50)"},
            "longer than what the run",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(task, tmp_path, settings, words):
    arm = settings.pop("arm", ARM)
    with pytest.raises(InputError, match=words):
        ensemble(task, arm, **{"seeds": 2, "steps": 20, "out": tmp_path / "s", **settings})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", [{"members": 2}, {"snapshots": 2}])
def test_models_that_give_no_scores_of_classes_are_refused(make_task, tmp_path, kind):
    x = torch.randn(64, 6)
    task = make_task(
        model=lambda: nn.Linear(6, 1),
        loss=mse_loss,
        train=(x, x[:, :1]),
        val=(x, x[:, :1]),
        test=(x, x[:, :1]),
        metrics={},
    )
    with pytest.raises(TaskError, match="scores of at least two classes"):
        ensemble(task, ARM, seeds=1, steps=5, out=tmp_path / "s", **kind)
    assert not (tmp_path / "s").exists()


def test_members_whose_buffers_a_race_does_not_keep_are_refused(make_task, tmp_path):
    with pytest.raises(UnsupportedError, match="changes its buffer 'seen'"):
        ensemble(make_task(model=Remembers), ARM, members=2, seeds=1, steps=5, out=tmp_path)
    study = ensemble(
        make_task(model=Remembers), ARM, snapshots=2, seeds=1, steps=10, out=tmp_path / "s"
    )
    assert study.complete
