"""One run: the plain loop, repeatable, cut anywhere, the same start and order for every arm."""

import functools
import math
import random

import numpy as np
import pytest
import torch
from solo_runs import Net, X, Y, accuracy, adam, bits, make, sgd, solo
from torch import nn
from torch.nn import functional as F

from steepest.errors import InputError, TaskError
from steepest.optim import build
from steepest.train.population import Member, Population
from steepest.train.randomness import batch_order, derive
from steepest.train.solo import SoloRun
from steepest.train.task import Task


def linear(**changes):
    return make(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), **changes)


# -- it is the plain loop ------------------------------------------------------------------------


def test_a_run_is_the_loop_that_a_user_would_write():
    task = linear()
    run = solo(task, seed=4, schedule=lambda step, total: 1 - step / total, steps=40)
    chunk = run.advance(40)

    torch.manual_seed(derive(4, "init"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    optimizer = adam(model.parameters())
    losses, rates = [], []
    for step in range(40):
        epoch, k = divmod(step, 150 // 16)
        index = batch_order(4, epoch, 150)[16 * k : 16 * k + 16]
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 40)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X[index]), Y[index])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert chunk.loss.tolist() == losses
    assert chunk.lr.tolist() == np.float32(rates).tolist()
    assert torch.equal(run.weights()["1.weight"], model[1].weight)
    assert (chunk.first_step, run.position, run.steps_per_epoch) == (0, 40, 9)


def test_evaluation_is_over_the_whole_split_in_eval_mode():
    run = solo()
    run.advance(5)
    result = run.evaluate("val")
    run.model.eval()
    with torch.no_grad():
        outputs = run.model(X[150:])
    assert result["loss"] == pytest.approx(F.cross_entropy(outputs, Y[150:]).item(), rel=1e-6)
    assert result["accuracy"] == accuracy(outputs, Y[150:]).item()
    assert run.evaluate("train")["loss"] > 0
    with pytest.raises(TaskError, match="has no test data"):
        run.evaluate("test")


def test_dict_and_tuple_outputs_reach_the_metrics_whole():
    class Both(Net):
        def forward(self, x):
            return {"logits": super().forward(x), "pair": (x, x)}

    seen = {}

    def metric(outputs, targets):
        seen.update(n=len(outputs["logits"]), pair=len(outputs["pair"][1]), y=len(targets))
        return 1

    task = make(
        model=Both, loss=lambda o, y: F.cross_entropy(o["logits"], y), metrics={"m": metric}
    )
    assert solo(task).evaluate("val")["m"] == 1.0
    assert seen == {"n": 50, "pair": 50, "y": 50}


def test_lbfgs_gets_its_closure_with_the_same_noise_at_every_call():
    run = solo(optimizer=lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4), steps=5)
    chunk = run.advance(5)
    again = solo(optimizer=lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4), steps=5)
    assert np.array_equal(chunk.loss, again.advance(5).loss)
    assert run.optimizer.state_dict()["state"][0]["n_iter"] > 5


def test_frozen_parameters_stay_and_are_not_handed_to_the_optimizer():
    class Frozen(Net):
        def __init__(self):
            super().__init__()
            self.conv.requires_grad_(requires_grad=False)

    run = solo(make(model=Frozen))
    before = run.weights()
    run.advance(10)
    assert torch.equal(run.weights()["conv.weight"], before["conv.weight"])
    assert not torch.equal(run.weights()["fc.weight"], before["fc.weight"])
    assert len(run.optimizer.param_groups[0]["params"]) == 4


def test_a_schedule_multiplies_every_groups_own_rate_also_a_tensor():
    def grouped(parameters):
        first, *rest = parameters
        return torch.optim.Adam(
            [{"params": [first], "lr": torch.tensor(1e-3)}, {"params": rest, "lr": 1e-2}]
        )

    run = solo(optimizer=grouped, schedule=lambda step, total: 0.5**step, steps=4)
    chunk = run.advance(3)
    assert chunk.lr.tolist() == pytest.approx([1e-3, 5e-4, 2.5e-4])
    rates = [float(g["lr"]) for g in run.optimizer.param_groups]
    assert rates == pytest.approx([2.5e-4, 2.5e-3])


