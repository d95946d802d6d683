"""Rules import no framework, and a registered rule says what it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from steepest import rules


def test_importing_the_rules_imports_no_framework():
    code = (
        "import sys, steepest.rules; "
        "frameworks = {'torch', 'jax', 'keras', 'tensorflow', 'optax', 'numpy', 'scipy'}; "
        "print(sorted(frameworks & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_running_a_rule_on_floats_imports_no_framework():
    code = (
        "import sys; from steepest import rules; "
        "rules.get('adam')(1.0, 0.5, 0.0, 0.0, None, 1); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", rules.names())
def test_rule_names_its_paper_and_has_a_summary_of_one_sentence(name):
    rule = rules.get(name)
    assert rule.paper.startswith(("arXiv:", "https://", "http://"))
    assert rule.summary.strip()


@pytest.mark.parametrize("name", rules.names())
def test_every_hyperparameter_has_a_domain_that_holds_its_default(name):
    rule = rules.get(name)
    for key, default in rule.hyperparameters.items():
        assert default in rules.DOMAINS[key], key


def test_radam_does_not_divide_by_zero_where_its_rectification_has_a_pole():
    # beta2 = 0.6 makes rho_inf = 4, where the rectification's denominator vanishes
    step, *_ = rules.get("radam")(1.0, 0.5, 0.0, 0.0, 3, lr=0.1, beta2=0.6)
    assert step == pytest.approx(-0.1 * 0.05 / (1 - 0.9**3))


def test_rprop_keeps_its_factors_in_the_precision_of_the_parameter():
    import torch

    size = torch.tensor([1.0], dtype=torch.float64)
    g = torch.ones(1, dtype=torch.float64)
    _, _, new = rules.get("rprop")(g, g, g, size, 2)
    assert new.item() == 1.2
