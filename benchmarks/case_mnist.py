"""Case studies on MNIST: seven optimizers tuned alike, Adadelta against Adam. Writes both pages.

python benchmarks/case_mnist.py                  half an hour on two cores, one epoch a run
python benchmarks/case_mnist.py --steps 500      ten minutes

The race is the command that stands on the pages; it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

import steepest
from steepest.numbers import p_text
from steepest.racing.result import Result
from steepest.stats import compare, mean_interval, one_seed

PAGES = Path(__file__).parents[1] / "docs" / "case-studies"
ARMS = ("adadelta", "adam", "sgd(momentum=0.9)", "rmsprop", "adagrad", "nadam", "adamw")
COMMAND = (
    "steepest race mnist --arms adadelta adam 'sgd(momentum=0.9)' rmsprop adagrad nadam adamw "
    "--budget standard --defaults --engine processes"
)
METRIC = "test_accuracy"

Values = Mapping[str, np.ndarray]


def finals(result: Result, *, tuned: bool) -> dict[str, np.ndarray]:
    """Final accuracies in percent, per arm in the order of the seeds; of a given arm both times."""
    found: dict[str, np.ndarray] = {}
    for arm in result.arms:
        defaults = [run for run in result.defaults_runs if run.arm == arm.label]
        runs = defaults if defaults and not tuned else result.final_runs
        by_seed = {run.seed: run.metrics.get(METRIC, -math.inf) for run in runs
                   if run.arm == arm.label}  # fmt: skip
        found[arm.label] = np.array([100 * by_seed[seed] for seed in result.seeds])
    return found


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, numbers to the right of the first column."""
    first, *rest = head
    lines = [f"| {first} | {' | '.join(rest)} |", f"| --- |{' --: |' * len(rest)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def order(values: Values) -> list[str]:
    """The arms from best to worst by their mean."""
    return sorted(values, key=lambda arm: -values[arm].mean())


def spread(values: np.ndarray) -> str:
    """Mean and Student's 95 % interval."""
    mean, low, _ = mean_interval(values, 0.95)
    return f"{mean:.2f} ± {mean - low:.2f}"


def one_run(values: Values, name: str) -> str:
    """What a comparison of one run per arm would have claimed."""
    best = order(values)[0]
    claims = one_seed(values, best, higher_is_better=True)
    return (
        f"{name}, `{best}` has the best mean. One run per arm on a common seed names another one "
        f"in {100 * claims.wrong:.0f} % of the {claims.seeds} seeds, and with a seed of its own "
        f"for every arm in {100 * claims.wrong_unpaired:.0f} % of all choices."
    )


def _length(result: Result) -> str:
    return "" if result.spec["epochs"] == 1 else f" --steps {result.spec['steps']}"


def seven(result: Result) -> str:
    """The page about all arms."""
    tuned, given = finals(result, tuned=True), finals(result, tuned=False)
    ranks = {arm: order(given).index(arm) + 1 for arm in given}
    rows = []
    for place, arm in enumerate(order(tuned), start=1):
        chosen = result.chosen(arm)
        setting = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"
                            for k, v in (chosen.searched if chosen else {}).items())  # fmt: skip
        trials = [t for t in result.trials if t.arm == arm and t.role == "candidate"]
        rows.append((
            f"`{arm}`", str(place), spread(tuned[arm]), setting or "as given",
            str(ranks[arm]), spread(given[arm]),
            f"{sum(t.diverged > 0 for t in trials)} of {len(trials)}" if trials else "–",
        ))  # fmt: skip
    pairs = [
        (f"`{p.a}` − `{p.b}`", f"{100 * p.comparison.difference:+.2f}",
         f"{100 * p.comparison.low:+.2f} … {100 * p.comparison.high:+.2f}",
         p_text(p.p_adjusted), p.decision)
        for p in sorted(result.verdict.pairs, key=lambda p: p.p_adjusted)
    ]  # fmt: skip
    decided = sum(pair.decision != "undecided" for pair in result.verdict.pairs)
    environment = result.protocol()["environment"]
    tuning = result.tuning
    assert tuning is not None
    return f"""# Seven optimizers on MNIST, tuned alike

```console
$ {COMMAND}{_length(result)}
```

The ConvNet of the package, runs of {result.spec["steps"]:,} steps ({
        result.spec["epochs"]:.2g} epochs), {len(result.seeds)} seeds;
{tuning.trials} trials of {
        tuning.method
    } for every arm that is tuned, on validation data. Seven arms are
{
        len(result.verdict.pairs)
    } pairs, and it takes 11 seeds for the smallest of so many p-values to fall below 5 %.
Everything below was written by `python benchmarks/case_mnist.py{_length(result)}`; torch {
        environment["torch"]
    },
{environment["threads"]} threads, {environment["processor"]}.

## Verdict

{decided} of {
        len(pairs)
    } pairs are decided (95 % for all of them, and for seeds added later); all of them stand
at the end of this page. Of the tuning:

{chr(10).join(f"- {said}" for said in result.verdict.tuning_sentences)}

## As given, and tuned

{
        table(
            (
                "arm",
                "rank, tuned",
                "test accuracy, tuned, %",
                "its setting",
                "rank, as given",
                "as given, %",
                "trials that diverged",
            ),
            rows,
        )
    }

"As given" are torch's defaults on the same seeds; ± is half of Student's 95 % interval.
`sgd(momentum=0.9)` was written with a value and without a range, so it ran at the default rate of 1e-3
and was not tuned: its place says something about that setting and nothing about momentum.

## What one run would have claimed

{one_run(given, "As given")}

{one_run(tuned, "Tuned")}

## Every pair of tuned arms

{table(("pair", "difference, points", "interval", "adjusted p", "verdict"), pairs)}
"""