def test_schedule_free_optimizers_are_switched_around_an_evaluation():
    log = []

    class Switching(torch.optim.SGD):
        def train(self):
            log.append("train")

        def eval(self):
            log.append("eval")

    run = solo(optimizer=lambda p: Switching(p, lr=0.1))
    log.clear()  # a stranger's step is tried once, on a parameter of its own, when it is made
    run.advance(2)
    run.evaluate("val")
    run.advance(1)
    assert log == ["train", "eval", "train", "train"]


# -- the same start, the same order --------------------------------------------------------------


def test_start_and_order_are_the_same_for_every_optimizer_and_differ_between_seeds():
    hashes = set()
    for optimizer in (adam, sgd, torch.optim.RMSprop, torch.optim.Adadelta):
        run = solo(optimizer=optimizer, seed=7)
        run.advance(20)
        hashes.add((run.start_hash, run.order_hash))
    assert len(hashes) == 1
    other = solo(seed=8)
    other.advance(20)
    assert not {(other.start_hash, other.order_hash)} & hashes
    assert other.start_hash not in {h for h, _ in hashes}


def test_the_leak_of_a_copied_state_dict_would_be_noticed():
    """The classical mistake: ``state_dict().copy()`` copies references, so that the second
    optimizer starts where the first one ended."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    start = model.state_dict().copy()

    def leaking():
        model.load_state_dict(start)  # believed to go back to the start
        return model

    def copied():
        fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        fresh.load_state_dict(start)
        return fresh

    with pytest.raises(TaskError, match="same object twice"):
        solo(make(model=leaking))
    first = solo(make(model=copied), optimizer=adam)
    with torch.no_grad():  # what the first optimizer would have done to the shared tensors
        model[1].weight.add_(1e-7)
    second = solo(make(model=copied), optimizer=sgd)
    assert first.start_hash != second.start_hash


def test_another_order_would_be_noticed(monkeypatch):
    first = solo()
    first.advance(9)

    def swapped(seed, epoch, n):
        order = batch_order(seed, epoch, n)
        order[[0, 1]] = order[[1, 0]]
        return order

    monkeypatch.setattr("steepest.train.data.batch_order", swapped)
    second = solo()
    second.advance(9)
    assert first.order_hash != second.order_hash


def test_the_users_random_state_and_tensors_are_untouched():
    def outside():
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            X.sum().item(),
        )

    before = outside()
    run = solo(make())
    run.advance(15)
    run.evaluate("val")
    run.weights()
    run.restore(run.state())
    assert outside() == before


def test_what_happened_before_a_run_changes_nothing_in_it():
    first = solo()
    a = first.advance(20).loss
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    second = solo()
    b = np.concatenate([second.advance(n).loss for n in (1, 12, 7)])
    assert np.array_equal(a, b)
    assert bits(first) == bits(second)


def test_evaluating_changes_nothing_in_a_run():
    first, second = solo(), solo()
    first.advance(10)
    for _ in range(10):
        second.advance(1)
        second.evaluate("val")
        second.evaluate("train")
    assert bits(first) == bits(second)
    assert first.order_hash == second.order_hash


# -- divergence ----------------------------------------------------------------------------------


def breaking_at(step, value=math.nan):
    """A task whose loss is not finite from its training step ``step`` on."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 5)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

        def forward(self, x):
            out = self.fc(x.flatten(1))
            if self.training:
                self.steps += 1
                if self.steps > step:
                    out = out + value
            return out

    return make(model=Counting, metrics={})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_non_finite_loss_stops_the_run_before_its_update(value):
    task = breaking_at(5, value)
    run, healthy = solo(task), solo(task)
    healthy.advance(5)
    chunk = run.advance(50)
    assert chunk.diverged_at == run.diverged_at == 5
    assert len(chunk.loss) == len(chunk.lr) == 6
    assert np.isfinite(chunk.loss[:5]).all()
    assert not np.isfinite(chunk.loss[5])
    assert run.position == 5
    for name, weight in healthy.weights().items():
        assert torch.equal(run.weights()[name], weight)
    assert len(run.advance(10).loss) == 0

    again = solo(task)
    again.restore(run.state())
    assert again.diverged_at == 5
    assert len(again.advance(10).loss) == 0


def test_a_huge_rate_is_recorded_as_divergence():
    chunk = solo(linear(), optimizer=lambda p: torch.optim.SGD(p, lr=1e38)).advance(60)
    assert chunk.diverged_at is not None
    assert chunk.diverged_at == len(chunk.loss) - 1


