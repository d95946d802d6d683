"""What learning curves say: named findings, with their evidence and what to do.

curves.py      what is looked at
readers/       from files, folders and objects to curves
signals.py     levels, trends, noise, with how sure
measures.py    the numbers on which findings are decided
thresholds.py  where findings begin
judging.py     from numbers to findings
findings.py    findings as values and as sentences
"""

from steepest.diagnosing.curves import Curves, Series
from steepest.diagnosing.findings import Diagnosis, Finding, Group, RunDiagnosis, Span
from steepest.diagnosing.judging import judge
from steepest.diagnosing.look import look
from steepest.diagnosing.readers import read

__all__ = [
    "Curves",
    "Diagnosis",
    "Finding",
    "Group",
    "RunDiagnosis",
    "Series",
    "Span",
    "judge",
    "look",
    "read",
]
