"""The table of what other libraries mean: it is about rules that exist, and true of torch."""

import importlib

import numpy as np
import pytest
import torch

from steepest import rules
from steepest.rules._dialects import DIALECTS, PAPERS, VERSIONS
from steepest.testing.follow import follow

SHAPES = {"any": [(4, 3), (5,)], "matrix": [(6, 4), (5, 5)], "square": [(6, 6), (5, 5)]}


@pytest.mark.parametrize("row", DIALECTS, ids=lambda row: f"{row.rule} {row.path}")
def test_every_row_names_a_rule_and_values_that_it_takes(row):
    rules.get(row.rule).check({**row.values, **row.stressed})
    assert row.library in VERSIONS
    assert row.exact or row.note, "a row that is off has to say why"
    assert np.isfinite(row.off)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_what_the_papers_have_are_values_other_than_the_defaults(name):
    rule = rules.get(name)
    rule.check(PAPERS[name])
    defaults = {**rule.hyperparameters, **rule.options}
    assert all(defaults[key] != value for key, value in PAPERS[name].items())


def test_no_row_stands_twice():
    keys = [(row.rule, row.path) for row in DIALECTS]
    assert len(set(keys)) == len(keys)


@pytest.fixture
def _numbers_in_float64():
    """torch keeps NAdam's and ASGD's numbers in the default dtype, 1e-8 from the formula's."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_numbers_in_float64")
@pytest.mark.parametrize(
    "row", [row for row in DIALECTS if row.library == "torch"], ids=lambda row: row.rule
)
@pytest.mark.parametrize("stressed", [False, True])
def test_the_rows_about_torch_are_true(case, distance, row, stressed):
    module, name = row.path.split(":")
    make_it = getattr(importlib.import_module(module), name)
    values = {**row.values, **(row.stressed if stressed else {})}
    run = case(SHAPES[row.shapes], lr=1e-2, **values)
    params = [torch.nn.Parameter(torch.tensor(p)) for p in run.params]
    theirs = make_it(params, lr=run.values[0]["lr"], **(row.stress if stressed else {}))
    expected = []
    for grads, now in zip(run.grads, run.values, strict=True):
        theirs.param_groups[0]["lr"] = now["lr"]
        for p, g in zip(params, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        theirs.step()
        expected.append([p.detach().numpy().copy() for p in params])
    path, _ = follow(rules.get(row.rule), run.params, run.grads, run.values)
    assert distance(path, expected) < (1e-12 if row.exact else 3 * row.off)
