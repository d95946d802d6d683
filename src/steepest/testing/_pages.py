"""Where a generated page of the documentation goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_page"]


def write_page(text: str, arguments: Sequence[str], *, default: str) -> None:
    """Write a page to the file that the command line names, or to the default; ``-`` prints it."""
    target = arguments[0] if arguments else default
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")
