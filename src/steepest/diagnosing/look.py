"""From recorded curves to named findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.diagnosing.findings import Diagnosis
from steepest.diagnosing.judging import judge
from steepest.diagnosing.readers import read

__all__ = ["look"]


def look(
    source: Any,
    *,
    baseline: float | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> Diagnosis:
    """Read curves and say what they show; the arguments are those of `read`."""
    return Diagnosis(tuple(judge(c) for c in read(source, baseline=baseline, columns=columns)))