def test_the_end_of_the_run_ends_it():
    run = solo(steps=10)
    assert len(run.advance(8).loss) == 8
    assert len(run.advance(8).loss) == 2
    assert len(run.advance(8).loss) == 0


# -- bad input -----------------------------------------------------------------------------------


def test_what_cannot_run_is_refused():
    with pytest.raises(InputError, match="unknown device 'gpu0'"):
        solo(device="gpu0")
    with pytest.raises(InputError, match="device must be 'cpu' or 'cuda', got 'meta'"):
        solo(device="meta")
    with pytest.raises(InputError, match="steps >= 0, got -1"):
        solo(steps=-1)
    with pytest.raises(TaskError, match="a batch of 500 is larger than the data"):
        solo(batch_size=500)


def test_an_optimizer_that_cannot_be_made_is_told():
    with pytest.raises(InputError, match="could not be made: ValueError: Invalid learning rate"):
        solo(optimizer=lambda p: torch.optim.Adam(p, lr=-1))
    with pytest.raises(InputError, match=r"must return a torch.optim.Optimizer, got list"):
        solo(optimizer=list)

    class NoRate(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})

        def step(self, closure=None):
            pass

    assert math.isnan(solo(optimizer=NoRate).advance(1).lr[0])
    with pytest.raises(InputError, match="has no 'lr' in its parameter groups"):
        solo(optimizer=NoRate, schedule=lambda step, total: 1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without CUDA")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(InputError, match="sees no CUDA device; use 'cpu'"):
        solo(device="cuda")


def test_a_model_that_fails_in_the_middle_is_a_task_error_not_a_traceback():
    def loss(outputs, targets):
        if loss.calls > 8:
            raise ValueError("bad label")
        loss.calls += 1
        return F.cross_entropy(outputs, targets)

    loss.calls = 0
    run = solo(make(loss=loss, metrics={}))
    with pytest.raises(TaskError, match=r"loss raised ValueError: bad label; .*float32\[16, 5\]"):
        run.advance(20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_runs_repeat_restore_and_stop_exactly():
    case = {"task": linear(), "device": "cuda"}
    whole, begun, resumed = solo(**case), solo(**case), solo(**case)
    losses = whole.advance(30).loss
    first = begun.advance(13).loss
    resumed.restore(begun.state())
    assert np.array_equal(np.concatenate([first, resumed.advance(17).loss]), losses)
    task = breaking_at(5)
    run, healthy = solo(task, device="cuda"), solo(task, device="cuda")
    healthy.advance(5)
    assert run.advance(50).diverged_at == 5
    assert torch.equal(run.weights()["fc.weight"], healthy.weights()["fc.weight"])


class Reader(nn.Module):
    """An embedding, a matrix and a last layer: only the names say which is which."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.middle = nn.Linear(16, 16)
        self.head = nn.Linear(16, 8)

    def forward(self, x):
        return self.head(torch.tanh(self.middle(self.embedding(x).mean(1))))


@pytest.mark.parametrize("rule", ["muon", "soap", "cautious(muon)"])
def test_rules_for_matrices_are_told_names_alone_and_in_a_population(rule: str) -> None:
    words = torch.randint(0, 30, (40, 5), generator=torch.Generator().manual_seed(0))
    task = Task(
        name="words",
        model=Reader,
        loss=nn.functional.cross_entropy,
        train=(words, words[:, 0] % 8),
        batch_size=10,
    )
    factory = functools.partial(build, rule, lr=0.01)
    alone = SoloRun(task, optimizer=factory, schedule=None, seed=0, steps=8)
    by_name = {one.name: one.rule for one in alone.optimizer.assignments}
    outside = {by_name["embedding.weight"], by_name["head.weight"]}
    assert rule not in outside
    assert by_name["middle.weight"] == rule
    population = Population(task, [Member(factory, None, 0), Member(factory, None, 1)], steps=8)
    expected = alone.advance(4).loss
    assert population.advance(4)[0].loss == pytest.approx(expected, rel=1e-4)
    again = SoloRun(task, optimizer=factory, schedule=None, seed=0, steps=8)
    again.restore(alone.state())
    assert again.advance(4).loss.tolist() == alone.advance(4).loss.tolist()
