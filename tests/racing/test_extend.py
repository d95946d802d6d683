"""Stopping, killing and extending a race with tuned arms."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest.errors import InputError, LedgerError
from steepest.racing.extend import extend
from steepest.racing.folder import open_race, reopen
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Pace, Silent, StoppedError
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.racing.verdict import Sample, judge
from steepest.stats import decide_looks, look_level
from steepest.train.task import Task

SGD = "sgd(lr=1e-2..1) + cosine()"
ADAM = "torch.optim:Adam(lr=1e-3..1e-1)"
GIVEN = "torch.optim:SGD(lr=0.1)"
QUICK = Pace(look=0.0, commit=0.0, timing=0.0)
Race = Callable[..., Result]


def digest(folder: Path) -> str:
    with Ledger.read(folder) as ledger:
        return ledger.content_digest()


class StopAt(Silent):
    """Asks the race to stop at a step of a run, as Ctrl-C does."""

    def __init__(self, run_id: str, step: int) -> None:
        self.at = (run_id, step)

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        if self.at and run_id == self.at[0] and step >= self.at[1]:
            self.at = ("", 0)
            os.kill(os.getpid(), signal.SIGINT)


class DieBetween(Silent):
    """Ends the race when its plan grows, as if the process had been killed right then."""

    def __init__(self, times: int) -> None:
        self.left = times

    def added(self, plan: Any) -> None:
        self.left -= 1
        if not self.left:
            raise MemoryError("killed")


def go_on(folder: Path, task: Task, *, engine: str | None = None, seeds: Any = None) -> Result:
    ledger, planned, _ = reopen(folder, task)
    with ledger:
        if seeds is not None:
            extend(ledger, planned.spec, seeds)
        execute(ledger, planned, task, pace=QUICK, engine=engine)
    return Result(folder)


CASES: list[tuple[dict[str, Any], str, list[tuple[str, int]]]] = [
    ({"method": "sobol"}, "solo", [("a0-t2-s1000000000", 4), ("a1-s1", 7)]),
    ({"method": "sobol"}, "population", [("a0-t2-s1000000000", 4), ("a1-s1", 7)]),
    ({"method": "halving", "steps": 30, "epochs": None}, "population", [("a1-t3-s1000000000", 9)]),
    ({"method": "optuna:tpe", "trials": 6}, "solo", [("a1-t5-s1000000000", 3)]),
    ({"widen": 1}, "population", [("a0-t5-s1000000000", 2)]),
]


@pytest.mark.parametrize(("options", "engine", "stops"), CASES)
def test_a_race_stopped_anywhere_in_either_stage_resumes_to_the_same_bits(
    tmp_path: Path, task: Task, options: dict[str, Any], engine: str, stops: list[tuple[str, int]]
) -> None:
    narrow = "torch.optim:Adam(lr=1e-5..3e-5)"  # at an end of its space, so that it is widened
    settings = {"trials": 4, "seeds": 2, "epochs": 1, "defaults": True, **options}
    settled = plan(task, [SGD, narrow, GIVEN], **settings)
    with open_race(tmp_path / "whole", settled) as ledger:
        execute(ledger, settled, task, pace=QUICK, engine=engine)
    for at in [*stops, 1, 2]:
        folder = tmp_path / f"cut-{at}"
        observer = DieBetween(at) if isinstance(at, int) else StopAt(*at)
        try:
            with open_race(folder, settled) as ledger:
                execute(ledger, settled, task, observer=observer, pace=QUICK, engine=engine)
        except (StoppedError, MemoryError):
            assert not Result(folder).complete or isinstance(at, int)
        else:
            assert isinstance(at, int)  # the plan did not grow so often
            continue
        result = go_on(folder, task, engine=engine)
        assert result.complete
        assert digest(folder) == digest(tmp_path / "whole"), at
    assert os.listdir(tmp_path / "whole" / "checkpoints") == []
    weights = set(os.listdir(tmp_path / "whole" / "weights"))
    assert not any("-t" in name or "s1000000000" in name for name in weights)


KILLED = """
import sys
import torch
torch.set_num_threads(1)
from steepest import tasks
from steepest.racing.folder import open_race
from steepest.racing.observer import Pace, Silent
from steepest.racing.plan import plan
from steepest.racing.run import execute
class Loud(Silent):
    def advanced(self, run_id, step, total, loss):
        print(run_id, step, flush=True)
