"""Many steps, and steps inside of a compiled function."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from steepest import optim

CLASSES = sorted(set(optim.__all__) - {"Facade", "build", "from_rule"})
RUNS = [(name, "auto") for name in CLASSES] + [(name, "eager") for name in ("Adam", "Adan", "Muon")]


def parameters(n=3):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(5, 5)) for _ in range(n)]


def bytes_held(optimizer):
    return sum(
        x.nbytes
        for held in optimizer.state.values()
        for x in held.values()
        if isinstance(x, torch.Tensor)
    )


@pytest.mark.parametrize(("name", "engine"), RUNS)
def test_thousand_steps_leave_no_objects_and_no_memory_behind(name, engine):
    params = parameters()
    optimizer = getattr(optim, name)(params, lr=1e-3, engine=engine)

    def train(steps):
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 + step % 3)
            for p in params:
                p.grad = torch.full_like(p, 0.1)
            optimizer.step()
            if step % 50 == 0 and hasattr(optimizer, "eval"):
                optimizer.eval()
                optimizer.train()

    train(50)
    gc.collect()
    held, objects = bytes_held(optimizer), len(gc.get_objects())
    tracemalloc.start()
    try:
        train(250)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        train(700)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert bytes_held(optimizer) == held
    assert len(gc.get_objects()) - objects < 50
    # up to 9,000 bytes of noise however many the steps; the smallest tensor per step were 50,000
    assert grown < 20_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["AdamW", "Muon", "ScheduleFreeAdamW", "Prodigy"])
def test_compiled_training_step_is_the_plain_one_and_other_rates_compile_nothing_again(name):
    """The optimizer is left out of the graph: its step is a kernel already, or not traceable.

    `torch.compile` breaks the graph there (a step that depends on numbers on the host would be
    compiled anew for each of them); what comes before is compiled once.
    """
    compiled = CompileCounterWithBackend("aot_eager")
    runs = []
    for through in (lambda f: torch.compile(f, backend=compiled), lambda f: f):
        torch._dynamo.reset()
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
        optimizer = getattr(optim, name)(network.parameters(), lr=0.01)

        def step(x, network=network, optimizer=optimizer):
            loss = network(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        step = through(step)
        losses, frames = [], []
        for k in range(8):
            x = torch.randn(4, 8, generator=torch.Generator().manual_seed(k))
            for group in optimizer.param_groups:
                group["lr"] = 0.01 / (k + 1)
                group["weight_decay"] = 0.01 * (k + 1)
            losses.append(step(x).item())
            frames.append(compiled.frame_count)
        runs.append((losses, frames))
    (ours, frames), (plain, _) = runs
    assert ours == pytest.approx(plain, rel=1e-5)
    assert frames[0] > 0
    assert frames[-1] == frames[2]
