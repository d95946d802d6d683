"""Races that never ran: ledgers written by hand, so that every state of a race can be reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steepest.racing.ledger import Evaluation, Ledger, PlannedRun, Progress, Stored, Timing
from steepest.racing.result import Result

LAYERS = {"conv1.weight": 40, "conv1.bias": 8, "fc.weight": 120, "fc.bias": 10}
ARMS = ("adadelta(lr=0.5)", "adam(lr=0.001)", "sgd(lr=0.1, momentum=0.9)", "rmsprop()", "nadam()",
        "adagrad(lr=0.01) + cosine(warmup=0.05)", "radam()", "adamax()", "asgd()", "rprop()",
        "adamw(weight_decay=0.1)", "my.module:Lion(lr=0.0001)")  # fmt: skip


def hand_written(
    folder: Path,
    *,
    arms: Sequence[str] = ARMS[:2],
    seeds: int = 6,
    steps: int = 400,
    evaluations: int = 5,
    splits: Sequence[str] = ("val", "test"),
    target: float | None = 0.97,
    gap: float = 0.0003,
    diverged: Sequence[tuple[int, int]] = (),
    failed: Sequence[tuple[int, int]] = (),
    pending: Sequence[tuple[int, int]] = (),
    unequal: bool = False,
    timings: bool = True,
    weights: bool = True,
    task: str = "mnist",
) -> Result:
    """A finished race over made-up numbers.

    Args:
        folder: Where it lies.
        arms: Labels.
        seeds: Their number.
        steps: Of every run.
        evaluations: On the way, on the first split.
        splits: What the task has; the last one decides.
        target: On validation accuracy.
        gap: How much better each arm is than the next, in accuracy.
        diverged: Arms (by number) and seeds that diverged half way.
        failed: Those that failed.
        pending: Those that never started.
        unequal: Seed 0 of the second arm started elsewhere.
        timings: There was a timing pass.
        weights: Nobody deleted the final weights.
        task: Its name.
    """
    rng = np.random.default_rng(3)
    per_epoch = max(1, steps // evaluations)
    decides = {"split": splits[-1] if splits else "train", "metric": "accuracy",
               "higher_is_better": True, "value": None}  # fmt: skip
    aim = {**decides, "split": "val", "value": target}
    labels = list(arms)
    spec = {
        "task": task, "train_on": "train", "arms": {a: a for a in labels}, "steps": steps,
        "seeds": list(range(seeds)), "steps_per_epoch": per_epoch, "batch_size": 32,
        "eval_every": per_epoch, "watch": "val" if "val" in splits else "train",
        "decides": decides, "target": aim if target is not None and "val" in splits else None,
        "device": "cpu", "level": 0.95, "min_effect": 0.0, "epochs": steps / per_epoch,
    }  # fmt: skip
    meta = {
        "spec": spec,
        "created": "2025-03-01T10:00:00Z",
        "finished": None if pending else "2025-03-01T10:09:12Z",
        "command": f"steepest race {task} --arms {' '.join(map(repr, labels))} --seeds {seeds}",
        "environment": {"steepest": "0.1.0", "torch": "2.13.0", "python": "3.12.4",
                        "cpu": "AMD EPYC 9B14", "cores": 2, "threads": 2,
                        "memory_bytes": 8 * 2**30},
        "fingerprint": {"train": "0f" * 32, "model": "a1" * 32, "loss": "nll_loss"},
        "task_spec": task,
    }  # fmt: skip
    settings = [
        {"label": a, "text": a, "kind": "rule", "name": a.partition("(")[0], "values": {"lr": 0.1},
         "schedule": a.partition(" + ")[2] or None, "source": ""}
        for a in labels
    ]  # fmt: skip
    plan = [
        PlannedRun(f"a{n}-s{seed}", n, "final", seed, steps)
        for seed in range(seeds)
        for n in range(len(labels))
    ]
    with Ledger.create(folder, meta=meta, arms=settings, runs=plan) as ledger:
        for seed in range(seeds):
            start = {name: torch.randn(size) for name, size in LAYERS.items()}
            save_file(start, folder / f"start-{seed}.safetensors")
            ledger.put_start(Stored(f"start-{seed}.safetensors", "start", None, seed, 0, "00"))
            luck = rng.normal(0, 0.0008)
            for number in range(len(labels)):
                if (number, seed) in pending:
                    continue
                end = "done"
                end = "diverged" if (number, seed) in diverged else end
                end = "failed" if (number, seed) in failed else end
                _run(
                    ledger, rng, number, seed, steps=steps, end=end, luck=luck - gap * number,
                    every=per_epoch, splits=splits, weights=weights, start=start,
                    other_start=unequal and (number, seed) == (1, 0),
                )  # fmt: skip
        for number in range(len(labels)) if timings else ():
            slow = 1 + 0.2 * number
            ledger.put_timings(number, _timings(slow))
        ledger.put_event("engine", "solo: two cores, convolutions: nothing to gain from batching")
    return Result(folder)


def _timings(slow: float) -> list[Timing]:
    return [
        Timing("step_ms", 3.65 * slow, 3.6 * slow, 3.8 * slow, 50),
        Timing("step_ratio", slow, 0.97 * slow, 1.03 * slow, 50),
        Timing("optimizer_ms", 0.09 * slow, 0.088 * slow, 0.1 * slow, 50),
        Timing("epoch_seconds", 5.7 * slow, 5.6 * slow, 5.9 * slow, 50),
        Timing("state_bytes", 2.4e6 * slow, None, None, 1),
        Timing("state_bytes_per_parameter", 8.0, None, None, 1),
    ]


def _run(
    ledger: Ledger,
    rng: np.random.Generator,
    number: int,
    seed: int,
    *,
    steps: int,
    end: str,
    luck: float,
    every: int,
    splits: Sequence[str],
    weights: bool,
    start: dict[str, torch.Tensor],
    other_start: bool,
) -> None:
    run = f"a{number}-s{seed}"
    ledger.begin_run(run, start_hash=("ff" if other_start else f"{seed:02d}") * 32)
    done = steps if end == "done" else max(1, steps // 2)
    at = np.arange(1, done + 1)
    speed = 1 + 0.3 * number
    loss = 2.3 * np.exp(-at / (0.05 * steps) / speed) + 0.05 + 0.03 * number / len(LAYERS)
    loss = loss * rng.gamma(3, 1 / 3, done)
    if end == "diverged":
        loss[-1] = np.nan
    lr = 0.001 * (1 + number) * (np.linspace(1, 0.01, done) if number % 2 else np.ones(done))
    where = list(range(every, done + 1, every))
    watched = [split for split in splits if split != "test"] or ["train"]
    rows = [
        Evaluation(step, split, *pair)
        for step in where
        for split in watched
        for pair in _numbers(rng, step / steps, luck)
    ]
    if end == "done" and "test" in splits:
        rows += [Evaluation(done, "test", *pair) for pair in _numbers(rng, 1.0, luck)]
    stored = None
    if end == "done":
        finals = {k: v + 0.4 * torch.randn_like(v) + 0.1 for k, v in start.items()}
        if weights:
            save_file(finals, ledger.folder / f"{run}.safetensors")
        stored = Stored(f"{run}.safetensors", "final", run, seed, done, "00")
    ledger.commit(
        Progress(
            run_id=run,
            status=end,  # type: ignore[arg-type]
            steps_done=done,
            first_step=1,
            curves={"train_loss": loss.astype(np.float32), "lr": lr.astype(np.float32)},
            evaluations=rows,
            stored=stored,
            seconds={step: 0.0037 * step * (1 + 0.1 * number) for step in {*where, done}},
            order_hash=f"{seed:02d}{done:06d}" * 8,
            diverged_at=done if end == "diverged" else None,
            message="RuntimeError: shapes do not match" if end == "failed" else None,
        )
    )


def _numbers(rng: np.random.Generator, share: float, luck: float) -> list[tuple[str, float]]:
    accuracy = 0.989 - 0.05 * np.exp(-4 * share) + luck + rng.normal(0, 0.0004)
    return [("accuracy", float(accuracy)), ("loss", float(3 * (1 - accuracy)))]


@pytest.fixture
def hand_written_race(tmp_path: Path) -> Callable[..., Result]:
    """Write a ledger by hand; see `hand_written`."""

    def make(**options: Any) -> Result:
        return hand_written(tmp_path / f"race-{len(list(tmp_path.iterdir()))}", **options)

    return make
