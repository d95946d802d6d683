"""Sweeps of tasks whose stable limit is known, and of tasks that cannot be batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import steepest
from steepest.errors import InputError, TaskError
from steepest.sweeping.measure import arm_of, at_rate
from steepest.sweeping.sweep import read_range

CURVATURES = torch.tensor([0.5, 1.0, 2.0, 4.0, 10.0])


class Bowl(nn.Module):
    """Half w'Hw, whatever the inputs: gradient descent is stable up to 2 over the largest."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5) + 1)

    def forward(self, x):
        return 0.5 * (CURVATURES * self.w**2).sum() + 0 * x.sum(1)


def bowl(model=Bowl, **changes):
    given = {
        "name": "bowl",
        "model": model,
        "loss": lambda outputs, targets: outputs.mean(),
        "train": (torch.ones(32, 1), torch.zeros(32)),
        "batch_size": 8,
    }
    return steepest.Task(**(given | changes))


@pytest.mark.parametrize(
    ("arm", "limit"),
    [
        ("sgd", 2 / 10),
        ("sgd(momentum=0.5)", 2 * 1.5 / 10),  # Polyak: 2 (1 + beta) / lambda
        ("sgd(momentum=0.9)", 2 * 1.9 / 10),
        ("torch.optim:SGD(lr=1)", 2 / 10),
    ],
)
def test_on_a_quadratic_the_edge_is_the_stable_limit_within_10_percent(arm, limit, tmp_path):
    result = steepest.sweep(bowl(), arm, lr=(1e-4, 10), rates=24, seeds=3, out=tmp_path)
    assert result.kind == "held"
    assert result.edge == pytest.approx(limit, rel=0.1)
    assert result.findings.edge.high / result.findings.edge.low < 1.2
    assert result.suggestion < limit
    assert result.findings.lowest < limit


def test_the_suggestion_is_where_the_end_loss_falls_the_fastest(tmp_path):
    """Of a quadratic everything is known: the losses follow from the start in closed form."""
    result = steepest.sweep(
        bowl(), "sgd", lr=(1e-5, 0.1), rates=30, seeds=3, steps=50, out=tmp_path
    )
    u = np.linspace(-5, -1, 4001)
    curves = []
    for seed in range(3):
        from steepest.train.task import build_model

        w = build_model(bowl(), seed).w.detach().double().numpy()
        h = CURVATURES.double().numpy()
        steps = np.arange(40, 50)[:, None, None]
        shrink = (1 - 10.0 ** u[:, None] * h) ** (2 * steps)
        curves.append((0.5 * h * w**2 * shrink).sum(-1).mean(0))
    truth = 10 ** u[np.argmin(np.gradient(np.mean(curves, 0), u))]
    assert result.suggestion == pytest.approx(truth, rel=0.6)  # a factor of 1.6
    assert 0.5 < result.suggestion / truth < 2


def test_a_model_that_cannot_be_batched_gets_the_classical_test_with_the_reason(tmp_path):
    class Branching(Bowl):
        def forward(self, x):
            return super().forward(x) if self.w.sum() > -1e9 else super().forward(-x)

    result = steepest.sweep(bowl(Branching), "sgd", lr=(1e-4, 10), seeds=3, out=tmp_path / "a")
    assert result.kind == "growing"
    assert "cannot be batched" in result.reason
    assert "data-dependent" in result.reason
    assert 0.2 < result.edge < 4  # an upper bound of the limit, and says so
    assert any("upper bound" in note for note in result.findings.notes)
    asked = steepest.sweep(
        bowl(), "sgd", lr=(1e-4, 10), seeds=3, classical=True, out=tmp_path / "b"
    )
    assert asked.kind == "growing"
    assert asked.reason == "as was asked for"


def test_everybodys_optimizer_is_brought_to_a_rate_and_groups_keep_their_ratios():
    def two(parameters):
        parameters = list(parameters)
        groups = [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.4}]
        return torch.optim.SGD(groups)

    layer = nn.Linear(2, 2)
    optimizer = at_rate(arm_of(two)[0], 3.0)(layer.parameters())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3.0, 12.0])
    for arm in ("adam", "adam(lr=5)", "torch.optim:AdamW()", "adagrad(lr=0.5)"):
        optimizer = at_rate(arm_of(arm)[0], 0.25)(layer.parameters())
        assert optimizer.param_groups[0]["lr"] == 0.25
    found, written = arm_of("sgd(lr=1e-3..1, momentum=0.9)")
    assert written == (1e-3, 1.0)
    assert found.label == "sgd(momentum=0.9)"


def test_equal_calls_find_equal_numbers_and_leave_chance_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (
        steepest.sweep(bowl(), "adam", rates=8, seeds=2, steps=20, out=tmp_path / name)
        for name in ("one", "two")
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(one.findings.ends, two.findings.ends)
    apart = {"seconds": 0, "folder": ""}
    assert one.to_dict() | apart == two.to_dict() | apart


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"lr": (1.0, 0.1)}, "range of learning rates 1..0.1 is empty"),
        ({"lr": (0.1, 0.1)}, "is empty"),
        ({"lr": (0.0, 0.1)}, "low end of the learning rates must be a number > 0, got 0.0"),
        ({"lr": (1e-3, float("inf"))}, "high end"),
        ({"rates": 4}, "rates must be a whole number >= 5"),
        ({"steps": 0}, "steps must be a whole number >= 5"),
        ({"seeds": 0}, "at least one seed"),
        ({"level": 95}, "level must lie between 0 and 1"),
        ({"arm": "adm"}, "did you mean 'adam'"),
        ({"arm": "adam(beta1=0.8..0.9)"}, "varies the learning rate alone.*fix beta1"),
        ({"arm": "adam(lr=1e-3..1)", "lr": (1e-3, 1)}, "given twice"),
        ({"loss": lambda o, y: o.mean()}, "belong to a model that exists"),
        ({"device": "cdua"}, "cdua"),
        ({"batch_size": 64}, "64"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_there_is_a_folder(arguments, said, tmp_path):
    given = {"arm": "sgd", "out": tmp_path / "sweep", **arguments}
    with pytest.raises(InputError, match=said):
        steepest.sweep(bowl(), **given)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("classical", [False, True])
def test_a_loss_that_is_never_finite_is_the_tasks_fault(classical, tmp_path):
    task = bowl(loss=lambda outputs, targets: outputs.mean() * float("nan"))
    with pytest.raises(TaskError, match="not finite before the first step"):
        steepest.sweep(task, "sgd", rates=5, seeds=2, steps=5, classical=classical, out=tmp_path)


def test_ranges_are_read():
    assert read_range("1e-4..0.5") == (1e-4, 0.5)
    for text in ("1e-4", "..", "a..b", "1..2..3"):
        with pytest.raises(InputError, match=r"written low\.\.high"):
            read_range(text)
