"""Is a verdict over real training as often wrong, and right, as it says? For docs/statistics.md.

python benchmarks/calibration.py              a minute and a half on two cores

Thousands of real runs (logistic regression on MNIST, `--steps` steps of 32 examples, test accuracy)
are trained in populations and dealt out to small races, no run to two races of a table:

* the same arm under two names, on other seeds each: the same law and other bits, so any decision is
  a wrong one;
* an arm with a small, real disadvantage, with the number of seeds that was promised to find it.

(On the same seeds a rate of 1.0000001e-3 ends at the accuracy of 1e-3 in every run: zeros prove
nothing.)
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from steepest import tasks
from steepest.racing.arm import parse
from steepest.stats import Comparison, compare, decide_looks, look_level, seeds_for_power
from steepest.train.population import Member, Population

LOOKS = (6, 9, 12)
SIZE = 250  # members of a population

Reals = np.ndarray


def accuracies(text: str, seeds: range, *, steps: int) -> Reals:
    """Test accuracy of an arm after so many steps, for each seed; in percent."""
    task, arm = tasks.load("mnist-logreg"), parse(text)
    found: list[float] = []
    for start in range(seeds.start, seeds.stop, SIZE):
        members = [
            Member(arm.factory(), arm.schedule, seed)
            for seed in range(start, min(start + SIZE, seeds.stop))
        ]
        population = Population(task, members, steps=steps)
        population.advance(steps)
        found += [100 * row["accuracy"] for row in population.evaluate("test") if row is not None]
    return np.array(found)


def races(a: Reals, b: Reals, n: int) -> list[tuple[Reals, Reals]]:
    """Small races of two arms, no run in two of them."""
    count = len(a) // n
    return list(zip(a[: count * n].reshape(-1, n), b[: count * n].reshape(-1, n), strict=True))


def verdict(a: Reals, b: Reals, looks: Sequence[int]) -> tuple[bool, Comparison]:
    """Whether a race is decided after these looks, and the comparison."""
    pair = decide_looks({"a": a, "b": b}, looks, higher_is_better=True)[0]
    return pair.decision != "undecided", pair.comparison


def the_same(name: str, a: Reals, b: Reals) -> None:
    """Wrong verdicts, and intervals that hold zero, where there is no difference."""
    for looks in ((6,), (12,), LOOKS):
        of = races(a, b, looks[-1])
        found = [verdict(x, y, looks) for x, y in of]
        wrong = sum(decided for decided, _ in found)
        inside = sum(c.low <= 0 <= c.high for _, c in found)
        text = ", ".join(map(str, looks))
        print(f"| {name} | {text} | {len(of)} | {_share(wrong, len(of))} | "
              f"{_share(inside, len(of))} |", flush=True)  # fmt: skip


def planted(name: str, a: Reals, b: Reals) -> None:
    """How often a difference is found with as many seeds as were promised to find it."""
    alpha = 1 - look_level(0.95, 1)
    difference = a - b
    effect = difference.mean() / difference.std(ddof=1)
    n = seeds_for_power(abs(effect), alpha=alpha)
    if n is None or n > len(a) // 20:
        raise SystemExit(f"{name}: the difference is too small for this many runs; plant another")
    of = races(a, b, n)
    found = sum(verdict(x, y, (n,))[0] for x, y in of)
    print(f"| {name} | {difference.mean():+.2f} ± {difference.std(ddof=1):.2f} | all {len(a)} runs "
          f"| {n} | {len(of)} | {_share(found, len(of))} |")  # fmt: skip
    at, tried, decided, asked = 0, 0, 0, []
    while at + 8 <= len(a):
        pilot = compare(a[at : at + 8], b[at : at + 8], higher_is_better=True)
        needed = pilot.seeds_needed
        at += 8
        if pilot.direction or needed is None or at - 8 + needed > len(a):
            continue
        n = max(needed, 9)
        looked = verdict(a[at - 8 : at - 8 + n], b[at - 8 : at - 8 + n], (8, n))
        tried, decided = tried + 1, decided + looked[0]
        asked.append(n)
        at += n - 8
    if tried:
        print(f"| {name} | | each race's first 8 seeds, undecided | median {np.median(asked):.0f} "
              f"| {tried} | {_share(decided, tried)} |")  # fmt: skip


def _share(count: int, of: int) -> str:
    share = count / of
    return f"{100 * share:.1f} ± {100 * math.sqrt(max(share * (1 - share), 1 / of / of) / of):.1f}"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=400)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    begun, steps = time.perf_counter(), arguments.steps
    n = LOOKS[-1] * arguments.races
    one = accuracies("adam(lr=1e-3)", range(n), steps=steps)
    other = accuracies("adam(lr=1e-3)", range(n, 2 * n), steps=steps)
    worse = accuracies("adam(lr=0.99e-3)", range(n), steps=steps)
    print(f"{3 * n:,} runs of {steps} steps, torch {torch.__version__}, numpy "
          f"{np.__version__}; ± one standard error\n")  # fmt: skip
    print(
        "| what has the same law | looks at seeds | races | wrong verdicts in % (at most 5) "
        "| intervals that hold zero in % (at least 95) |\n| --- | --- | --: | --: | --: |"
    )
    the_same("one arm on other seeds", one, other)
    print("\n| planted | difference ± deviation, points | promise from | seeds | races | "
          "found in % (promised: 80) |\n| --- | --: | --- | --: | --: | --: |")  # fmt: skip
    planted("lr 1e-3 and 0.99e-3", one, worse)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
