"""From scratch, frozen and fine-tuned, on the package's own ConvNet and on small tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from steepest import tasks, transfer
from steepest.errors import DataError, InputError, LedgerError, TaskError
from steepest.racing.observer import StoppedError
from steepest.studies.transferred import balanced
from steepest.train.batchnorm import batch_norms
from steepest.train.data import TensorSource
from steepest.train.solo import SoloRun
from steepest.train.transfer import freeze_backbone, load_backbone, replace_head

ARM = "torch.optim:SGD(lr=0.1)"


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.fc = nn.Linear(12, classes)

    def forward(self, x):
        return self.fc(self.stem(x))


@pytest.fixture
def weights(task):
    torch.manual_seed(0)
    model = Net()
    model.train()(task.train[0])
    return model


@pytest.fixture
def task(make_task):
    return make_task(model=Net)


def test_examples_are_balanced_and_less_data_is_a_part_of_more():
    y = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    many, few = balanced(y, 45, seed=3), balanced(y, 12, seed=3)
    assert torch.equal(few, many[:12])
    assert y[few].bincount().tolist() == [4, 4, 4]
    assert y[many].bincount().tolist() == [18, 17, 10]
    assert len(set(many.tolist())) == 45
    assert not torch.equal(balanced(y, 12, seed=4), few)


def test_training_the_head_on_features_is_training_it_inside_the_frozen_model(
    task, weights, tmp_path
):
    study = transfer(
        task, ARM, weights=weights, head="fc", amounts=[32], seeds=2, steps=20, out=tmp_path
    )
    for seed in (0, 1):
        x, y = TensorSource(task.train, torch.device("cpu")).batch(
            balanced(task.train[1], 32, seed=seed)
        )

        def frozen():
            model = replace_head(Net(), "fc", 3)
            return freeze_backbone(load_backbone(model, weights.state_dict(), head="fc"), "fc")

        whole = dataclasses.replace(task, train=(x, y), val=None, model=frozen)
        run = SoloRun(
            whole, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), schedule=None, seed=seed,
            steps=20,
        )  # fmt: skip
        run.advance(20)
        found = study.values("frozen/32", "test_loss")[seed]
        assert found == pytest.approx(run.evaluate("test")["loss"], rel=1e-4)
    features = list((tmp_path / "features").iterdir())
    assert len(features) == 3  # the test data once, each seed's examples once


def test_what_scratch_and_fine_tuning_did_is_what_a_plain_loop_does(task, weights, tmp_path):
    study = transfer(
        task, ARM, weights=weights, head="fc", amounts=[48], seeds=1, steps=10, least=1.0,
        out=tmp_path,
    )  # fmt: skip
    x, y = TensorSource(task.train, torch.device("cpu")).batch(balanced(task.train[1], 48, seed=0))
    plain = dataclasses.replace(task, train=(x, y), val=None)
    run = SoloRun(
        dataclasses.replace(plain, model=lambda: replace_head(Net(), "fc", 3)),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1), schedule=None, seed=0, steps=10,
    )  # fmt: skip
    run.advance(10)
    assert study.values("scratch/48")[0] == run.evaluate("test")["accuracy"]
    assert np.isfinite(study.values("fine-tuned/48")).all()


def test_batch_norm_is_frozen_while_fine_tuning_unless_it_is_asked_for(
    task, weights, tmp_path, monkeypatch
):
    kept = {}
    evaluate = SoloRun.evaluate

    def spy(run, split):
        for name, layer in batch_norms(run.model).items():
            kept.setdefault(name, []).append(layer.running_mean.clone())
        return evaluate(run, split)

    monkeypatch.setattr(SoloRun, "evaluate", spy)
    settings = {"weights": weights, "amounts": [48], "seeds": 1, "steps": 5}
    transfer(task, ARM, out=tmp_path / "a", **settings)
    transfer(task, ARM, out=tmp_path / "b", freeze_norm=False, **settings)
    given = weights.stem[1].running_mean
    scratch, frozen, _, free = kept["stem.1"]
    assert torch.equal(frozen, given)
    assert not torch.equal(scratch, given)
    assert not torch.equal(free, given)


def test_a_head_that_cannot_be_fed_with_features_is_trained_inside_the_frozen_model(
    make_task, tmp_path
):
    class Doubles(Net):
        def forward(self, x):
            return super().forward(x) * 2

    task = make_task(model=Doubles)
    study = transfer(task, ARM, weights=Doubles(), amounts=[32], seeds=1, steps=8, out=tmp_path)
    assert np.isfinite(study.values("frozen/32")).all()
    assert any("the whole model runs while it is trained" in e["text"] for e in study.events)
    assert not (tmp_path / "features").exists()


def test_a_stopped_study_goes_on_to_the_same_rows(task, weights, tmp_path, stop_after):
    settings = {"weights": weights, "amounts": [16, 32], "seeds": 3, "steps": 4}
    whole = transfer(task, ARM, out=tmp_path / "whole", **settings)
    with pytest.raises(StoppedError, match="seeds that are finished are kept"):
        transfer(task, ARM, out=tmp_path / "cut", watcher=stop_after(8), **settings)
    cut = transfer(task, ARM, out=tmp_path / "cut", **settings)
    assert cut.rows == whole.rows
    assert "How much data it takes" in cut.report().read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give one of the two"),
        ({"weights": "none.pth"}, "no file of weights none.pth"),
        ({"weights": Net(), "source": "mnist"}, "give one of the two"),
        ({"weights": Net(), "head": "classifier"}, "no module 'classifier'; nearest: fc"),
        ({"weights": nn.Linear(2, 2)}, "not those of this model's backbone"),
        ({"weights": Net(), "amounts": []}, "at least one amount"),
        ({"weights": Net(), "amounts": [1]}, "number of examples >= 2, got 1"),
        ({"weights": Net(), "amounts": [1000]}, "the task has 160 to train on"),
        ({"weights": Net(), "least": 2.0}, "at most 1, got 2.0"),
        ({"weights": Net(), "scratch_arm": "adm()"}, "did you mean 'adam'"),
    ],
)
def test_bad_settings_are_refused(task, tmp_path, settings, words):
    with pytest.raises((InputError, DataError), match=words):
        transfer(task, ARM, **{"seeds": 1, "steps": 4, "amounts": [16], **settings},
                 out=tmp_path / "s")  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_targets_that_are_no_classes_are_refused(make_task, tmp_path):
    x = torch.randn(64, 6)
    task = make_task(
        model=lambda: nn.Linear(6, 1), loss=nn.functional.mse_loss, train=(x, x[:, :1]),
        val=None, test=(x, x[:, :1]), metrics={},
    )  # fmt: skip
    task = dataclasses.replace(task, model=lambda: nn.Sequential(nn.Linear(6, 1)))
    with pytest.raises(TaskError, match="one class per example"):
        transfer(task, ARM, weights=task.model(), seeds=1, steps=4, out=tmp_path / "s")


def test_other_weights_in_the_same_folder_are_another_study(task, weights, tmp_path):
    settings = {"amounts": [16], "seeds": 1, "steps": 2, "out": tmp_path}
    transfer(task, ARM, weights=weights, **settings)
    with pytest.raises(LedgerError, match="weights is"):
        transfer(task, ARM, weights=Net(), **settings)


@pytest.mark.slow
def test_digits_five_to_nine_learn_from_digits_zero_to_four(tmp_path):
    """The package's own ConvNet; docs/transfer.md has the figures of ten seeds."""
    whole = tasks.load("mnist")

    def half(split, first, most):
        x, y = split
        kept = ((y >= first) & (y < first + 5)).nonzero().flatten()[:most]
        return x[kept], y[kept] - first

    low, high = (
        dataclasses.replace(
            whole, name=f"from {first}", train=half(whole.train, first, 6400), val=None,
            test=half(whole.test, first, 1000),
        )
        for first in (0, 5)
    )  # fmt: skip
    study = transfer(
        high, "adam(lr=1e-3)", source=low, source_epochs=2, head="fc2", amounts=[50], seeds=3,
        steps=80, out=tmp_path,
    )  # fmt: skip
    gain = study.values("fine-tuned/50") - study.values("scratch/50")
    assert gain.mean() > 0
    assert study.values("fine-tuned/50").mean() > 0.75
    better = study.values("scratch/50", "test_loss") - study.values("fine-tuned/50", "test_loss")
    assert better.min() > 0
    assert (tmp_path / "features").is_dir()
