"""What other libraries mean by the same names: which values make a rule follow their class.

Measured by ``python benchmarks/dialects.py``: 120 steps in float64 with a rate that changes every
step, once at the library's defaults and once with decay and a large eps; ``off`` is the larger of
the two largest distances from the library's parameters, as a part of the distance travelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.rules._dialect import Dialect
from steepest.rules._dialects_frameworks import FRAMEWORKS
from steepest.rules._dialects_packages import PACKAGES

__all__ = ["DIALECTS", "PAPERS", "VERSIONS", "Dialect"]

VERSIONS = {
    "keras": "3.15.1",
    "lion-pytorch": "0.2.5",
    "optax": "0.2.8",
    "prodigyopt": "1.1.2",
    "pytorch_optimizer": "4.1.0",
    "schedulefree": "1.4.1",
    "timm": "1.0.31",
    "torch": "2.13.0",
    "torch-optimi": "0.3.3",
    "transformers": "5.23.0",
}
"""The versions that were looked at and measured."""

DIALECTS: tuple[Dialect, ...] = (*FRAMEWORKS, *PACKAGES)
"""Every row that was measured; `Dialect.exact` says which the rules follow to rounding."""

PAPERS: Mapping[str, Mapping[str, Any]] = {
    "adafactor": {"eps_mode": "added", "eps1": 1e-30},  # algorithms 4 to 6
    "adamax": {"eps": 0.0},  # algorithm 2 has none
    "ademamix": {"alpha_slow": 5.0},  # most of its experiments; 2.0 is the authors' code
    "cautious(adamw)": {"caution_scale": "paper"},
    "cautious(lion)": {"caution_scale": "paper"},
    "radam": {"threshold": 4.0, "eps": 0.0},  # algorithm 2
    "rmsprop": {"alpha": 0.9, "eps": 0.0},  # slide 29
    "schedulefree_adamw": {"correction": "rate"},  # algorithm 1
    "sgd": {"lr_place": "buffer"},  # equations 1 and 2
}
"""What makes a rule its paper's where its defaults are torch's or those of the authors' code.

Two differences have no value: AMSGrad's paper corrects no bias; Prodigy's has ε times the d of
before the step, and the code that of after it.
"""
