"""A run cut at any step and restored from a file goes on bitwise equal."""

import random

import numpy as np
import pytest
import torch
from solo_runs import Net, X, Y, bits, make, sgd, solo
from torch.utils.data import DataLoader, Dataset, TensorDataset

from steepest.errors import InputError
from steepest.train.checkpoint import load, save


class Augmented(Dataset):
    def __len__(self):
        return 150

    def __getitem__(self, i):
        return X[i] + 0.1 * torch.randn(1), Y[i]


def bf16_net():
    return Net().bfloat16()


class Float32Slots(torch.optim.SGD):
    """Keeps a float32 slot for bfloat16 parameters, which ``load_state_dict`` would round."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                slot = self.state[p].setdefault("sum", torch.zeros_like(p, dtype=torch.float32))
                slot.mul_(0.9).add_(p.grad.float())
                p.add_(slot.mul(-0.05).to(p.dtype))


CASES = {
    "adam": {},
    "sgd with momentum": {"optimizer": sgd},
    "amsgrad": {"optimizer": lambda p: torch.optim.AdamW(p, amsgrad=True, lr=1e-2)},
    "asgd": {"optimizer": lambda p: torch.optim.ASGD(p, lr=0.05, t0=10)},
    "nadam": {"optimizer": lambda p: torch.optim.NAdam(p, lr=1e-2)},
    "lbfgs": {"optimizer": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2), "steps": 25},
    "a schedule": {"schedule": lambda step, total: 1 - step / total},
    "a dataset that augments": {"task": make(train=Augmented())},
    "a loader": {
        "task": make(
            train=lambda: DataLoader(
                TensorDataset(X, Y), batch_size=16, shuffle=True, drop_last=True
            )
        )
    },
    "float32 slots of bfloat16": {
        "task": make(
            model=bf16_net,
            train=(X.bfloat16(), Y),
            val=None,
            metrics={},
        ),
        "optimizer": lambda p: Float32Slots(p, lr=0.05),
    },
    "channels last": {
        "task": make(model=lambda: Net().to(memory_format=torch.channels_last)),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_restored_from_a_file_at_a_random_step_goes_on_bitwise(case, tmp_path):
    whole = solo(**case)
    steps = whole.steps
    losses = whole.advance(steps).loss
    for cut in random.Random(str(case)).sample(range(steps), 2):
        begun = solo(**case)
        first = begun.advance(cut).loss
        save(tmp_path / "c.safetensors", begun.state())
        begun.advance(3)  # the state is a copy: going on does not change it
        resumed = solo(**case)
        resumed.restore(load(tmp_path / "c.safetensors"))
        assert resumed.position == cut
        rest = np.concatenate([resumed.advance(4).loss, resumed.advance(steps).loss])
        assert np.array_equal(np.concatenate([first, rest]), losses), cut
        assert resumed.order_hash == whole.order_hash
        assert bits(resumed) == bits(whole)


def test_going_back_inside_one_run_is_exact_too():
    run = solo()
    run.advance(10)
    state = run.state()
    losses, after = run.advance(20).loss, bits(run)
    run.restore(state)
    assert np.array_equal(run.advance(20).loss, losses)
    assert bits(run) == after


def test_extra_state_of_modules_is_kept():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.seen = 0

        def forward(self, x):
            self.seen += self.training
            return super().forward(x)

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    task = make(model=Counting)
    run, other = solo(task), solo(task)
    run.advance(7)
    other.restore(run.state())
    assert other.model.seen == 7


@pytest.mark.parametrize(
    ("changes", "name"), [({"seed": 1}, "start_hash|seed"), ({"steps": 41}, "steps")]
)
def test_a_state_of_another_run_is_refused(changes, name):
    state = solo().state()
    with pytest.raises(InputError, match=f"another run: its ({name}) is"):
        solo(**changes).restore(state)
