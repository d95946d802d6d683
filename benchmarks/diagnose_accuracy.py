"""How often is a finding right, and how often is it missed? For docs/diagnose.md.

python benchmarks/diagnose_accuracy.py                measures: other problems, other seeds
python benchmarks/diagnose_accuracy.py --calibrate    what the thresholds were set on

Each takes some minutes on two cores. The runs are real: `diagnose_runs.py` says what is wrong
with each of them. A finding counts as a false alarm if neither the injected fault nor what that
fault is known to bring along explains it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import stats

import diagnose_runs as runs
from steepest.diagnosing import judge
from steepest.diagnosing.findings import KINDS, TITLES
from steepest.diagnosing.measures import Measures, measure
from steepest.diagnosing.thresholds import THRESHOLDS

# What each threshold is compared with, and the finding that it decides.
DECIDING: tuple[tuple[str, str, Callable[[Measures], float]], ...] = (
    ("exploding", "peak", lambda m: m.rise.peak),
    ("exploding", "lost_again", lambda m: m.rise.back),
    ("never_learning", "learned", lambda m: m.fall),
    ("slow_start", "slow_share", lambda m: m.slow_share),
    ("slow_start", "slow_bend", lambda m: m.slow_bend),
    ("plateau", "flat", lambda m: min(m.flat.high, m.val_flat.high)),
    ("plateau", "converged", lambda m: m.level),
    ("decayed_too_early", "promise", lambda m: m.decay.predicted_low),
    ("decayed_too_early", "kept", lambda m: m.decay.kept),
    ("still_improving", "gain", lambda m: m.val_gain.low),
    ("overfitting", "gap", lambda m: m.gap),
    ("overfitting", "rise", lambda m: m.val_rise),
    ("overfitting", "rise_errors", lambda m: m.val_rise_errors),
    ("underfitting", "no_gap", lambda m: m.gap),
    ("underfitting", "level", lambda m: m.level),
    ("noise", "noise", lambda m: m.noise),
    ("noise", "val_noise", lambda m: m.val_noise),
)


def problems(calibrate: bool) -> list[runs.Problem]:
    """Those that the thresholds were set on, or others."""
    if calibrate:
        return [runs.digits(20_000, 48), runs.teacher(16, 4, 0), runs.rings(1)]
    return [runs.digits(30_000, 24), runs.teacher(10, 3, 5), runs.waves(2)]


def trained(calibrate: bool, seeds: int, healthy: int) -> Iterable[runs.Run]:
    """All runs, with progress on the way."""
    first = 0 if calibrate else 1000
    for problem in problems(calibrate):
        begun = time.perf_counter()
        for condition in runs.CONDITIONS:
            count = seeds if condition.faults else healthy
            yield from runs.train(problem, condition, range(first, first + count))
        print(f"  {problem.name}: {time.perf_counter() - begun:.0f} s", flush=True)


def distributions(found: Sequence[runs.Run]) -> None:
    """Of each deciding number: runs with the fault, and runs where it would be a false alarm."""
    print("\n| finding | threshold | is | with the fault, 5/50/95 % | without, 5/50/95 % |")
    print("| --- | --- | --: | --: | --: |")
    numbers = [(run.condition, measure(run.curves)) for run in found]
    for kind, name, value in DECIDING:
        sides = [
            [value(m) for c, m in numbers if kind in c.faults],
            [value(m) for c, m in numbers if kind not in (*c.faults, *c.allowed)
             and not {"exploding", "never_learning"} & set(c.faults)],
        ]  # fmt: skip
        cells = [
            " / ".join(f"{q:.3g}" for q in np.nanquantile(s, [0.05, 0.5, 0.95])) for s in sides
        ]
        print(f"| {kind} | `{name}` | {getattr(THRESHOLDS, name)} | {cells[0]} | {cells[1]} |")


def accuracy(found: Sequence[runs.Run], *, misses: bool) -> None:
    """Precision and recall per finding, and false alarms on healthy runs."""
    said = [(run, judge(run.curves).kinds) for run in found]
    print("\n| finding | runs with it | found (recall) | right when reported (precision) |")
    print("| --- | --: | --: | --: |")
    for kind in KINDS:
        hits = [kind in kinds for run, kinds in said if kind in run.condition.faults]
        wrong = sum(
            kind in kinds
            for run, kinds in said
            if kind not in (*run.condition.faults, *run.condition.allowed)
        )
        right = sum(hits)
        print(f"| {TITLES[kind]} (`{kind}`) | {len(hits)} | {_share(right, len(hits))} | "
              f"{_share(right, right + wrong)} |")  # fmt: skip
    healthy = [(run, kinds) for run, kinds in said if not run.condition.faults]
    alarms = [(run, kinds) for run, kinds in healthy if kinds]
    print(f"\nHealthy runs with a false alarm: {_share(len(alarms), len(healthy))}.")
    if misses:
        for run, kinds in said:
            wrong_here = set(kinds) - {*run.condition.faults, *run.condition.allowed}
            missed = set(run.condition.faults) - set(kinds)
            if wrong_here or missed:
                print(f"  {run.curves.name}: missed {sorted(missed)}, wrong {sorted(wrong_here)}")


def _share(count: int, of: int) -> str:
    """A share with its 95 % Wilson interval."""
    if not of:
        return "–"
    low, high = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    return f"{count} of {of}: {count / of:.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    """Train, then print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--seeds", type=int, default=4, help="of every condition with a fault")
    parser.add_argument("--healthy", type=int, default=10, help="of every healthy condition")
    parser.add_argument("--misses", action="store_true", help="name every run that went wrong")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    found = list(trained(arguments.calibrate, arguments.seeds, arguments.healthy))
    which = "the runs that the thresholds were set on" if arguments.calibrate else "new runs"
    faulty = sum(bool(run.condition.faults) for run in found)
    print(
        f"{len(found)} training runs, {faulty} of them with an injected fault: {which}; "
        f"{time.perf_counter() - begun:.0f} s, torch {torch.__version__}, one thread"
    )
    if arguments.calibrate:
        distributions(found)
    accuracy(found, misses=arguments.misses)
    print("\nThe same curves without the learning rate:")
    blind = [replace(run, curves=replace(run.curves, lr=None)) for run in found]
    accuracy(blind, misses=False)


if __name__ == "__main__":
    main()
