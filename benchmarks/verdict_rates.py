"""How often is a verdict wrong, and how often does it find what is there? For docs/statistics.md.

python benchmarks/verdict_rates.py            about five minutes on one core
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np

from steepest.stats import compare, decide_all, decide_looks, seeds_for_power
from steepest.stats.tests import sign_flip


def same_arms(repeats: int, seed: int) -> None:
    """Arms that are the same in law: any decision is a wrong one."""
    print("\n| arms | seeds | runs that diverge | wrong verdicts in % (nominal: at most 5) |")
    print("| --: | --: | --: | --: |")
    for arms, n, lost in [(2, 5, 0), (2, 6, 0), (2, 10, 0), (4, 10, 0), (8, 12, 0), (2, 10, 0.2)]:
        rng, wrong = np.random.default_rng([seed, arms, n]), 0
        tries = 5 * repeats if arms == 2 else repeats
        for _ in range(tries):
            runs = rng.normal(size=(arms, n)) + rng.normal(size=n)  # seeds in common
            runs[rng.random(runs.shape) < lost] = np.nan
            samples = {str(i): row for i, row in enumerate(runs)}
            verdicts = decide_all(samples, higher_is_better=True)
            wrong += any(v.decision != "undecided" for v in verdicts)
        print(f"| {arms} | {n} | {100 * lost:.0f} % | {_share(wrong, tries)} |", flush=True)


def looking_again(repeats: int, seed: int) -> None:
    """The same arms looked at after 6, 8, … 16 seeds, until a difference is "found"."""
    looks = [6, 8, 10, 12, 14, 16]
    rng, wrong, naive = np.random.default_rng([seed, 77]), 0, 0
    for _ in range(repeats):
        a, b = rng.normal(size=(2, looks[-1]))
        samples = {"a": a, "b": b}
        wrong += decide_looks(samples, looks, higher_is_better=True)[0].decision != "undecided"
        naive += any(compare(a[:n], b[:n], higher_is_better=True).p_value <= 0.05 for n in looks)
    print("\n| six looks, 6 to 16 seeds | wrong verdicts in % |\n| --- | --: |")
    print(f"| `decide_looks` | {_share(wrong, repeats)} |")
    print(f"| the 5 % test at each look | {_share(naive, repeats)} |", flush=True)


def promised_power(repeats: int, seed: int) -> None:
    """Differences of known size, with the number of seeds that was promised to find them."""
    print("\n| difference / its deviation | α of the pair | seeds | found in % (promised: 80) |")
    print("| --: | --: | --: | --: |")
    for effect, alpha in itertools.product((3.0, 1.5, 1.0, 0.75, 0.5), (0.05, 0.05 / 3, 0.05 / 28)):
        n = seeds_for_power(effect, alpha=alpha)
        if n is None:
            continue
        rng = np.random.default_rng([seed, n])
        tries = repeats // 4 if 16 < n <= 20 else repeats
        found = sum(sign_flip(rng.normal(effect, 1, n)).p_value() <= alpha for _ in range(tries))
        print(f"| {effect} | {alpha:.4f} | {n} | {_share(found, tries)} |", flush=True)


def _share(count: int, of: int) -> str:
    share = count / of
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / of):.1f}"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        f"{arguments.repeats:,} simulations per row (five times as many for two arms that are the "
        f"same), ± one standard error; numpy {np.__version__}, seed {arguments.seed}"
    )
    for table in (same_arms, looking_again, promised_power):
        table(arguments.repeats, arguments.seed)


if __name__ == "__main__":
    main()
