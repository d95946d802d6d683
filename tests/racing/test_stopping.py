"""Early stopping and guards inside of races, in every engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import steepest
from steepest.errors import InputError, LedgerError
from steepest.racing.ledger import Ledger
from steepest.reporting.facts import flags
from steepest.reporting.protocol import reproduce
from steepest.train.checkpoint import load
from steepest.train.solo import SoloRun
from steepest.train.task import hash_tensors

G = torch.Generator().manual_seed(0)
X = torch.randn(240, 8, generator=G)
# labels that are mostly noise: fitting them makes the validation loss rise soon
Y = torch.where(torch.rand(240, generator=G) < 0.6, (X[:, 0] > 0).long(), torch.randint(0, 2, (240,), generator=G))  # fmt: skip  # noqa: E501


def make_model():
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean().item()


def make(**changes):
    given = {
        "name": "noisy",
        "model": make_model,
        "loss": F.cross_entropy,
        "train": (X[:80], Y[:80]),
        "val": (X[80:160], Y[80:160]),
        "test": (X[160:], Y[160:]),
        "metrics": {"accuracy": accuracy},
        "batch_size": 16,
    }
    return steepest.Task(**(given | changes))


ARMS = ["sgd(lr=0.3)", "sgd(lr=0.01)"]
RULE = "val_loss, patience=3"


def race(out, *, task=None, arms=ARMS, rule=RULE, engine="solo", **more):
    settings = {"seeds": 2, "epochs": 30, "timing": 0, **more}
    return steepest.race(
        task or make(), arms, out=out, early_stopping=rule, engine=engine, **settings
    )


def replay(run, arm_lr, rule_patience=3):
    """By hand: the plain run with patience; where it stops, its best step, and those weights."""
    solo = SoloRun(
        make(), optimizer=lambda p: steepest.optim.SGD(p, lr=arm_lr), schedule=None,
        seed=run.seed, steps=150,
    )  # fmt: skip
    best, waited = None, 0
    while solo.position < 150:
        solo.advance(5)
        loss = solo.evaluate("val")["loss"]
        if best is None or loss < best[0]:
            best, waited = (loss, solo.position, solo.weights(), solo.evaluate("test")), 0
        else:
            waited += 1
        if waited == rule_patience:
            break
    return solo.position, best


@pytest.mark.parametrize("engine", ["solo", "population"])
def test_a_run_stops_where_it_should_and_its_best_weights_are_tested(engine, tmp_path) -> None:
    result = race(tmp_path / "r", engine=engine)
    early = 0
    for run in result.runs:
        lr = float(run.arm.removeprefix("sgd(lr=").removesuffix(")"))
        stopped, (loss, step, weights, test) = replay(run, lr)
        assert (run.status, run.steps, run.best_step) == ("done", stopped, step)
        assert run.metrics["val_loss"] == pytest.approx(loss, rel=1e-5)
        assert run.metrics["test_accuracy"] == pytest.approx(test["accuracy"])
        assert run.metrics["test_loss"] == pytest.approx(test["loss"], rel=1e-4)
        stored = load(tmp_path / "r" / "weights" / f"{run.run_id}.safetensors").tensors
        if engine == "solo":
            assert hash_tensors({k: stored[k] for k in weights}) == hash_tensors(weights)
        for name, value in weights.items():
            assert torch.allclose(stored[name], value, rtol=1e-4, atol=1e-5)
        if stopped < 150:
            early += 1
            assert run.message.startswith(f"stopped at step {stopped}: val_loss had not improved")
            assert f"at step {step}" in run.message
        else:
            assert run.message is None
    assert early >= 2
    said = [flag.text for flag in flags(result)]
    assert any("sgd(lr=0.3) was stopped early in 2 of 2 seeds" in text for text in said)
    assert "early_stopping='val_loss, patience=3'" in reproduce(result)


def tables(folder: Path) -> Any:
    with Ledger.read(folder) as ledger:
        return ledger.content_digest()


def weights_of(folder: Path) -> dict[str, str]:
    return {p.name: hash_tensors(load(p).tensors) for p in sorted((folder / "weights").iterdir())}


def test_engines_stop_alike(tmp_path, task_file_of) -> None:
    task = task_file_of
    runs = {}
    for engine in ("solo", "processes", "population"):
        result = race(tmp_path / engine, task=task, engine=engine)
        runs[engine] = [(r.run_id, r.steps, r.best_step, r.status) for r in result.runs]
    assert runs["solo"] == runs["processes"] == runs["population"]
    assert weights_of(tmp_path / "solo") == weights_of(tmp_path / "processes")


@pytest.fixture
def task_file_of(tmp_path: Path) -> str:
    """This file's task, as another process finds it."""
    path = tmp_path / "noisy_task.py"
    source = Path(__file__).read_text(encoding="utf-8")
    head = source[source.index("G = torch") : source.index("ARMS =")]
    imports = (
        "import torch\nimport torch.nn.functional as F\nfrom torch import nn\nimport steepest\n"
    )
    path.write_text(f"{imports}\n{head}\ntask = make()\n", encoding="utf-8")
    return f"{path}:task"


