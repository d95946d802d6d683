"""Small tables with something to learn in them, and a cache of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import ENGLISH, KOREAN, rows_of, write_csv


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def english(tmp_path: Path) -> Path:
    """``mails.csv``: 120 rows, two classes."""
    return write_csv(tmp_path / "mails.csv", [("text", "label"), *rows_of(ENGLISH, 120)])


@pytest.fixture
def korean(tmp_path: Path) -> Path:
    """``메일.csv`` as Korean Windows writes it: 120 rows, two classes."""
    rows = [("본문", "분류"), *rows_of(KOREAN, 120)]
    return write_csv(tmp_path / "메일.csv", rows, encoding="cp949")
