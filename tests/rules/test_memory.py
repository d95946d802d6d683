"""What a rule says that it remembers is what its optimizer holds."""

from __future__ import annotations

import pytest
import torch

from steepest import optim, rules


@pytest.mark.parametrize("name", rules.names())
@pytest.mark.parametrize("shape", [(9, 5), (7,), (4, 2, 3)])
def test_bytes_are_those_of_the_optimizers_state(name, shape):
    rule = rules.get(name)
    if rule.kind == "matrix" and len(shape) < 2:
        pytest.skip("the auxiliary rule's")
    p = torch.nn.Parameter(torch.ones(shape))
    optimizer = optim.build(name, [{"params": [p], "rule": "matrix"}])
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    held = sum(x.nbytes for x in optimizer.state[p].values() if x.ndim)
    assert rules.state_bytes(rule, shape) == held


@pytest.mark.parametrize("name", rules.names())
def test_formula_gives_the_same_number(name):
    rule, m, n = rules.get(name), 12, 5
    formula = rules.memory_formula(rule).partition(";")[0]
    spelled = formula.replace("mn", f"{m * n}").replace("m²", f"{m**2}").replace("n²", f"{n**2}")
    spelled = spelled.replace("m", str(m)).replace("n", str(n)).replace(" (", " * (")
    assert eval(spelled) == pytest.approx(rules.state_bytes(rule, (m, n)) / (m * n))


def test_single_numbers_are_left_out_and_choices_count():
    assert rules.state_bytes(rules.get("nadam"), (10,)) == 80
    assert rules.state_bytes(rules.get("adam"), (10,), values={"amsgrad": True}) == 120
    assert rules.state_bytes(rules.get("adam"), (10,), itemsize=2) == 40
