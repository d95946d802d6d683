"""A healthy task comes through; each sabotage is stopped by the right gate, with the reason."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import steepest
from steepest.errors import InputError, LedgerError, TaskError
from steepest.racing.observer import StoppedError
from steepest.recipes import checking

CLASSES = 4
LAZY = """
import torch

class Lazy(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        return None
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps on the tiny sample: these models are small."""
    monkeypatch.setattr(checking, "TINY_STEPS", 150)
    torch.set_num_threads(1)


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1600, 8, generator=g)
    hidden = torch.relu(x @ torch.randn(8, 16, generator=g))
    scores = hidden @ torch.randn(16, CLASSES, generator=g)
    return x, (scores - scores.mean(0)).argmax(1)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return (outputs.argmax(1) == targets).double().mean().item()


def task_of(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y),
    **parts: Any,
) -> steepest.Task:
    x, y = change(*data())
    given: dict[str, Any] = {
        "name": "small", "model": mlp, "loss": F.cross_entropy, "train": (x[:1000], y[:1000]),
        "val": (x[1000:1300], y[1000:1300]), "test": (x[1300:], y[1300:]),
        "metrics": {"accuracy": accuracy}, "batch_size": 32,
    }  # fmt: skip
    return steepest.Task(**{**given, **parts})


def shuffled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]


def off_by_one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y.roll(1)


def dead() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model[0].bias.sub_(1000.0)
    return model


def frozen_head() -> nn.Module:
    model = mlp()
    model[2].requires_grad_(False)
    return model


def detached() -> nn.Module:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(8, 2), nn.Linear(2, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.body(x)).detach())

    return Cut()


def forgetful() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.99), nn.Linear(32, 16), nn.ReLU(),
        nn.Dropout(0.99), nn.Linear(16, CLASSES),
    )  # fmt: skip


def huge_start() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(100.0)
    return model


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="sum")


def shrunk(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.01 * F.cross_entropy(outputs, targets)


# name -> (task, step whose gate is shut, what the advice says)
SABOTAGES: dict[str, tuple[Callable[[], steepest.Task], int, str]] = {
    "a loss that is a sum": (lambda: task_of(loss=summed), 1, "a sum instead of a mean"),
    "a loss scaled by 0.01": (lambda: task_of(loss=shrunk), 1, "is it scaled"),
    "inputs that are not normalised": (
        lambda: task_of(lambda x, y: (100 * x + 500, y)), 1, "not normalised: mean",
    ),
    "a last layer that starts too large": (
        lambda: task_of(model=huge_start), 1, "last layer's initial weights too large",
    ),
    "dead ReLUs": (lambda: task_of(model=dead), 2, "No gradient reaches"),
    "a frozen head": (lambda: task_of(model=frozen_head), 2, "last layer is frozen"),
    "a detached body": (lambda: task_of(model=detached), 2, "No gradient reaches body.weight"),
    "inputs that are all equal": (
        lambda: task_of(lambda x, y: (torch.ones_like(x), y)), 2, "all inputs are equal",
    ),
    "shuffled labels": (lambda: task_of(shuffled), 3, "do the targets belong to their inputs"),
    "labels off by one": (lambda: task_of(off_by_one), 3, "off by one"),
    "dropout of 0.99": (lambda: task_of(model=forgetful), 3, "A dropout of 0.99"),
    "validation labels of another source": (
        lambda: dataclasses.replace(task_of(), val=(data()[0][:300], shuffled(*data())[1][:300])),
        4, "do both splits come from one source",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_sabotage_is_stopped_by_the_right_gate_with_the_right_advice(
    sabotage: str, tmp_path: Path
) -> None:
    make, step, advice = SABOTAGES[sabotage]
    found = steepest.recipe(make(), "adam", minutes=0.2, out=tmp_path / "r")
    assert list(found.records) == list(range(1, step + 1)), found.headline
    last = found.records[step]
    assert not last.passed
    assert not found.passed
    assert advice in " ".join(last.advice)
    assert found.headline.startswith(f"Step {step} does not pass")
    assert advice in html.unescape((tmp_path / "r" / "recipe.html").read_text())


def test_an_optimizer_that_does_nothing_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(LAZY)
    found = steepest.recipe(task_of(), f"{path}:Lazy", minutes=0.2, out=tmp_path / "r")
    assert list(found.records) == [1, 2]
    assert "no step changes the loss" in " ".join(found.records[2].advice)


@pytest.mark.slow
def test_a_healthy_task_comes_through_all_seven_steps(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    found = steepest.recipe(task_of(), "adam", minutes=0.4, out=folder)
    assert found.passed, found.headline
    assert [r.step for r in found.records.values()] == [1, 2, 3, 4, 5, 6, 7]
    last = found.records[7].numbers
    assert last["metric"] == "test_accuracy"
    assert last["mean"] > 0.75  # logistic regression has 0.6, chance 0.25
    assert found.arm is not None
    assert found.arm.startswith("adam(lr=")
    first = found.records[1].numbers
    assert first["expected"] == pytest.approx(math.log(CLASSES))
    for name in ("2-tiny-sample", "3-rates-0", "4-grid", "5-longer"):
        assert steepest.load(folder / name).metric.startswith("val_")  # test data stay unread
    final = steepest.load(folder / "7-final")
    seen = {
        s
        for name in ("4-grid", "5-longer", "7-refine-1")
        for s in steepest.load(folder / name).seeds
    }
    assert not seen & set(final.seeds)
    page = (folder / "recipe.html").read_text()
    assert page.count('class="plot"') >= 6
    again = steepest.recipe(task_of(), "adam", minutes=0.4, out=folder)
    assert again.records == found.records  # nothing is done twice


class Impatient:
    """Asks to stop in the coarse grid, after some runs."""

    def __init__(self) -> None:
        self.step, self.finished = 0, 0

    def begins(self, step: int, seconds_left: float) -> None:
        self.step = step

    def run_finished(self, run_id: str, status: str, metrics: Any) -> None:
        self.finished += self.step == 4
        if self.finished == 3:
            raise StoppedError("stopped")

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


@pytest.mark.slow
def test_a_recipe_that_was_stopped_goes_on_inside_the_race(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with pytest.raises(StoppedError, match=r"stopped in step 4; .* The same command goes on"):
        steepest.recipe(task_of(), "adam", minutes=0.3, out=folder, watcher=Impatient())
    before = steepest.load(folder / "4-grid")
    assert not before.complete
    found = steepest.recipe(task_of(), "adam", minutes=0.1, out=folder)  # other lengths by now
    assert found.passed
    after = steepest.load(folder / "4-grid")
    assert after.complete
    assert after.spec["steps"] == before.spec["steps"] == found.records[4].numbers["steps"]


def test_going_on_over_a_shut_gate_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    task = task_of(loss=summed)
    steepest.recipe(task, "adam", minutes=0.1, out=folder)
    found = steepest.recipe(task, "adam", minutes=0.1, out=folder, start=2)
    assert found.records[1].forced
    assert len(found.records) > 1
    assert "A person went on all the same" in (folder / "recipe.html").read_text()


def test_a_task_may_say_what_its_loss_should_be(tmp_path: Path) -> None:
    right = task_of(loss=shrunk, expected_initial_loss=0.01 * math.log(CLASSES))
    found = steepest.recipe(right, "adam", minutes=0.05, out=tmp_path / "r")
    assert found.records[1].passed
    assert "as the task says" in found.records[1].sentence
    with pytest.raises(TaskError, match="expected_initial_loss must be a finite number"):
        task_of(expected_initial_loss=math.nan)


def test_a_regression_is_compared_with_the_mean_of_its_targets(tmp_path: Path) -> None:
    x, _ = data()
    y = x[:, :1] * 2 + 0.1 * x[:, 1:2] + 50  # far from zero: the first loss is 2,500
    task = steepest.Task(
        name="line", model=lambda: nn.Linear(8, 1), loss=F.mse_loss, train=(x[:1000], y[:1000]),
        val=(x[1000:], y[1000:]), batch_size=32,
    )  # fmt: skip
    found = steepest.recipe(task, "adam", minutes=0.05, out=tmp_path / "r")
    assert not found.records[1].passed
    assert found.records[1].numbers["expected"] == pytest.approx(float(y[:1000].var()), rel=0.02)
    assert "targets of a regression" in found.records[1].advice[0]


def test_mistakes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(InputError, match="unknown rule 'adm'; did you mean 'adam'"):
        steepest.recipe(task_of(), "adm", out=out)
    with pytest.raises(InputError, match="steps 1 to 7, got --from 8"):
        steepest.recipe(task_of(), "adam", out=out, start=8)
    with pytest.raises(InputError, match="needs what step 1 finds"):
        steepest.recipe(task_of(), "adam", out=out, start=3)
    with pytest.raises(InputError, match="minutes must be a number > 0"):
        steepest.recipe(task_of(), "adam", out=out, minutes=0)
    with pytest.raises(InputError, match="looks for the rate and the weight decay alone"):
        steepest.recipe(task_of(), "adam(beta1=0.8..0.99)", out=out)
    assert not out.exists()


def test_another_recipe_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    steepest.recipe(task_of(loss=summed), "adam", minutes=0.1, out=tmp_path)
    with pytest.raises(LedgerError, match="its arm is adam, now it is sgd"):
        steepest.recipe(task_of(loss=summed), "sgd", minutes=0.1, out=tmp_path)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(LedgerError, match="cannot be read as a recipe"):
        steepest.recipe(task_of(), "adam", minutes=0.1, out=tmp_path)
