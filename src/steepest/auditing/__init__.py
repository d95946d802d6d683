"""Is this optimizer what it says it is? `audit` says which dialect of a rule it follows."""

from steepest.auditing.examine import audit
from steepest.auditing.findings import Audit, Finding, Row

__all__ = ["Audit", "Finding", "Row", "audit"]
