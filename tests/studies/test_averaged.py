"""Averaged weights against raw ones, over seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from steepest import average, race
from steepest.errors import InputError, LedgerError
from steepest.racing.observer import StoppedError
from steepest.studies import averaged, training
from steepest.studying import StudyResult
from steepest.train.batchnorm import recompute_batch_norm
from steepest.train.data import open_stream
from steepest.train.solo import SoloRun
from steepest.train.task import build_model

ARM = "torch.optim:SGD(lr=0.1)"


def _path(task, seed, steps):
    """The weights after every step, and the model at the end, by the plain loop."""
    run = SoloRun(
        task, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), schedule=None, seed=seed, steps=steps
    )
    path = []
    for _ in range(steps):
        run.advance(1)
        path.append({n: p.double().numpy().copy() for n, p in run.weights().items()})
    return path, run


def _accuracy(model, task):
    x, y = task.test
    with torch.no_grad():
        return (model.eval()(x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("together", [True, False])
def test_every_average_is_the_formulas_mean_of_the_plain_loops_weights(
    task, tmp_path, monkeypatch, together
):
    monkeypatch.setattr(
        training, "how_to_train", lambda *a, **k: (2 if together else 1, together, "as the test")
    )
    study = average(task, ARM, decay=0.9, start=0.5, every=3, seeds=2, steps=24, out=tmp_path / "s")
    assert [v.key for v in study.variants] == ["raw", "ema", "swa", "polyak"]
    for seed in (0, 1):
        path, run = _path(task, seed, 24)
        ema = [0.1 * 0.9 ** (24 - i) / (1 - 0.9**24) for i in range(1, 25)]
        weights = {
            "raw": [0.0] * 23 + [1.0],
            "ema": ema,
            "polyak": [0.0] * 12 + [1 / 12] * 12,
            "swa": [0.25 if i in (15, 18, 21, 24) else 0.0 for i in range(1, 25)],
        }
        for key, of in weights.items():
            model = build_model(task, seed)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    terms = np.array([step[name] for step in path])
                    p.copy_(torch.tensor(np.tensordot(of, terms, 1)))
            # an example on the border between two classes may fall to either side
            assert study.values(key)[seed] == pytest.approx(_accuracy(model, task), abs=0.0101)
        assert study.values("raw")[seed] == run.evaluate("test")["accuracy"]


def test_batch_norm_is_measured_again_for_an_average(make_task, tmp_path):
    task = make_task(
        model=lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    )
    study = average(task, ARM, method="polyak", seeds=1, steps=20, out=tmp_path / "s")
    path, run = _path(task, 0, 20)
    model = run.model
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.tensor(np.mean([s[name] for s in path[10:]], 0)))
    stream = open_stream(
        task.train, seed=0, batch_size=16, default=16, device=torch.device("cpu"), where="train"
    )
    recompute_batch_norm(model, [stream.batch(k)[0] for k in range(10)])
    assert study.values("polyak")[0] == pytest.approx(_accuracy(model, task), abs=0.0101)


@pytest.mark.parametrize("together", [True, False])
def test_a_study_that_was_stopped_goes_on_to_the_same_rows(
    task, tmp_path, monkeypatch, stop_after, together
):
    monkeypatch.setattr(
        training, "how_to_train", lambda *a, **k: (2 if together else 1, together, "as the test")
    )
    settings = {"seeds": 3, "steps": 25, "decay": 0.9}
    whole = average(task, ARM, out=tmp_path / "whole", **settings)
    for steps in (1, 30, 60):
        with pytest.raises(StoppedError, match="same command again"):
            average(task, ARM, out=tmp_path / "cut", watcher=stop_after(steps), **settings)
    cut = average(task, ARM, out=tmp_path / "cut", **settings)
    assert json.dumps(cut.rows) == json.dumps(whole.rows)
    assert cut.complete
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()
    again = average(task, ARM, out=tmp_path / "cut", **settings)  # nothing left to do
    assert json.dumps(again.rows) == json.dumps(whole.rows)


def test_another_study_in_the_folder_is_refused_unless_fresh(task, tmp_path):
    average(task, ARM, method="swa", seeds=1, steps=5, out=tmp_path)
    with pytest.raises(LedgerError, match="steps is 5 there and 6 here"):
        average(task, ARM, method="swa", seeds=1, steps=6, out=tmp_path)
    assert average(task, ARM, method="swa", seeds=1, steps=6, out=tmp_path, fresh=True).complete


def test_a_half_written_line_is_forgotten_and_its_seed_done_again(task, tmp_path):
    settings = {"method": "ema", "seeds": 2, "steps": 5, "out": tmp_path}
    rows = average(task, ARM, **settings).rows
    file = tmp_path / "study.jsonl"
    text = file.read_bytes()
    file.write_bytes(text[:-30])
    assert average(task, ARM, **settings).rows == rows


def test_seeds_that_diverge_count_as_the_worst(task, tmp_path):
    study = average(task, "torch.optim:SGD(lr=1e30)", method="ema", seeds=2, steps=5, out=tmp_path)
    assert [row["status"] for row in study.rows] == ["diverged", "diverged"]
    assert np.isnan(study.values("raw")).all()
    page = study.report().read_text()
    assert "2 seeds diverged and count as the worst result" in page


def test_the_page_says_what_the_numbers_say(task, tmp_path):
    study = average(task, ARM, method=["ema", "polyak"], seeds=3, steps=30, out=tmp_path)
    page = study.report().read_text()
    assert study.headline() in page
    assert "3 seeds are too few to decide." in page
    assert "Validation accuracy on the way" in page
    assert '<script type="application/json" class="spec">' in page


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "emma"}, "did you mean 'ema'"),
        ({"method": []}, "at least one averaging method"),
        ({"decay": 1.0}, "decay must be at least 0 and less than 1"),
        ({"start": 1.0}, "start is a part of the run"),
        ({"start": -0.1}, "start is a part of the run"),
        ({"every": 0}, "every must be a whole number"),
        ({"every": 11}, "only 10 of 20 steps are left"),
        ({"seeds": 0}, "at least one seed"),
        ({"steps": 0}, "steps"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(
    task, tmp_path, monkeypatch, settings, words
):
    def never(*a, **k):
        raise AssertionError

    monkeypatch.setattr(averaged, "carry_out", never)
    with pytest.raises(InputError, match=words):
        average(task, ARM, **{"seeds": 2, "steps": 20, "out": tmp_path / "s", **settings})
    assert not (tmp_path / "s").exists()


def test_an_arm_that_asks_for_tuning_is_refused(task, tmp_path):
    with pytest.raises(InputError, match="needs fixed values"):
        average(task, "adam(lr=1e-4..1e-1)", seeds=2, steps=20, out=tmp_path)
    with pytest.raises(InputError, match="a study is of one arm"):
        average(task, {"a": "adam()", "b": "sgd()"}, seeds=2, steps=20, out=tmp_path)


def test_a_folder_without_a_study_or_with_a_race_is_refused(task, tmp_path):
    with pytest.raises(LedgerError, match=r"is not the folder of a study or a sweep: it has no"):
        StudyResult(tmp_path)
    race(task, [ARM], seeds=1, steps=4, out=tmp_path / "race", timing=0)
    with pytest.raises(LedgerError, match="is the folder of a race"):
        average(task, ARM, seeds=1, steps=4, out=tmp_path / "race")
    (tmp_path / "study.jsonl").write_text("{}\n")
    with pytest.raises(LedgerError, match="not written by this version of steepest"):
        StudyResult(tmp_path)
