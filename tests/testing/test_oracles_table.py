"""docs/oracles.md is what its command writes, and its numbers are small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steepest import rules
from steepest.testing import oracles_table
from steepest.testing.oracles import ORACLES

PAGE = Path(__file__).parents[2] / "docs" / "oracles.md"


@pytest.fixture(scope="module")
def rows():
    return oracles_table.deviations()


def test_every_rule_is_in_the_table_or_has_an_oracle_of_another_form(rows):
    # Prodigy's oracle is for all tensors at once: tests/rules/test_prodigy.py
    assert {row.rule for row in rows} == set(rules.names()) - {"prodigy"} == set(ORACLES)


def test_float64_is_the_paper_to_a_part_in_a_million_millions(rows):
    # 100 steps of rounding, one part in 4.5e15 each, divided by ways of about 0.1 to 1
    assert {r.rule: r.oracle64 for r in rows if r.oracle64 > 1e-12} == {}


def test_float64_is_torchs_class_wherever_torch_has_one(rows):
    far = {r.rule: r.torch64 for r in rows if r.torch64 is not None and r.torch64 > 1e-12}
    assert set(far) == {"muon"}  # torch runs its Newton-Schulz steps in bfloat16
    assert far["muon"] < 2e-2
    shared = {r.rule for r in rows if r.torch64 is not None}
    expected = (
        "adadelta adafactor adagrad adam adamax adamw asgd muon nadam radam rmsprop rprop sgd"
    )
    assert shared == set(expected.split())


def test_float32_is_as_near_to_the_paper_as_torchs_float32(rows):
    # Both round as often, at different places; 1.5 is what that makes at most. The first term is
    # for the rules that torch does not have: single precision, blown up by signs and small roots.
    for row in rows:
        assert row.oracle32 < 5e-4, row
        if row.torch32 is not None:
            assert row.oracle32 < 1.5 * row.torch32 + 1e-7, row


def test_page_has_the_same_rows_and_deviations_within_a_factor(rows):
    written = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (\S+) \|", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert [(rule, variant) for rule, variant, _ in written] == [(r.rule, r.variant) for r in rows]
    assert all(float(shown) < 1e-12 for _, _, shown in written)


def test_command_writes_the_page_and_prints_it_for_a_dash(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(oracles_table, "deviations", lambda: rows)
    oracles_table.main([str(tmp_path / "page.md")])
    oracles_table.main(["-"])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == capsys.readouterr().out
