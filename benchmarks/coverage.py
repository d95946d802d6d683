"""How often do intervals for a mean difference hold the true one? The table of docs/statistics.md.

    python benchmarks/coverage.py                 about five minutes on one core
    python benchmarks/coverage.py --repeats 500   a quick look

Every line is computed from the same simulated differences: what differs is the method alone.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy
from scipy.stats import DegenerateDataWarning, bootstrap

from steepest.stats import sign_flip_interval, student_interval

Array = npt.NDArray[np.float64]

# each with mean 0; variances differ, which none of the methods cares about
DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy-tailed (t, 3 df)": lambda rng, shape: rng.standard_t(3, size=shape),
    "multiples of 1/3 (ties)": lambda rng, shape: np.round(rng.normal(size=shape) * 3) / 3,
}


def bca(x: Array, level: float, seed: int) -> tuple[Array, Array]:
    """scipy.stats.bootstrap over all rows at once."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # rows of equal values: a point
        ends = bootstrap(
            (x,),
            np.mean,
            axis=-1,
            confidence_level=level,
            n_resamples=1_999,
            batch=50,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return ends.low, ends.high


def bootstrap_t(x: Array, level: float, seed: int) -> tuple[Array, Array]:
    """The bootstrap distribution of (mean* - mean)/se*, in place of Student's table."""
    rng, (repeats, n) = np.random.default_rng(seed), x.shape
    ends = np.empty((2, repeats))
    for i, row in enumerate(x):
        drawn = row[rng.integers(n, size=(1_999, n))]
        errors = drawn.std(axis=1, ddof=1)
        gaps = drawn.mean(axis=1) - row.mean()
        rounded = errors < 1e-12  # all n draws the same value: the ratio is infinite
        infinite = np.where(gaps == 0, 0.0, np.copysign(np.inf, gaps))
        ratios = np.where(rounded, infinite, gaps / np.where(rounded, 1, errors))
        low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        spread = row.std(ddof=1)
        ends[:, i] = row.mean() - high * spread, row.mean() - low * spread
    return ends[0], ends[1]


def by_row(
    method: Callable[[Array, float], tuple[float, float]],
) -> Callable[..., tuple[Array, Array]]:
    """A method for one sample, over all rows."""

    def rows(x: Array, level: float, seed: int) -> tuple[Array, Array]:
        ends = np.array([method(row, level) for row in x])
        return ends[:, 0], ends[:, 1]

    return rows


METHODS: dict[str, Callable[[Array, float, int], tuple[Array, Array]]] = {
    "BCa": bca,
    "Student t": by_row(student_interval),
    "bootstrap-t": bootstrap_t,
    "sign-flip": by_row(sign_flip_interval),
}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4_000)
    parser.add_argument("--level", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 6, 10, 20, 50])
    arguments = parser.parse_args()
    repeats, level = arguments.repeats, arguments.level
    error = 100 * math.sqrt(level * (1 - level) / repeats)
    print(
        f"Coverage in % at a nominal {100 * level:g} %, {repeats:,} simulations per cell, "
        f"a quarter of that at n = 20 (standard error {error:.1f}); "
        "in brackets the median width relative to Student's t. "
        f"numpy {np.__version__}, scipy {scipy.__version__}, seed {arguments.seed}.\n"
    )
    print("| differences | n | " + " | ".join(METHODS) + " |")
    print("| --- | --: | " + " | ".join("--:" for _ in METHODS) + " |")
    for name, draw in DIFFERENCES.items():
        for n in arguments.seeds:
            # 2^20 subset means per interval: fewer repeats, the same to within the rounding
            many = repeats if n != 20 else repeats // 4
            x = draw(np.random.default_rng([arguments.seed, n]), (many, n))
            cells, unit = [], 1.0
            for label, method in sorted(METHODS.items(), key=lambda item: item[0] != "Student t"):
                low, high = method(x, level, arguments.seed)
                # BCa of equal values is NaN: its interval is that value
                low, high = (
                    np.where(np.isnan(low), x[:, 0], low),
                    np.where(np.isnan(high), x[:, 0], high),
                )
                width = float(np.median(high - low))
                unit = width if label == "Student t" else unit
                covered = 100 * float(np.mean((low <= 1e-12) & (high >= -1e-12)))
                ratio = f"{width / unit:.2f}" if math.isfinite(width) else "∞"
                cells.append((label, f"{covered:.1f} ({ratio})"))
            row = dict(cells)
            print(
                f"| {name} | {n} | " + " | ".join(row[label] for label in METHODS) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
