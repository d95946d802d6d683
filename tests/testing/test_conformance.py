"""Every registered rule passes every check of the conformance suite."""

from __future__ import annotations

import pytest

from steepest import rules
from steepest.testing import CHECKS, check_rule, why_skipped

CASES = [
    pytest.param(rules.get(name), label, id=f"{name}: {label}")
    for name in rules.names()
    for label in CHECKS
    if why_skipped(rules.get(name), label) is None
]


@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize(("rule", "label"), CASES)
def test_rule_keeps_the_promise(rule, label, engine):
    CHECKS[label](rule, engine)


def test_checks_that_make_no_sense_are_left_out_with_a_reason():
    left_out = check_rule("lars")
    assert left_out["size does not matter"] == "a rule of kind norms sees whole tensors"
    assert "follows its oracle" not in left_out


def test_a_wrong_oracle_is_noticed():
    def a_little_too_far(p, g, t, s, h):
        return p - 1.001 * h.lr * (g + h.weight_decay * p)

    with pytest.raises(AssertionError, match=r"against the oracle: .* apart after a way of"):
        check_rule("sgd", oracle=a_little_too_far)
