"""A tuned race that never ran: its ledger is written by hand, with numbers that are made up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from steepest.racing.ledger import Ledger
from steepest.racing.records import (
    Addition,
    Evaluation,
    PlannedRun,
    PlannedTrial,
    Progress,
    Selection,
)
from steepest.racing.result import Result
from steepest.tune import FIRST_TUNING_SEED, Range, Space, propose

SPACES = {
    "adamw": Space({"lr": Range(1e-4, 1e-1), "weight_decay": Range(5e-3, 1.0)}, rule="adamw"),
    "sgd(lr=0.001..0.1)": Space({"lr": Range(1e-3, 1e-1)}, rule="sgd"),
}
BEST = {"adamw": 3e-3, "sgd(lr=0.001..0.1)": 0.3}  # sgd's lies beyond its space


def tuned_ledger(
    folder: Path,
    *,
    trials: int = 16,
    tuning_seeds: int = 2,
    seeds: int = 8,
    steps: int = 200,
    given: str | None = "adam(lr=0.001)",
    defaults: bool = True,
    stage: str = "final",
    target: float | None = 0.97,
    level: float = 0.95,
    spaces: Mapping[str, Space] = SPACES,
) -> Result:
    """Write the ledger of a race with two tuned arms; one of them has its best at an edge.

    Args:
        folder: Where it lies.
        spaces: Of the tuned arms, by label, if they are others than those two.
        trials: Of each tuned arm; the fastest rates of sgd diverge.
        tuning_seeds: Of each trial.
        seeds: Of the final stage.
        steps: Of every run.
        given: Text of a third arm, that was given and not tuned; None: there is none.
        defaults: The defaults of the tuned arms ran too.
        stage: ``final``: finished; ``tuning``: half of the tuning stage is done.
        target: On validation accuracy.
        level: Of the verdict.
    """
    labels = [*spaces, *([given] if given else [])]
    higher = {"metric": "accuracy", "higher_is_better": True, "value": None}
    finals = tuple(FIRST_TUNING_SEED + i for i in range(tuning_seeds))
    spec = {
        "task": "mnist-mlp", "train_on": "train", "arms": {a: a for a in labels}, "steps": steps,
        "seeds": list(range(seeds)), "steps_per_epoch": steps // 4, "batch_size": 32,
        "eval_every": steps // 4, "watch": "val", "decides": {"split": "test", **higher},
        "target": {**higher, "split": "val", "value": target} if target else None,
        "device": "cpu", "level": level, "min_effect": 0.0, "epochs": 4.0,
        "tuning": {
            "method": "sobol", "trials": trials, "seeds": list(finals), "rungs": [[trials, steps]],
            "chooses": {"split": "val", **higher}, "budget": "quick", "widen": 0,
            "defaults": defaults,
        },
    }  # fmt: skip
    arms = [
        {"label": label, "text": label, "kind": "rule", "name": label.partition("(")[0],
         "values": {} if label in spaces else {"lr": 0.001}, "schedule": None, "source": "",
         "space": spaces[label].spec() if label in spaces else None}
        for label in labels
    ]  # fmt: skip
    meta = {
        "spec": spec, "created": "2025-03-01T10:00:00Z", "finished": "2025-03-01T10:09:12Z",
        "command": "steepest race mnist-mlp --arms adamw 'sgd(lr=1e-3..1e-1)' --budget quick",
        "environment": {"steepest": "0.1.0", "torch": "2.13.0", "cores": 2, "threads": 2},
        "fingerprint": {"train": "0f" * 32}, "task_spec": "mnist-mlp",
        "spaces": {label: [space.spec()] for label, space in spaces.items()},
    }  # fmt: skip
    rows = list(_trials(labels, spaces, trials, defaults=defaults))
    runs = [
        PlannedRun(f"a{t.arm_id}-t{t.number}-s{seed}", t.trial_id, "tuning", seed, steps)
        for seed in finals
        for t in rows
        if t.role == "candidate"
    ]
    rng = np.random.default_rng(7)
    by_id = {t.trial_id: t for t in rows}
    with Ledger.create(folder, meta=meta, arms=arms, trials=rows, runs=runs) as ledger:
        done = runs if stage == "final" else runs[: len(runs) // 2]
        scores: dict[int, list[float]] = {}
        for run in done:
            trial = by_id[run.trial_id]
            value = _run(ledger, rng, run, labels[trial.arm_id], trial.values["lr"])
            scores.setdefault(run.trial_id, []).append(value)
        if stage == "tuning":
            return Result(folder)
        chosen = {}
        for arm_id in range(len(spaces)):
            of_arm = {k: v for k, v in scores.items() if by_id[k].arm_id == arm_id}
            chosen[arm_id] = max(of_arm, key=lambda k: float(np.nan_to_num(np.mean(of_arm[k]))))
        last = [
            PlannedRun(
                f"a{t.arm_id}-{'d-' if t.role == 'defaults' else ''}s{seed}",
                t.trial_id, "final", seed, steps, wave=1,
            )
            for seed in range(seeds)
            for t in rows
            if t.role != "candidate" or t.trial_id in chosen.values()
        ]  # fmt: skip
        selections = tuple(
            Selection(
                arm_id,
                trial_id,
                float(np.mean(scores[trial_id])),
                tuple(map(str, spaces[labels[arm_id]].edges(by_id[trial_id].values))),
            )
            for arm_id, trial_id in chosen.items()
        )
        ledger.add(Addition(runs=tuple(last), selections=selections))
        for run in last:
            trial = by_id[run.trial_id]
            _run(ledger, rng, run, labels[trial.arm_id], trial.values.get("lr", 1e-3))
        ledger.put_look(range(seeds))
    return Result(folder)


def _trials(
    labels: list[str], spaces: Mapping[str, Space], trials: int, *, defaults: bool
) -> Iterable[PlannedTrial]:
    number = 0
    for arm_id, label in enumerate(labels):
        if label not in spaces:
            yield PlannedTrial(number, arm_id, 0, "fixed", 0, None, {"lr": 0.001})
            number += 1
            continue
        space = spaces[label]
        for i, values in enumerate(propose(space, method="sobol", trials=trials, seed=0)):
            point = tuple(space.position(values).tolist())
            yield PlannedTrial(number, arm_id, i, "candidate", 0, point, values)
            number += 1
        if defaults:
            yield PlannedTrial(number, arm_id, -1, "defaults", 0, None, {})
            number += 1


def _run(ledger: Ledger, rng: np.random.Generator, run: PlannedRun, label: str, lr: float) -> float:
    """Write a run; its validation accuracy at the end, NaN if it diverged."""
    ledger.begin_run(run.run_id, start_hash=f"{run.seed % 100:02d}" * 32)
    diverges = label == "adamw" and lr > 0.06
    done = run.steps // 3 if diverges else run.steps
    at = np.arange(1, done + 1)
    decades = np.log10(lr / BEST.get(label, 3e-3))
    loss = (0.1 + 0.1 * decades**2 + 2.2 * np.exp(-at / 40)) * rng.gamma(20, 1 / 20, done)
    if diverges:
        loss[-1] = np.nan
    best = 0.98 - 0.02 * decades**2 + rng.normal(0, 0.001)
    evaluations = []
    value = float("nan")
    for step in range(run.steps // 4, done + 1, run.steps // 4):
        value = float(best - 0.1 * np.exp(-4 * step / run.steps))
        evaluations += [
            Evaluation(step, "val", "accuracy", value),
            Evaluation(step, "val", "loss", 3 * (1 - value)),
        ]
    if run.stage == "final" and not diverges:
        evaluations += [
            Evaluation(done, "test", "accuracy", value - 0.002),
            Evaluation(done, "test", "loss", 3 * (1.002 - value)),
        ]
    ledger.commit(
        Progress(
            run_id=run.run_id,
            status="diverged" if diverges else "done",
            steps_done=done,
            first_step=1,
            curves={
                "train_loss": loss.astype(np.float32),
                "lr": np.full(done, lr, np.float32),
            },
            evaluations=evaluations,
            seconds={step: 0.003 * step for step in range(run.steps // 4, done + 1, run.steps // 4)}
            | {done: 0.003 * done},
            order_hash=f"{run.seed % 100:02d}" * 8,
            diverged_at=done if diverges else None,
        )
    )
    return float("nan") if diverges else value
