from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from steepest import tasks
from steepest.errors import InputError, SteepestError, TaskError
from steepest.racing.folder import open_race
from steepest.racing.ledger import Ledger
from steepest.racing.plan import plan, read_seeds
from steepest.train.task import Task

SGD = "torch.optim:SGD(lr=0.1)"
ADAM = "torch.optim:Adam()"


def test_defaults_are_one_epoch_six_seeds_and_an_evaluation_per_epoch(task: Task) -> None:
    spec = plan(task, [SGD]).spec
    assert (spec.steps, spec.steps_per_epoch, spec.batch_size) == (10, 10, 16)
    assert (spec.seeds, spec.eval_every, spec.level) == (tuple(range(6)), 10, 0.95)
    assert (spec.decides.split, spec.decides.metric) == ("test", "accuracy")
    assert spec.decides.higher_is_better


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"epochs": 3}, 30),
        ({"epochs": 0.5}, 5),
        ({"epochs": 0.001}, 1),
        ({"steps": 7}, 7),
        ({"epochs": 2, "batch_size": 40}, 8),
    ],
)
def test_epochs_and_steps_say_the_same_thing(
    task: Task, options: dict[str, Any], steps: int
) -> None:
    settled = plan(task, [SGD], **options)
    assert settled.spec.steps == steps
    assert {run.steps for run in settled.runs} == {steps}


def test_all_arms_of_a_seed_come_before_the_next_seed(task: Task) -> None:
    runs = plan(task, [SGD, ADAM], seeds=[5, 3]).runs
    assert [(run.seed, run.trial_id) for run in runs] == [(5, 0), (5, 1), (3, 0), (3, 1)]
    assert len({run.run_id for run in runs}) == 4


