from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest.racing.observer import Pace
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.timing import measure
from steepest.train.task import Task

SGD = "torch.optim:SGD(lr=0.1)"
ADAM = "torch.optim:Adam(lr=0.01)"
PARAMETERS = 6 * 12 + 12 + 12 * 3 + 3


def test_memory_of_the_state_is_counted_in_bytes(task: Task) -> None:
    spec = plan(task, {"sgd": SGD, "adam": ADAM}).spec
    found = measure(task, spec, arms=spec.arms, seconds=0.0)
    bytes_of = {
        spec.arms[k].label: {row.quantity: row.value for row in rows}
        for k, rows in found.rows.items()
    }
    assert bytes_of["sgd"]["state_bytes"] == 0
    # two float32 per parameter, and torch's float32 step for each of the four tensors
    assert bytes_of["adam"]["state_bytes"] == 8 * PARAMETERS + 4 * 4
    ratio = bytes_of["adam"]["state_bytes_per_parameter"]
    assert ratio == pytest.approx((8 * PARAMETERS + 16) / PARAMETERS)
    assert "peak_bytes" not in bytes_of["adam"]


def test_a_slow_optimizer_is_found_to_be_slow(task: Task) -> None:
    class Slow(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            time.sleep(0.01)
            return super().step(closure)

    spec = plan(task, {"quick": SGD, "slow": Slow}).spec
    found = measure(task, spec, arms=spec.arms, seconds=1.0)
    quick, slow = ({row.quantity: row for row in found.rows[k]} for k in (0, 1))
    assert slow["optimizer_ms"].value >= 10
    assert slow["step_ms"].value >= 10
    assert slow["optimizer_ms"].value > quick["optimizer_ms"].value
    assert slow["epoch_seconds"].value == pytest.approx(10 * slow["step_ms"].value / 1e3)
    assert slow["step_ms"].low <= slow["step_ms"].value <= slow["step_ms"].high
    assert quick["step_ms"].n == slow["step_ms"].n >= 7
    assert slow["step_ratio"].low > 1
    assert quick["step_ratio"][1:] == (1.0, 1.0, 1.0, quick["step_ms"].n)


def test_an_arm_raced_against_itself_is_not_called_slower(task: Task) -> None:
    spec = plan(task, {"one": SGD, "same": SGD.replace("0.1", "0.10")}).spec
    found = measure(task, spec, arms=spec.arms, seconds=1.0)
    ratio = {row.quantity: row for row in found.rows[1]}["step_ratio"]
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 1.1
    assert ratio.high > 0.9


def test_arms_that_diverge_or_need_a_closure_or_fail_cost_the_others_nothing(task: Task) -> None:
    class Broken(torch.optim.SGD):
        taken = 0

        def step(self, closure: Any = None) -> Any:
            self.taken += 1
            if self.taken > 1:  # an arm whose first step fails is refused with the plan
                raise RuntimeError("a wire fell off")
            return super().step(closure)

    arms = {
        "wild": "torch.optim:SGD(lr=1e20)",
        "broken": Broken,
        "closure": "torch.optim:LBFGS(max_iter=2)",
        "sgd": SGD,
    }
    spec = plan(task, arms).spec
    found = measure(task, spec, arms=spec.arms, seconds=0.2)
    assert set(found.rows) == {0, 2, 3}
    assert found.left_out == {1: "RuntimeError: a wire fell off"}
    assert "optimizer_ms" not in {row.quantity for row in found.rows[2]}
    assert {"step_ms", "optimizer_ms"} <= {row.quantity for row in found.rows[0]}


def test_times_go_to_the_ledger_once_and_by_label(
    tmp_path: Path, race: Callable[..., Result]
) -> None:
    first = race(tmp_path, {"a": SGD, "b": ADAM}, pace=Pace(timing=0.1))
    again = race(tmp_path, {"a": SGD, "b": ADAM}, pace=Pace(timing=0.1))
    assert first.timings == again.timings
    assert set(first.timings) == {"a", "b"}
    assert first.timings["b"]["step_ms"].value > 0
