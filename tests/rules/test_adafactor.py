"""Adafactor against its paper, and against torch.optim.Adafactor."""

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.testing.follow import follow

SHAPES = ((4, 3), (5,), (2, 3, 4))


@pytest.mark.parametrize("rate", ["relative", "scaled", "plain"])
@pytest.mark.parametrize("decay", ["decoupled", "relative"])
@pytest.mark.parametrize(
    ("eps_mode", "eps1"), [("floor", 1e-7), ("floor", 0.7), ("added", 1e-30), ("added", 0.1)]
)
def test_follows_the_paper(agrees, rate, decay, eps_mode, eps1):
    agrees(
        "adafactor",
        SHAPES,
        lr=0.3,
        weight_decay=0.1,
        rate=rate,
        decay=decay,
        eps_mode=eps_mode,
        eps1=eps1,
        eps2=0.5,
        d=1.0,
    )


def test_follows_the_paper_with_a_first_moment(agrees):
    agrees("adafactor", SHAPES, lr=0.1, beta1=0.9, eps_mode="added", eps1=1e-30)


def test_keeps_rows_and_columns_for_matrices_and_everything_for_vectors():
    adafactor = rules.get("adafactor")
    assert adafactor.active_slots({}, ndim=2) == ("row_var", "col_var")
    assert adafactor.active_slots({}, ndim=1) == ("variance",)
    assert adafactor.slots["row_var"].shape((7, 4, 3)) == (7, 4, 1)
    assert adafactor.slots["col_var"].shape((7, 4, 3)) == (7, 1, 3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_is_torchs_adafactor(case, weight_decay):
    run = case(SHAPES, lr=0.3, weight_decay=weight_decay, eps1=0.2, eps2=0.5, d=1.0)
    path, _ = follow(rules.get("adafactor"), run.params, run.grads, run.values)
    params = [torch.nn.Parameter(torch.tensor(p)) for p in run.params]
    theirs = torch.optim.Adafactor(params, weight_decay=weight_decay, eps=(0.2, 0.5), d=1.0)
    for grads, values in zip(run.grads, run.values, strict=True):
        theirs.param_groups[0]["lr"] = values["lr"]
        for p, g in zip(params, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        theirs.step()
    for mine, p in zip(path[-1], params, strict=True):
        np.testing.assert_allclose(mine, p.detach().numpy(), rtol=1e-10)
