"""A race as large as a report has to bear: eight tuned arms, ten seeds, thousands of steps."""

from __future__ import annotations

from pathlib import Path

from tuned_ledger import tuned_ledger

from steepest.racing.ledger import Ledger
from steepest.racing.records import Timing
from steepest.racing.result import Result
from steepest.tune import Range, Space

RULES = ("adamw", "sgd", "nadam", "adam", "rmsprop", "radam", "adamax", "adagrad")
SPACES = {rule: Space({"lr": Range(1e-4, 1e-1)}, rule=rule) for rule in RULES}
SPACES["adamw"] = Space({"lr": Range(1e-4, 1e-1), "weight_decay": Range(5e-3, 1.0)}, rule="adamw")


def large_ledger(folder: Path, *, steps: int = 3440, seeds: int = 10) -> Result:
    """Eight arms x 16 trials x 2 tuning seeds, and 8 x 10 final runs with as many of the defaults.

    Args:
        folder: Where it lies.
        steps: Of every run; two epochs of MNIST in batches of 32.
        seeds: Of the final stage.
    """
    tuned_ledger(folder, spaces=SPACES, trials=16, tuning_seeds=2, seeds=seeds, steps=steps,
                 given=None)  # fmt: skip
    with Ledger.write(folder) as ledger:
        for number in range(len(RULES)):
            ledger.put_timings(number, _timings(1 + 0.1 * number))
    return Result(folder)


def _timings(slow: float) -> list[Timing]:
    return [
        Timing("step_ms", 0.5 * slow, 0.49 * slow, 0.52 * slow, 50),
        Timing("step_ratio", slow, 0.97 * slow, 1.03 * slow, 50),
        Timing("optimizer_ms", 0.05 * slow, 0.048 * slow, 0.06 * slow, 50),
        Timing("epoch_seconds", 0.9 * slow, 0.88 * slow, 0.95 * slow, 50),
        Timing("state_bytes", 8e5 * slow, None, None, 1),
    ]
