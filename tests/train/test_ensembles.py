"""Several models as one predictor."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from steepest.errors import InputError, TaskError
from steepest.tasks.mnist import ConvNet, accuracy
from steepest.train.calibration import calibration_error, reliability
from steepest.train.ensembles import (
    Ensemble,
    check_classes,
    mean_log_probabilities,
    predict,
    score,
    uncertainty,
)
from steepest.train.task import Task


def _x(n=20, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _mean_of_softmax(models, x):
    with torch.no_grad():
        return np.mean([m.eval()(x).double().softmax(1).numpy() for m in models], axis=0)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x))


def test_the_mean_of_probabilities_through_vmap_with_every_members_own_batch_norm():
    models = [Normed() for _ in range(4)]
    for number, model in enumerate(models):
        model.train()(_x(seed=number) * (1 + number))
    expected = _mean_of_softmax(copy.deepcopy(models), _x())
    ensemble = Ensemble([m.train() for m in models])
    with torch.no_grad():
        np.testing.assert_allclose(ensemble(_x()).exp().numpy(), expected, rtol=1e-5, atol=1e-7)
    assert ensemble.how == "vmap"
    assert all(m.training for m in ensemble.modules())


def test_logits_log_probabilities_and_probabilities_give_the_same_mean_in_their_own_kind():
    logits = [nn.Linear(4, 3) for _ in range(3)]
    expected = _mean_of_softmax(logits, _x())
    for tail, kind in (
        (nn.Identity(), "scores"),
        (nn.LogSoftmax(1), "scores"),
        (nn.Softmax(1), "probabilities"),
    ):
        ensemble = Ensemble([nn.Sequential(m, tail) for m in logits])
        with torch.no_grad():
            out = ensemble(_x())
        assert ensemble.kind == kind
        mean = out if kind == "probabilities" else out.exp()
        np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_changed_weights_are_seen():
    ensemble = Ensemble([nn.Linear(4, 3) for _ in range(2)])
    with torch.no_grad():
        ensemble(_x())
        ensemble.members[1].weight.add_(1.0)
        after = ensemble(_x()).exp().numpy()
    np.testing.assert_allclose(
        after, _mean_of_softmax(ensemble.members, _x()), rtol=1e-5, atol=1e-7
    )


class Branch(nn.Linear):
    """What `vmap` cannot follow: a branch on data."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > -1e9 else -y


class Scaled(nn.Linear):
    """A member that differs from the others in a number that is no weight."""

    scale = 1.0

    def forward(self, x):
        return super().forward(x) * self.scale


def test_models_that_cannot_be_mapped_are_asked_one_by_one_and_the_reason_is_said():
    branching = Ensemble([Branch(4, 3) for _ in range(3)])
    scaled = [Scaled(4, 3) for _ in range(3)]
    scaled[2].scale = 3.0
    differing = Ensemble(scaled)
    mixed = Ensemble([nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))])
    asked = Ensemble([nn.Linear(4, 3) for _ in range(2)], engine="loop")
    with torch.no_grad():
        for ensemble in (branching, differing, mixed, asked):
            out = ensemble(_x()).exp().numpy()
            np.testing.assert_allclose(
                out, _mean_of_softmax(ensemble.members, _x()), rtol=1e-5, atol=1e-7
            )
    assert "data-dependent control flow" in branching.how
    assert "member 2 answers otherwise than alone" in differing.how
    assert "only some members have" in mixed.how
    assert asked.how == "loop: as asked for"


