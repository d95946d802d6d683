"""docs/dialects.md is what its command writes, and leaves out no row of the table."""

from __future__ import annotations

from pathlib import Path

from steepest import rules
from steepest.rules._dialects import DIALECTS
from steepest.testing import dialects_page

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == dialects_page.page(), (
        "write it again: python -m steepest.testing.dialects_page"
    )


def test_every_measured_row_and_every_choice_is_on_the_page():
    text = dialects_page.page()
    assert [row.path for row in DIALECTS if f"| `{row.path}` |" not in text] == []
    for name in rules.names():
        for option in dialects_page.choices_of(rules.get(name)):
            section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
            assert f"| `{option}` |" in section


def test_a_row_stands_once():
    listed = [
        (row.rule, row.path)
        for name in rules.names()
        for row in dialects_page.rows_of(rules.get(name))
    ]
    assert sorted(listed) == sorted((row.rule, row.path) for row in DIALECTS)


def test_it_writes_where_it_is_told(tmp_path, capsys):
    dialects_page.main([str(tmp_path / "page.md")])
    dialects_page.main(["-"])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == capsys.readouterr().out
