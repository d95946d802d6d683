"""What optimizers promise, as checks that authors of rules can run on their own.

>>> from steepest.testing import check_rule
>>> check_rule("sgd")
{}
"""

from steepest.testing.conformance import CHECKS, check_rule, why_skipped
from steepest.testing.oracles import ORACLES

__all__ = ["CHECKS", "ORACLES", "check_rule", "why_skipped"]
