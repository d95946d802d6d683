"""Time an optimizer's step: ours beside torch.optim's, on four layouts.

    python benchmarks/step.py                                    everything, about ten minutes
    python benchmarks/step.py --rules adam nadam --layouts ConvNet
    python benchmarks/step.py --repeats 51 --threads 2

Ratios are medians of ratios within a round, in which every way has its turn; on a machine that
others use too they say more than milliseconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import warnings
from pathlib import Path

import torch

from steepest.optim.bench import LAYOUTS, bandwidth, measure_steps

RULES = (
    *("sgd", "adam", "adamw", "adagrad", "rmsprop", "adadelta"),
    *("nadam", "radam", "adamax", "asgd", "rprop"),
)


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rules", nargs="+", default=RULES, metavar="RULE")
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="default: all")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="also torch.compile; slow")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load = os.getloadavg()[0]
    print(f"{processor()}, {options.threads} threads, load {load:.1f}; torch {torch.__version__}")
    print(f"float32, CPU, medians of {options.repeats} interleaved rounds")
    memory = bandwidth()
    print(f"memory: copy {memory.copy:.1f} GB/s, triad {memory.triad:.1f} GB/s")
    for name in options.layouts:
        layout = LAYOUTS[name]
        print(f"\n{name}: {len(layout.shapes)} tensors, {layout.elements:,} elements")
        print(f"{'rule':10} {'way':15} {'ms':>10} {'GB/s':>8} {'of triad':>9} {'x kernel':>9}")
        for rule in options.rules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.compile's own
                timings = measure_steps(
                    rule,
                    layout,
                    repeats=options.repeats,
                    ways=options.ways,
                    compiled=options.compiled,
                )
            for timing in timings:
                rate = timing.gigabytes_per_second
                print(
                    f"{rule:10} {timing.way:15} {timing.milliseconds:10.4f} {rate:8.1f} "
                    f"{rate / memory.triad:9.0%} {timing.ratio:9.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