def two(result: Result) -> str:
    """The page about Adadelta and Adam."""
    a, b = "adadelta", "adam"
    tuned, given = finals(result, tuned=True), finals(result, tuned=False)
    lines = []
    for name, values in (("as given", given), ("tuned alike", tuned)):
        x, y = values[a], values[b]
        c = compare(x, y, higher_is_better=True)
        lines.append((
            name, spread(x), spread(y), f"{c.difference:+.2f}", f"{c.low:+.2f} … {c.high:+.2f}",
            p_text(c.p_value), f"{int((x > y).sum())} : {int((y > x).sum())}",
        ))  # fmt: skip
    right = np.round(100 * given[b]) - np.round(100 * given[a])
    apart = [abs(int(i - j)) for k, i in enumerate(np.round(100 * given[b]))
             for j in np.round(100 * given[b])[:k]]  # fmt: skip
    costs = [
        (f"`{arm}`", *(
            f"{row.value:.4g} ({row.low:.4g} … {row.high:.4g})"
            for row in (result.timings[arm][k] for k in ("step_ms", "epoch_seconds"))
        ))
        for arm in (a, b)
    ]  # fmt: skip
    layers: dict[str, dict[str, float]] = {}
    for row in result.layer_differences():
        if {row.arm_a, row.arm_b} <= {a, b}:
            key = row.arm_a if row.is_yardstick else "between"
            layers.setdefault(row.layer, {})[key] = row.relative_distance
    rows = [
        (f"`{layer}`", f"{d['between']:.2f}", f"{d[a]:.2f}", f"{d[b]:.2f}")
        for layer, d in layers.items()
    ]
    larger = sum(d["between"] > max(d[a], d[b]) for d in layers.values())
    pair = next(s for s in result.verdict.pairs if {s.a, s.b} == {a, b})
    return f"""# Adadelta or Adam on MNIST?

A write-up trains each once and counts 9,890 against 9,902 of the 10,000 test images right: Adam wins by 12
images. This page is about the same question with {
        len(result.seeds)
    } seeds, with defaults and tuned alike. Its
race is that of [seven optimizers](mnist-seven.md), and it was written by `python benchmarks/case_mnist.py{
        _length(result)
    }`.

## How many images?

As given (torch's defaults, {result.spec["steps"]:,} steps), Adam minus Adadelta is, seed by seed,
{", ".join(f"{int(d):+d}" for d in right)} images. Two seeds of Adam alone differ by {
        int(np.median(apart))
    } images
in the median and by up to {max(apart)}.

{
        table(
            (
                "",
                "Adadelta, %",
                "Adam, %",
                "difference, points",
                "95 % interval",
                "p, this pair alone",
                "seeds ahead",
            ),
            lines,
        )
    }

Among all pairs of the race, tuned: {pair.decision}{
        "" if pair.decision == "undecided" else f" (`{pair.a}` against `{pair.b}`)"
    }, adjusted p = {p_text(pair.p_adjusted)}.

## Time

Measured in a pass of its own in which the arms take turns; median and quartiles:

{table(("arm", "ms per step", "seconds per epoch"), costs)}

## Where in the network do they differ?

Relative distance of the final weights of each layer: between the two optimizers on the same seed, and, as a
yardstick, between two seeds of one optimizer.

{table(("layer", "Adadelta to Adam", "two seeds of Adadelta", "two seeds of Adam"), rows)}

In {larger} of {
        len(layers)
    } layers the optimizers are further apart than two seeds of either. Two seeds start
from different weights and two optimizers on one seed from the same, so a distance between optimizers says
little about what they found; it would take one larger than the yardstick to say more.
"""


def main() -> None:
    """Run or finish the race, and write both pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist-seven"))
    parser.add_argument("--steps", type=int, help="Of every run; default: one epoch.")
    given = parser.parse_args()
    result = steepest.race("mnist", list(ARMS), budget="standard", defaults=True,
                           engine="processes", steps=given.steps, out=given.out)  # fmt: skip
    PAGES.mkdir(exist_ok=True)
    (PAGES / "mnist-seven.md").write_text(seven(result))
    (PAGES / "adadelta-adam-mnist.md").write_text(two(result))


if __name__ == "__main__":
    main()