def test_the_whole_plan_is_in_the_ledger_before_anything_runs(task: Task, tmp_path: Path) -> None:
    settled = plan(task, {"a": SGD, "b": ADAM}, seeds=2, target="loss=0.5")
    with open_race(tmp_path, settled, command="steepest race"):
        pass
    with Ledger.read(tmp_path) as ledger:
        meta = ledger.meta()
        assert meta["spec"]["arms"] == {"a": SGD, "b": "torch.optim:Adam()"}
        assert meta["spec"]["target"]["higher_is_better"] is False
        assert meta["fingerprint"] == task.fingerprint()
        assert meta["command"] == "steepest race"
        assert meta["environment"]["torch"].startswith(torch.__version__.split("+")[0])
        assert [(r["label"], r["seed"], r["status"], r["stage"]) for r in ledger.runs()] == [
            (arm, seed, "pending", "final") for seed in (0, 1) for arm in ("a", "b")
        ]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (0.9, ("accuracy", 0.9, True)),
        ("0.9", ("accuracy", 0.9, True)),
        ("accuracy=0.9", ("accuracy", 0.9, True)),
        (" loss = 0.3 ", ("loss", 0.3, False)),
    ],
)
def test_a_target_is_a_number_of_a_metric_on_validation(
    task: Task, target: Any, found: tuple[str, float, bool]
) -> None:
    measure = plan(task, [SGD], target=target).spec.target
    assert measure is not None
    assert (measure.metric, measure.value, measure.higher_is_better) == found
    assert measure.split == "val"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "at least one seed, got 0"),
        ({"seeds": -2}, "at least one seed, got -2"),
        ({"seeds": []}, "at least one seed, got none"),
        ({"seeds": [1, 1]}, "the seeds must differ"),
        ({"seeds": [-1]}, "whole number from 0"),
        ({"seeds": 2.5}, "a number of seeds or a list"),
        ({"seeds": True}, "a number of seeds or a list"),
        ({"seeds": "3"}, "a number of seeds or a list"),
        ({"epochs": -1}, "epochs must be a number > 0, got -1"),
        ({"epochs": 0}, "epochs must be a number > 0, got 0"),
        ({"epochs": math.nan}, "epochs must be a number > 0"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"epochs": 1, "steps": 1}, "both given"),
        ({"eval_every": 0}, "eval_every must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"batch_size": 161}, "larger than the data"),
        ({"level": 95}, "did you mean 0.95?"),
        ({"level": 1.0}, "level must be"),
        ({"min_effect": -0.1}, "min_effect must be a number >= 0"),
        ({"target": "accurcy=0.9"}, "did you mean 'accuracy'?"),
        ({"target": "high"}, "the target must be a number"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    task: Task, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        plan(task, [SGD], **options)
    assert message in str(caught.value)
    assert isinstance(caught.value, SteepestError)
    assert caught.value.exit_code == 2


def test_a_share_of_a_ready_made_task_ends_at_one() -> None:
    with pytest.raises(InputError, match=r"no run can reach the target accuracy=1\.5"):
        plan(tasks.load("mnist-logreg"), [SGD], target=1.5)


def test_a_target_needs_validation_data(make_task: Callable[..., Task]) -> None:
    with pytest.raises(InputError, match="has none here"):
        plan(make_task(val=None), [SGD], target=0.9)


def test_a_task_that_does_not_fit_is_refused_before_the_race(
    make_task: Callable[..., Task],
) -> None:
    with pytest.raises(TaskError, match="the model raised"):
        plan(make_task(model=lambda: nn.Linear(7, 3)), [SGD])


def test_an_optimizer_that_does_not_fit_the_model_is_refused_before_the_race(task: Task) -> None:
    class Picky(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.1)
            if any(p.dim() != 2 for g in self.param_groups for p in g["params"]):
                raise ValueError("matrices only")

    with pytest.raises(InputError, match=r"'picky' does not fit task 'tiny': .*matrices only"):
        plan(task, {"picky": Picky})


@pytest.mark.parametrize(
    ("splits", "decides", "watch"),
    [
        ({}, "test", "val"),
        ({"test": None}, "val", "val"),
        ({"val": None}, "test", None),
        ({"val": None, "test": None}, "train", "train"),
    ],
)
def test_what_is_watched_and_what_decides_follows_from_the_data(
    make_task: Callable[..., Task], splits: dict[str, Any], decides: str, watch: str | None
) -> None:
    settled = plan(make_task(**splits), [SGD])
    assert (settled.spec.decides.split, settled.spec.watch) == (decides, watch)
    assert any("no test data" in note for note in settled.notes) == (decides != "test")


@pytest.mark.parametrize(
    ("arms", "seeds", "needed"), [(2, 3, 6), (2, 5, 6), (2, 6, None), (3, 6, 8), (8, 10, 11)]
)
def test_too_few_seeds_are_said_before_the_race_starts(
    task: Task, arms: int, seeds: int, needed: int | None
) -> None:
    # with n seeds p >= 2 / 2**n; the first look has 2/3 of 0.05, of which Holm asks the best of m
    # pairs for 1 / m
    pairs = arms * (arms - 1) / 2
    assert (needed is None) == (2 / 2**seeds <= 0.05 * 2 / 3 / pairs)
    notes = plan(task, {str(k): SGD for k in range(arms)}, seeds=seeds).notes
    assert any(f"At least {needed} seeds are needed" in note for note in notes) == bool(needed)
    assert any("too few" in note for note in notes) == bool(needed)


def test_a_longer_race_contains_the_shorter_ones_seeds() -> None:
    assert read_seeds(5)[:3] == read_seeds(3)


@pytest.mark.parametrize("target", ["accuracy=101", "accuracy=-0.1", "loss=-1"])
def test_a_target_that_no_run_can_reach_is_refused(task: Task, target: str) -> None:
    with pytest.raises(InputError, match="no run can reach the target"):
        plan(task, [SGD], target=target)


def test_a_target_that_looks_like_per_cent_is_asked_about(task: Task) -> None:
    notes = plan(task, [SGD], target=98).notes
    assert any("if it goes from 0 to 1, write accuracy=0.98" in note for note in notes)
    assert not any("per cent" in note for note in plan(task, [SGD], target=0.98).notes)