class Impatient:
    """An observer that stops the race after so many reports of progress."""

    def __init__(self, after: int) -> None:
        self.left = after

    def started(self, plan: Any, done: Any) -> None: ...
    def added(self, plan: Any) -> None: ...
    def run_finished(self, run_id: str, status: str, metrics: Any) -> None: ...
    def note(self, text: str) -> None: ...

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        import os
        import signal

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("engine", ["solo", "population"])
@pytest.mark.parametrize("after", [9, 31, 47])
def test_an_interrupted_race_resumes_to_bitwise_the_same_ledger(engine, after, tmp_path) -> None:
    whole = race(tmp_path / "whole", engine=engine)
    with pytest.raises(steepest.SteepestError, match="stopped"):
        race(tmp_path / "part", engine=engine, observer=Impatient(after))
    again = race(tmp_path / "part", engine=engine)
    assert [vars_of(r) for r in again.runs] == [vars_of(r) for r in whole.runs]
    assert tables(tmp_path / "part") == tables(tmp_path / "whole")
    assert weights_of(tmp_path / "part") == weights_of(tmp_path / "whole")


def vars_of(run: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(run).items() if "seconds" not in k}


def test_without_test_data_the_best_validation_value_decides(tmp_path) -> None:
    result = race(tmp_path / "r", task=make(test=None), rule="val_accuracy, patience=4")
    for run in result.runs:
        steps, values = result.evaluations("val", "accuracy")[run.arm, run.seed]
        assert run.metrics["val_accuracy"] == max(values)
        assert run.best_step == steps[np.argmax(values)]


@pytest.mark.parametrize("engine", ["solo", "population"])
def test_a_guarded_run_is_recorded_as_diverged_with_the_weights_from_before(
    engine, tmp_path
) -> None:
    arms = ["sgd(lr=0.05)", "sgd(lr=1e6)"]
    result = steepest.race(
        make(), arms, out=tmp_path / "r", seeds=2, steps=20, timing=0, engine=engine,
        guard="threshold=1e3",
    )  # fmt: skip
    plain = steepest.race(
        make(), arms[:1], out=tmp_path / "p", seeds=2, steps=20, timing=0, engine=engine
    )
    runs = {(run.arm, run.seed): run for run in result.runs}
    for seed in (0, 1):
        sick = runs["sgd(lr=1000000.0)", seed]
        assert sick.status == "diverged"
        assert sick.diverged_at == sick.steps == 2
        assert sick.message.startswith("its loss was ")
        assert "at step 2, above 1000" in sick.message
        losses = result.curves()["sgd(lr=1000000.0)", seed][1]
        assert np.isfinite(losses).all()
        folder = tmp_path / "r" / "weights"
        ended = load(folder / f"{sick.run_id}.safetensors").tensors
        start = load(folder / f"start-s{seed}.safetensors").tensors
        assert hash_tensors({k: ended[k] for k in start}) == hash_tensors(start)
        healthy = result.curves()["sgd(lr=0.05)", seed][1]
        assert healthy == pytest.approx(plain.curves()["sgd(lr=0.05)", seed][1], rel=1e-4)
    assert "diverged" in json.dumps(result.verdict.to_dict())


def test_tuned_arms_are_chosen_by_their_best_evaluations(tmp_path) -> None:
    result = race(
        tmp_path / "r", arms=["sgd(lr=0.05..1)", "sgd(lr=0.01)"], trials=3, tuning_seeds=1,
        engine="population", rule="val_loss, patience=2", seeds=2,
    )  # fmt: skip
    stopped = [r for r in result.tuning_runs if r.steps < r.planned_steps]
    assert stopped
    for run in result.tuning_runs:
        values = dict(zip(*result.tuning_evaluations("loss")[run.run_id], strict=True))
        assert run.best_step == min(values, key=values.get)
        assert run.metrics["val_loss"] == min(values.values())
    assert all(run.status == "done" for run in result.final_runs)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": "val_los"}, "unknown metric to monitor 'val_los'; did you mean 'val_loss'"),
        ({"rule": "test_accuracy"}, "unknown metric to monitor 'test_accuracy'"),
        ({"rule": "val_loss, patience=0"}, "patience must be a whole number of evaluations >= 1"),
        ({"rule": "val_loss, patient=3"}, "did you mean 'patience'"),
        ({"guard": "factor=0.5"}, "factor must be a number > 1"),
        ({"task": make(val=None)}, "early stopping watches validation data"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(settings, said, tmp_path) -> None:
    with pytest.raises(InputError, match=said):
        race(tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()


def test_a_race_with_another_rule_is_another_race(tmp_path) -> None:
    race(tmp_path / "r", epochs=1)
    with pytest.raises(LedgerError, match="stopping is"):
        race(tmp_path / "r", epochs=1, rule="val_loss, patience=4")
