"""Other people's optimizers: same bits after an interruption, untouched by evaluations."""

import pytest
import pytorch_optimizer
import schedulefree
import solo_runs
import torch
from torch import nn

from steepest import optim
from steepest.errors import InputError, UnsupportedError
from steepest.racing.arm import parse, resolve
from steepest.racing.plan import plan
from steepest.train.population import Member, Population
from steepest.train.strangers import asks_again

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def sam(parameters):
    return pytorch_optimizer.SAM(
        parameters, base_optimizer=torch.optim.SGD, lr=0.05, momentum=0.9, rho=0.05
    )


STRANGERS = {
    "schedulefree-adamw": lambda p: schedulefree.AdamWScheduleFree(p, lr=1e-2, warmup_steps=3),
    "schedulefree-sgd": lambda p: schedulefree.SGDScheduleFree(p, lr=0.1),
    "schedulefree-radam": lambda p: schedulefree.RAdamScheduleFree(p, lr=1e-2),
    "ours": lambda p: optim.ScheduleFreeAdamW(p, lr=1e-2),
    "soap": lambda p: pytorch_optimizer.SOAP(p, lr=3e-3, precondition_frequency=2),
    "lion": lambda p: pytorch_optimizer.Lion(p, lr=1e-3),
    "prodigy": pytorch_optimizer.Prodigy,
    "adan": lambda p: pytorch_optimizer.Adan(p, lr=1e-3),
    "sam": sam,
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stopped_run_goes_on_bitwise_and_evaluations_leave_no_trace(name):
    whole, first, second = (
        solo_runs.solo(optimizer=STRANGERS[name], seed=2, steps=12) for _ in range(3)
    )
    whole.advance(12)
    first.advance(5)
    first.evaluate("val")
    first.weights()
    second.weights()
    second.restore(first.state())
    second.evaluate("val")
    second.advance(3)
    second.evaluate("train")
    second.advance(4)
    assert solo_runs.bits(second) == solo_runs.bits(whole)
    assert second.evaluate("val") == whole.evaluate("val")


@pytest.mark.parametrize("name", ["schedulefree-adamw", "schedulefree-sgd"])
def test_what_is_evaluated_is_the_average_and_what_is_trained_is_not(name):
    run = solo_runs.solo(optimizer=STRANGERS[name], seed=2, steps=12)
    run.advance(12)
    by_hand = solo_runs.solo(optimizer=STRANGERS[name], seed=2, steps=12)
    by_hand.advance(12)
    by_hand.optimizer.eval()
    shown = run.weights()
    for key, p in by_hand.model.named_parameters():
        assert torch.equal(shown[key], p)
    trained = dict(run.model.named_parameters())
    assert not all(torch.equal(shown[key], trained[key]) for key in shown)


@pytest.mark.parametrize("name", ["schedulefree-adamw", "ours", "soap", "lion"])
def test_a_member_equals_its_solo_run(name):
    task = solo_runs.make(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 5))
    )
    population = Population(task, [Member(STRANGERS[name], None, s) for s in (0, 1)], steps=8)
    population.advance(4)
    population.evaluate("val")
    population.advance(4)
    for place, seed in enumerate((0, 1)):
        run = solo_runs.solo(task, optimizer=STRANGERS[name], seed=seed, steps=8)
        run.advance(8)
        for key, tensor in population.weights(place).items():
            torch.testing.assert_close(tensor, run.weights()[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("lbfgs", True), ("sam", True), ("soap", False), ("schedulefree-sgd", False), ("ours", False)],
)
def test_who_asks_again_is_found_out(name, expected):
    net = nn.Linear(3, 2)
    optimizer = STRANGERS[name](net.parameters())
    assert asks_again(optimizer, STRANGERS[name]) is expected


def test_sam_equals_its_two_passes_by_hand():
    task = solo_runs.make(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    run = solo_runs.solo(task, optimizer=sam, seed=0, steps=5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    net.load_state_dict(run.model.state_dict())
    base = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for k in range(5):
        x, y = run._stream.source.batch(run._stream.indices(k))
        nn.functional.cross_entropy(net(x), y).backward()
        norm = sum(p.grad.square().sum() for p in net.parameters()).sqrt()
        moved = [0.05 * p.grad / (norm + 1e-12) for p in net.parameters()]
        with torch.no_grad():
            for p, by in zip(net.parameters(), moved, strict=True):
                p.add_(by)
        net.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for p, by in zip(net.parameters(), moved, strict=True):
                p.sub_(by)
        base.step()
        net.zero_grad()
    run.advance(5)
    for p, q in zip(run.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_a_population_leaves_those_who_ask_again_to_solo():
    with pytest.raises(UnsupportedError, match=r"SAM asks for the loss again within a step"):
        Population(solo_runs.TASK, [Member(sam, None, 0)], steps=2)


def test_texts_name_them():
    arm = parse("schedulefree:AdamWScheduleFree(lr=0.01, warmup_steps=3)")
    assert type(arm.factory()([nn.Parameter(torch.ones(2))])).__name__ == "AdamWScheduleFree"
    assert parse("pytorch_optimizer:SOAP(lr=3e-3)").values == {"lr": 3e-3}
    with pytest.raises(InputError, match=r"cannot import module 'bitsandbytes.optim'"):
        parse("bitsandbytes.optim:AdamW8bit(lr=1e-3)")


class NeedsGraph(torch.optim.SGD):
    """As AdaHessian does: it differentiates the gradients once more."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                torch.autograd.grad(p.grad.sum(), p)


class OnCuda(torch.optim.SGD):
    """As the 8-bit optimizers of bitsandbytes do on the CPU."""

    def step(self, closure=None):
        raise NotImplementedError("Could not run 'bnb::update' with arguments from 'CPU'")


def test_a_step_that_cannot_be_done_is_refused_before_the_race():
    with pytest.raises(InputError, match=r"'graph' does not fit task 't': RuntimeError: .*grad"):
        plan(solo_runs.TASK, {"graph": NeedsGraph})
    with pytest.raises(
        InputError, match=r"'bnb' does not .* it seems to run on CUDA only: say --dev"
    ):
        plan(solo_runs.TASK, {"bnb": OnCuda})
    assert plan(solo_runs.TASK, resolve({"sam": sam})).spec.arms[0].label == "sam"