def test_uncertainty_is_that_of_scipys_entropies():
    logs = torch.randn(5, 30, 4, generator=torch.Generator().manual_seed(1)).mul(2).log_softmax(2)
    p = logs.double().exp().numpy()
    found = uncertainty(logs)
    total = entropy(p.mean(0), axis=1)
    np.testing.assert_allclose(found.entropy, total, rtol=1e-5)
    np.testing.assert_allclose(
        found.mutual_information, total - entropy(p, axis=2).mean(0), rtol=1e-4, atol=1e-6
    )
    named = p.argmax(2)
    pairs = [(named[i] != named[j]) for i in range(5) for j in range(i)]
    np.testing.assert_allclose(found.disagreement, np.mean(pairs, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.confidence, p.mean(0).max(1), rtol=1e-5)


def test_members_that_agree_leave_no_mutual_information():
    logs = torch.randn(1, 9, 4).log_softmax(2).expand(3, 9, 4)
    found = uncertainty(logs)
    assert found.mutual_information.abs().max() < 1e-6
    assert found.disagreement.max() == 0
    assert found.entropy.min() > 0


def test_outputs_with_places_have_their_classes_in_dimension_one():
    """Segmentation: [B, C, H, W]."""
    logs = torch.randn(3, 2, 5, 4, 4).log_softmax(2)
    assert mean_log_probabilities(logs).exp().sum(1).allclose(torch.ones(2, 4, 4))
    assert uncertainty(logs).disagreement.shape == (2, 4, 4)
    check_classes(logs[0], torch.zeros(2, 4, 4, dtype=torch.long), where="here")


def test_calibration_error_against_a_plain_count():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5] * 4, size=500)
    y = rng.integers(0, 4, 500)
    sure, right = p.max(1), p.argmax(1) == y
    expected = 0.0
    for b in range(10):
        inside = (sure > b / 10) & (sure <= (b + 1) / 10)
        if inside.any():
            expected += abs(right[inside].mean() - sure[inside].mean()) * inside.mean()
    found = calibration_error(torch.tensor(p), torch.tensor(y), bins=10)
    assert found == pytest.approx(expected, abs=1e-12)
    assert int(reliability(torch.tensor(p), torch.tensor(y)).count.sum()) == 500


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "at least 2 members, got 0"),
        ([nn.Linear(1, 2)], "at least 2 members, got 1"),
        ([nn.Linear(1, 2), "model"], "must be an nn.Module, got str"),
    ],
)
def test_too_few_members_or_none_at_all_are_refused(models, words):
    with pytest.raises(InputError, match=words):
        Ensemble(models)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(4, 1), r"float32\[20, 1\]|float32\[8, 1\]"),
        (lambda: Pair(4, 3), "gave tuple"),
        (lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), r"float32\[8\]"),
    ],
)
def test_outputs_that_are_no_scores_of_classes_are_refused(make, words):
    with pytest.raises(TaskError, match=words):
        Ensemble([make(), make()])(_x())


def test_members_of_different_classes_are_refused():
    with pytest.raises(TaskError, match="must know the same classes"):
        Ensemble([nn.Linear(4, 3), nn.Linear(4, 5)])(_x())


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(20), "integer tensor; got torch.float32"),
        (torch.zeros(20, 1, dtype=torch.long), r"targets have \[20, 1\]"),
        (torch.full((20,), 3), "found 3 to 3"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets, words):
    with pytest.raises(TaskError, match=words):
        check_classes(torch.zeros(20, 3), targets, where="task 'x'")


def test_answers_to_a_split_are_scored_by_the_tasks_own_loss_and_metrics():
    x, y = torch.randn(30, 1, 28, 28), torch.randint(0, 10, (30,))
    task = Task(
        name="tiny",
        model=ConvNet,
        loss=nn.functional.nll_loss,
        train=(x, y),
        metrics={"accuracy": accuracy},
        eval_batch_size=7,
    )
    ensemble = Ensemble([ConvNet(), ConvNet()])
    before = torch.get_rng_state()
    logs, targets = predict(
        task, "train", ensemble.log_probabilities, device=torch.device("cpu"), dim=1
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert logs.shape == (2, 30, 10)
    assert torch.equal(targets, y)
    found = score(task, ensemble.like_members(mean_log_probabilities(logs)), targets)
    p = _mean_of_softmax(ensemble.members, x)
    assert found["accuracy"] == pytest.approx((p.argmax(1) == y.numpy()).mean())
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(30), y]).mean(), rel=1e-5)
