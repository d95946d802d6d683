"""Write docs/oracles.md: how far every rule is from its paper and from torch.optim.

python -m steepest.testing.oracles_table            writes docs/oracles.md
python -m steepest.testing.oracles_table -          prints it
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from steepest import optim, rules
from steepest.rules import Rule
from steepest.testing._pages import write_page
from steepest.testing.follow import Trajectory, follow_oracle
from steepest.testing.oracles import ORACLES
from steepest.testing.trials import Trial, hard_values, train, trial

__all__ = ["Deviation", "deviations", "main", "page"]

# Nearly square: the first gradient of an 8 x 4 matrix leaves four of SOAP's eight axes open, and
# LAPACK's choice of them is not the same in NumPy and in torch.
_SHAPES = [(6, 5), (7, 7)]


_ABOUT = """\
Every row is 100 steps of two matrices (6 × 5 and 7 × 7) whose gradients change by orders of
magnitude and are missing one time in ten, with weight decay 0.1, ε = 0.01 and momentum 0.9 where
the rule has them (unless the row says otherwise), and a learning rate that changes every step. The
oracles are float64 NumPy, written from the papers (`steepest/testing/oracles*.py`). A deviation is
the largest difference of any element after any step, divided by the longest way that any element
has gone. torch.optim.Muon runs its Newton-Schulz steps in bfloat16 for every parameter."""


@dataclass(frozen=True)
class Deviation:
    """The largest difference over all steps and elements, over the longest way of any element.

    Attributes:
        rule: The rule's name.
        variant: The values that are neither default nor common to all rows.
        oracle64: Our float64 against the float64 oracle.
        oracle32: Our float32 against it.
        torch64: Our float64 against torch's float64; None where torch has no such class.
        torch32: Torch's own float32 against the float64 oracle.
    """

    rule: str
    variant: str
    oracle64: float
    oracle32: float
    torch64: float | None
    torch32: float | None


_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adam": [{}, {"amsgrad": True}],
    "rmsprop": [{"momentum": 0.0}, {"centered": True}],
    "sgd": [{"momentum": 0.0}, {}, {"dampening": 0.5}, {"nesterov": True}],
    "adagrad": [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}],
    "nadam": [{}, {"decay": "decoupled"}],
    "radam": [{}, {"decay": "decoupled"}],
}


def deviations() -> list[Deviation]:
    """Measure every rule that has an oracle."""
    given = trial(_SHAPES, steps=100)
    return [
        _measure(rules.get(name), variant, given)
        for name in rules.names()
        if name in ORACLES
        for variant in _VARIANTS.get(name, [{}])
    ]


def _measure(rule: Rule, variant: Mapping[str, Any], given: Trial) -> Deviation:
    values = {**hard_values(rule), **variant}
    lr = rule.hyperparameters["lr"]
    changing = [{**values, "lr": lr * rate} for rate in given.rates]
    expected = follow_oracle(ORACLES[rule.name], rule, given.params, given.grads, changing)

    def ours(dtype: torch.dtype) -> Trajectory:
        built = optim.build(rule.name, _parameters(given, dtype), lr=lr, engine="eager", **values)
        return train(built, given)

    def theirs(dtype: torch.dtype) -> Trajectory | None:
        built = optim.build(rule.name, _parameters(given, dtype), lr=lr, **values)
        cls = getattr(torch.optim, type(built).__name__, None)
        if cls is None or not hasattr(optim, type(built).__name__):
            return None
        taken = inspect.signature(cls).parameters
        entries = {k: v for k, v in built.defaults.items() if k in taken}
        return train(cls(_parameters(given, dtype), **entries), given)

    default = torch.get_default_dtype()
    try:  # torch keeps single numbers of the state (NAdam's product of μ) in the default dtype
        torch.set_default_dtype(torch.float64)
        ours64, theirs64 = ours(torch.float64), theirs(torch.float64)
        torch.set_default_dtype(torch.float32)
        ours32, theirs32 = ours(torch.float32), theirs(torch.float32)
    finally:
        torch.set_default_dtype(default)
    return Deviation(
        rule=rule.name,
        variant=", ".join(f"{k}={v}" for k, v in variant.items()),
        oracle64=_deviation(ours64, expected, given),
        oracle32=_deviation(ours32, expected, given),
        torch64=None if theirs64 is None else _deviation(ours64, theirs64, given),
        torch32=None if theirs32 is None else _deviation(theirs32, expected, given),
    )


def _parameters(given: Trial, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor(p, dtype=dtype)) for p in given.params]


def _deviation(path: Trajectory, other: Trajectory, given: Trial) -> float:
    way = max(
        float(np.abs(x - start).max())
        for tensors in other
        for x, start in zip(tensors, given.params, strict=True)
    )
    pairs = [pair for a, b in zip(path, other, strict=True) for pair in zip(a, b, strict=True)]
    return max(float(np.abs(x - y).max()) for x, y in pairs) / way


def page(rows: list[Deviation]) -> str:
    """The page as Markdown."""

    def shown(x: float | None) -> str:
        return "–" if x is None else f"{x:.1e}"

    versions = f"torch {torch.__version__.split('+')[0]} and NumPy {np.__version__}"
    lines = [
        "# Every rule against its paper and against torch.optim",
        "",
        "Written by `python -m steepest.testing.oracles_table`; a test measures it again.",
        "",
        textwrap.fill(_ABOUT, 100),
        "",
        f"Measured with {versions}, on the eager engine.",
        "",
        "| rule | values | ours, float64, from the oracle | ours, float32, from the oracle "
        "| torch, float32, from the oracle | ours from torch, float64 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{row.rule}` | {row.variant} | {shown(row.oracle64)} | {shown(row.oracle32)} "
        f"| {shown(row.torch32)} | {shown(row.torch64)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Write the page to the given file, docs/oracles.md by default; ``-`` prints it."""
    write_page(page(deviations()), arguments, default="docs/oracles.md")


if __name__ == "__main__":
    main(sys.argv[1:])