task = tasks.load(sys.argv[1])
arms = ["sgd(lr=1e-2..1)", "torch.optim:Adam(lr=1e-3..1) + cosine()",
        "sgd(lr={1e20, 1e21, 1e22})"]
settled = plan(task, arms, trials=3, tuning_seeds=2, seeds=2, steps=60, eval_every=20,
               defaults=True, task_spec=sys.argv[1])
pace = Pace(look=0.0, commit=0.02, share=1.0, timing=0.0)
with open_race(sys.argv[2], settled) as ledger:
    execute(ledger, settled, task, observer=Loud(), pace=pace)
"""


def start(task: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, task, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kills_at_random_moments_of_both_stages_leave_the_bits_of_an_uninterrupted_race(
    tmp_path: Path, task_file: Path
) -> None:
    spec = f"{task_file}:task"
    with start(spec, tmp_path / "whole") as process:
        lines = len(process.communicate(timeout=240)[0].splitlines())
    dice = random.Random(3)
    for _ in range(5):
        with start(spec, tmp_path / "cut") as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, lines // 4)):
                process.stdout.readline()
            time.sleep(dice.uniform(0, 0.03))
            process.kill()
            process.communicate(timeout=60)
        with Ledger.read(tmp_path / "cut") as ledger:
            assert ledger.selections() or not ledger.rows(
                "SELECT 1 FROM evaluations WHERE split = 'test'"
            )
    with start(spec, tmp_path / "cut") as process:
        process.communicate(timeout=240)
        assert process.returncode == 0
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_seeds_added_to_a_race_are_fresh_and_the_error_rate_is_spent_look_by_look(
    tmp_path: Path, race: Race, task: Task
) -> None:
    before = race(tmp_path, ["sgd(lr=1e-2..1)", ADAM, GIVEN], trials=3, seeds=6, epochs=1)
    assert before.looks == [list(range(6))]
    assert before.verdict.looks == (6,)
    result = go_on(tmp_path, task, seeds="+3")
    assert result.seeds == list(range(9))
    assert [len(seeds) for seeds in result.looks] == [6, 9]
    assert result.verdict.looks == (6, 9)
    fresh = [run for run in result.final_runs if run.seed >= 6]
    assert {run.seed for run in fresh} == {6, 7, 8}
    assert {run.trial for run in fresh} == {run.trial for run in before.final_runs}
    old = {run.run_id: run.metrics for run in before.final_runs}
    assert {r.run_id: r.metrics for r in result.final_runs if r.seed < 6} == old
    values = {
        arm.label: [r.metrics["test_accuracy"] for r in result.final_runs if r.arm == arm.label]
        for arm in result.arms
    }
    expected = decide_looks(values, [6, 9], higher_is_better=True)
    assert [p.p_adjusted for p in result.verdict.pairs] == [p.p_adjusted for p in expected]
    assert [p.decision for p in result.verdict.pairs] == [p.decision for p in expected]
    again = go_on(tmp_path, task)  # resuming alone is no further look
    assert again.looks == result.looks
    with Ledger.read(tmp_path) as ledger:
        assert len(ledger.rows("SELECT * FROM verdicts")) == 2
    assert [e["text"] for e in again.events if e["kind"] == "extended"] == [
        "3 seeds added: 6, 7, 8"
    ]
    # the command that began it shows it as it is now
    shown = race(tmp_path, ["sgd(lr=1e-2..1)", ADAM, GIVEN], trials=3, seeds=6, epochs=1)
    assert shown.looks == result.looks


def test_an_interrupted_extension_ends_with_the_same_bits(
    tmp_path: Path, race: Race, task: Task
) -> None:
    arms = [GIVEN, "torch.optim:Adam(lr=0.01)"]
    for name in ("whole", "cut"):
        race(tmp_path / name, arms, seeds=2, epochs=1)
    go_on(tmp_path / "whole", task, seeds=2)
    ledger, planned, _ = reopen(tmp_path / "cut", task)
    with ledger:
        extend(ledger, planned.spec, "+2")
        with pytest.raises(StoppedError):
            execute(ledger, planned, task, observer=StopAt("a1-s2", 4), pace=QUICK)
    assert "The race is not finished" in Result(tmp_path / "cut").verdict.text
    go_on(tmp_path / "cut", task)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_seeds_added_while_tuning_come_with_the_final_stage(
    tmp_path: Path, race: Race, task: Task
) -> None:
    arms = [SGD, ADAM]
    stop = StopAt("a0-t1-s1000000000", 5)
    with pytest.raises(StoppedError):
        race(tmp_path, arms, trials=2, seeds=2, epochs=1, observer=stop, pace=QUICK)
    result = go_on(tmp_path, task, seeds=2)
    assert {run.seed for run in result.final_runs} == {0, 1, 2, 3}
    assert result.looks == [[0, 1, 2, 3]]


@pytest.mark.parametrize("seeds", ["ten", "+0", 0, -3, "1.5", True, "-2"])
def test_a_wrong_number_of_seeds_to_add_is_refused(
    tmp_path: Path, race: Race, task: Task, seeds: Any
) -> None:
    race(tmp_path, [GIVEN], seeds=1, epochs=1)
    before = digest(tmp_path)
    with pytest.raises(InputError, match=r"seeds to add are written as \+10"):
        go_on(tmp_path, task, seeds=seeds)
    assert digest(tmp_path) == before


def test_seeds_are_not_added_to_a_race_whose_task_has_changed_and_the_difference_is_shown(
    tmp_path: Path, race: Race, task: Task, make_task: Callable[..., Task]
) -> None:
    race(tmp_path, [GIVEN], seeds=1, epochs=1)
    changed = make_task(loss=torch.nn.CrossEntropyLoss())
    old, new = (each.fingerprint()["loss"][:8] for each in (task, changed))
    with pytest.raises(LedgerError, match=f"the loss \\({old}.* then, {new}.* now\\)"):
        go_on(tmp_path, changed, seeds="+2")


def sample(arm: str, values: Mapping[int, float]) -> list[Sample]:
    return [Sample(arm, s, "done", v, 10, f"s{s}", f"o{s}") for s, v in values.items()]


def test_what_was_decided_at_the_first_look_stays_decided() -> None:
    a = {seed: 0.9 + seed / 1000 for seed in range(6)}
    b = {seed: 0.8 + seed / 2000 for seed in range(6)}
    first = judge([*sample("a", a), *sample("b", b)], **METRIC)
    assert first.pair("a", "b").decision == "better"
    more_a, more_b = {**a, 6: 0.7, 7: 0.7, 8: 0.7}, {**b, 6: 0.85, 7: 0.84, 8: 0.86}
    samples = [*sample("a", more_a), *sample("b", more_b)]
    second = judge(samples, **METRIC, looks=[list(range(6))])
    assert second.looks == (6, 9)
    assert second.pair("a", "b").decision == "better"
    alone = judge(samples, **METRIC)
    assert alone.pair("a", "b").decision == "undecided"


METRIC: dict[str, Any] = {
    "metric": "test_accuracy",
    "higher_is_better": True,
    "level": 0.95,
    "min_effect": 0.0,
}


def test_a_look_with_other_seeds_than_those_before_has_the_next_share_of_the_error_rate() -> None:
    a = {seed: 0.9 + seed / 1000 for seed in range(7)}
    b = {seed: 0.8 + seed / 2000 for seed in range(7)}
    samples = [*sample("a", a), *sample("b", b)]
    verdict = judge(samples, **METRIC, looks=[[0, 1, 2, 3, 4, 99]])
    (pair,) = verdict.pairs
    share = 0.05 / (1 - look_level(0.95, 2))
    assert pair.p_adjusted == pytest.approx(2 / 2**7 * share)
    assert pair.decision == "undecided"  # 7 seeds are too few at the second look
