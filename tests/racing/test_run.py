from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from steepest.errors import LedgerError, TaskError
from steepest.racing.folder import open_race, reopen
from steepest.racing.ledger import Ledger
from steepest.racing.observer import Pace, Silent, StoppedError
from steepest.racing.plan import plan
from steepest.racing.result import Result
from steepest.racing.run import execute
from steepest.racing.spec import Plan
from steepest.train.solo import SoloRun
from steepest.train.task import Task

SGD = "torch.optim:SGD(lr=0.1)"
ADAM = "torch.optim:Adam(lr=0.01)"
QUICK = Pace(commit=0.0, timing=0.0)
Race = Callable[..., Result]


def digest(folder: Path) -> str:
    with Ledger.read(folder) as ledger:
        return ledger.content_digest()


class Watching(Silent):
    """Remembers what it was told; may ask the race to stop at some step of a run."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.steps: dict[str, list[int]] = {}
        self.finished: dict[str, str] = {}
        self.notes: list[str] = []
        self.begun: list[dict[str, int]] = []
        self.stop_at = stop_at

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        self.begun.append(dict(done))

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        self.steps.setdefault(run_id, []).append(step)
        if self.stop_at and run_id == self.stop_at[0] and step >= self.stop_at[1]:
            self.stop_at = None
            os.kill(os.getpid(), signal.SIGINT)

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        self.finished[run_id] = status

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_race_measures_what_the_plain_loop_measures(
    tmp_path: Path, race: Race, task: Task
) -> None:
    result = race(tmp_path / "r", [ADAM + " + cosine()"], seeds=[3], epochs=3, eval_every=7)
    with_schedule = plan(task, [ADAM + " + cosine()"]).spec.arms[0]
    solo = SoloRun(
        task,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        schedule=with_schedule.schedule,
        seed=3,
        steps=30,
    )
    losses, rates, numbers = [], [], {}
    for step in range(1, 31):
        chunk = solo.advance(1)
        losses.append(chunk.loss[0])
        rates.append(chunk.lr[0])
        if step % 7 == 0 or step == 30:
            numbers[step] = solo.evaluate("val")
    key = (result.arms[0].label, 3)
    steps, curve = result.curves("train_loss")[key]
    assert steps.tolist() == list(range(1, 31))
    assert curve.tolist() == [float(v) for v in losses]
    assert result.curves("lr")[key][1].tolist() == [float(v) for v in rates]
    for metric in ("loss", "accuracy"):
        steps, values = result.evaluations("val", metric)[key]
        assert steps.tolist() == [7, 14, 21, 28, 30]
        assert values.tolist() == [numbers[s][metric] for s in steps.tolist()]
    assert result.runs[0].metrics["test_accuracy"] == solo.evaluate("test")["accuracy"]
    assert result.evaluations("test", "accuracy")[key][0].tolist() == [30]


def test_where_the_loop_looks_up_and_commits_changes_no_bit(tmp_path: Path, race: Race) -> None:
    digests = set()
    for number, pace in enumerate(
        [
            Pace(look=0.0, commit=0.0, share=1.0, timing=0.0),
            Pace(look=10.0, commit=1000.0, timing=0.0),
            Pace(look=0.003, commit=0.01, share=1.0, timing=0.2),
        ]
    ):
        folder = tmp_path / str(number)
        race(folder, [SGD, ADAM + " + linear(warmup=0.2)"], pace=pace, epochs=3)
        digests.add(digest(folder))
    assert len(digests) == 1


@pytest.mark.parametrize("stop_at", [("a0-s0", 1), ("a0-s0", 10), ("a1-s0", 20), ("a1-s1", 13)])
def test_a_race_stopped_by_ctrl_c_resumes_to_the_same_bits(
    tmp_path: Path, race: Race, task: Task, stop_at: tuple[str, int]
) -> None:
    race(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    pace = Pace(look=0.0, commit=1000.0, timing=0.0)
    with pytest.raises(StoppedError, match="steepest resume"):
        race(tmp_path / "cut", observer=Watching(stop_at), pace=pace)
    assert signal.getsignal(signal.SIGINT) is before
    partial = Result(tmp_path / "cut")
    assert not partial.complete
    assert "The race is not finished" in partial.verdict.text
    ledger, again, _ = reopen(tmp_path / "cut", task)
    watching = Watching()
    with ledger:
        execute(ledger, again, task, observer=watching, pace=QUICK)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert watching.begun[0][stop_at[0]] >= stop_at[1]
    assert watching.steps.get(stop_at[0], [stop_at[1]])[0] >= stop_at[1]
    assert os.listdir(tmp_path / "cut" / "checkpoints") == []


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
arms = ["torch.optim:SGD(lr=0.1, momentum=0.9)", "torch.optim:Adam(lr=0.01) + cosine(warmup=0.1)",
        "torch.optim:SGD(lr=1e20)"]
settled = plan(task, arms, seeds=2, epochs=5, task_spec=sys.argv[1])
pace = Pace(look=0.0, commit=0.02, share=1.0, timing=0.0)
with open_race(sys.argv[2], settled) as ledger:
    execute(ledger, settled, task, observer=Loud(), pace=pace)
"""

TASK_FILE = """
import torch
from torch import nn
from steepest.train.task import Task
def data(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    return x, (x[:, :3] + 0.3 * torch.randn(n, 3, generator=g)).argmax(1)
def model():
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.Linear(32, 3))
def accuracy(out, y):
    return (out.argmax(1) == y).double().mean()
task = Task(name="killed", model=model, loss=nn.functional.cross_entropy, train=data(320, 0),
            val=data(100, 1), test=data(100, 2), metrics={"accuracy": accuracy}, batch_size=4)
"""


def start_race(task: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, task, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_the_bits_of_an_uninterrupted_race(
    tmp_path: Path,
) -> None:
    (tmp_path / "task.py").write_text(TASK_FILE)
    spec = f"{tmp_path / 'task.py'}:task"
    with start_race(spec, tmp_path / "whole") as process:
        assert len(process.communicate(timeout=120)[0].splitlines()) == 4 * 400 + 2 * 2
    dice = random.Random(20)
    for _ in range(10):
        with start_race(spec, tmp_path / "cut") as process:
            assert process.stdout is not None
            for _ in range(dice.randint(1, 140)):
                process.stdout.readline()
            time.sleep(dice.uniform(0, 0.03))
            assert process.poll() is None
            process.kill()
            process.communicate(timeout=60)
        with Ledger.read(tmp_path / "cut") as ledger:  # whatever was left behind is true
            for run in ledger.runs():
                assert len(ledger.curve(run["run_id"], "train_loss")) == run["steps_done"]
                saved = [s.step for s in ledger.stored() if s.run_id == run["run_id"]]
                if run["status"] == "running" and run["steps_done"]:
                    assert saved == [run["steps_done"]]
            assert all((ledger.folder / stored.path).is_file() for stored in ledger.stored())
    with start_race(spec, tmp_path / "cut") as process:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    names = [sorted(os.listdir(tmp_path / race / "weights")) for race in ("cut", "whole")]
    assert names[0] == names[1]
    assert os.listdir(tmp_path / "cut" / "checkpoints") == []
    verdicts = [Result(tmp_path / race).verdict for race in ("cut", "whole")]
    assert str(verdicts[0].to_dict()) == str(verdicts[1].to_dict())


def test_a_finished_race_is_not_repeated_unless_asked(tmp_path: Path, race: Race) -> None:
    race(tmp_path / "r")
    again = Watching()
    race(tmp_path / "r", observer=again)
    assert again.steps == {}
    with Ledger.read(tmp_path / "r") as ledger:
        assert len(ledger.rows("SELECT * FROM verdicts")) == 1
    fresh = Watching()
    race(tmp_path / "r", observer=fresh, fresh=True)
    assert set(fresh.finished) == {"a0-s0", "a1-s0", "a0-s1", "a1-s1"}


def test_a_run_that_diverges_is_recorded_and_the_race_goes_on(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    calls = count()

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = cross_entropy(outputs, targets)
        return value * math.nan if outputs.requires_grad and Sick.active(next(calls)) else value

    class Sick:
        """From the fifth training step of a run with the sick optimizer on, the loss is NaN."""

        steps = 0

        @classmethod
        def active(cls, _: int) -> bool:
            return cls.steps >= 4

    class SickSGD(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            Sick.steps = 0
            super().__init__(params, lr=0.1)

        def step(self, closure: Any = None) -> Any:
            Sick.steps += 1
            return super().step(closure)

    class WellSGD(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            Sick.steps = -(10**9)
            super().__init__(params, lr=0.1)

    arms = {"sick": SickSGD, "well": WellSGD}
    result = race(tmp_path, arms, task=make_task(loss=loss))
    rows = {(run.arm, run.seed): run for run in result.runs}
    for seed in (0, 1):
        sick, well = rows["sick", seed], rows["well", seed]
        assert (sick.status, sick.diverged_at, sick.steps) == ("diverged", 5, 5)
        assert sick.metrics == {}
        _, losses = result.curves(arm="sick", seed=seed)["sick", seed]
        assert np.isnan(losses[4])
        assert np.isfinite(losses[:4]).all()
        assert (well.status, well.steps) == ("done", 20)
    assert "sick diverged on every seed" in result.verdict.text
    assert result.ranking[-1].label == "sick"
    assert [e["kind"] for e in result.events].count("diverged") == 2


def test_a_run_whose_code_raises_fails_alone_and_is_tried_again_on_resume(
    tmp_path: Path, race: Race, task: Task
) -> None:
    broken = True

    class Fragile(torch.optim.SGD):
        count = 0

        def step(self, closure: Any = None) -> Any:
            self.count += 1
            if broken and self.count == 7:
                raise RuntimeError("a wire fell off")
            return super().step(closure)

    arms = {"fragile": Fragile, "solid": SGD}
    result = race(tmp_path / "cut", arms)
    rows = {(run.arm, run.seed): run for run in result.runs}
    assert rows["fragile", 0].status == "failed"
    assert rows["fragile", 0].message == "RuntimeError: a wire fell off"
    assert rows["solid", 1].status == "done"
    assert "fragile failed with seeds 0, 1" in result.verdict.text
    assert result.verdict.pairs == ()
    broken = False
    settled = plan(task, arms, seeds=2, epochs=2)
    with open_race(tmp_path / "cut", settled) as ledger:
        outcome = execute(ledger, settled, task, pace=QUICK)
    assert outcome.statuses == {"done": 4}
    assert outcome.failures == {}
    race(tmp_path / "whole", arms)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_a_metric_that_raises_fails_its_runs_with_the_users_words(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    calls = count()

    def fickle(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        if next(calls) > 1:
            raise ValueError("no luck today")
        return 1.0

    result = race(tmp_path, [SGD], task=make_task(metrics={"fickle": fickle}))
    assert {run.status for run in result.runs} == {"failed"}
    assert "no luck today" in str(result.runs[0].message)


def test_an_optimizer_that_cannot_be_saved_begins_again_and_says_why(
    tmp_path: Path, race: Race, task: Task
) -> None:
    class Secretive(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.1)
            self.state["secret"] = {"thing": object()}

    arms = {"secretive": Secretive, "open": SGD}
    race(tmp_path / "whole", arms)
    watching = Watching(stop_at=("a0-s0", 11))
    with pytest.raises(StoppedError):
        race(tmp_path / "cut", arms, observer=watching, pace=Pace(look=0.0, commit=0, timing=0))
    assert any("cannot be continued" in note for note in watching.notes)
    assert Result(tmp_path / "cut").runs[0].steps >= 11
    again = Watching()
    race(tmp_path / "cut", arms, observer=again)
    assert again.steps["a0-s0"][0] == 1
    events = [e for e in Result(tmp_path / "cut").events if e["kind"] == "restarted"]
    assert [e["run_id"] for e in events] == ["a0-s0"]
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_a_damaged_checkpoint_costs_its_run_and_nothing_else(tmp_path: Path, race: Race) -> None:
    race(tmp_path / "whole")
    with pytest.raises(StoppedError):
        race(tmp_path / "cut", observer=Watching(("a1-s0", 5)), pace=Pace(look=0.0, timing=0.0))
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
    watching = Watching()
    race(tmp_path / "cut", observer=watching)
    assert any("begins again from step 0" in note for note in watching.notes)
    assert "a0-s0" not in watching.steps
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_equal_seeds_have_equal_starts_and_orders_and_different_seeds_do_not(
    tmp_path: Path, race: Race
) -> None:
    result = race(tmp_path, [SGD, ADAM, "torch.optim:Adagrad()"], seeds=3)
    for name in ("start_hash", "order_hash"):
        by_seed = {
            seed: {getattr(r, name) for r in result.runs if r.seed == seed} for seed in (0, 1, 2)
        }
        assert all(len(hashes) == 1 for hashes in by_seed.values())
        assert len(set.union(*by_seed.values())) == 3
    assert result.verdict.valid


def test_an_unequal_start_is_noticed_loudly_and_spoils_the_verdict(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    calls = count()

    def leaky() -> nn.Module:
        model = nn.Linear(6, 3)
        with torch.no_grad():
            model.bias.fill_(next(calls))
        return model

    watching = Watching()
    result = race(tmp_path, task=make_task(model=leaky), observer=watching)
    assert any("starts from other weights" in note for note in watching.notes)
    assert {e["kind"] for e in result.events} >= {"unequal_start"}
    assert not result.verdict.valid
    assert result.verdict.sentences[0].startswith("This comparison is not fair: with seed 0")


def test_an_unequal_order_is_noticed_and_spoils_the_verdict(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    calls = count()

    def loader() -> torch.utils.data.DataLoader[Any]:
        shift = float(next(calls))
        x = torch.arange(60.0).reshape(10, 6) + shift
        return torch.utils.data.DataLoader(list(zip(x, torch.arange(10) % 3, strict=True)), 5)

    result = race(tmp_path, task=make_task(train=loader, batch_size=5), epochs=2)
    assert not result.verdict.valid
    assert "saw different batches" in result.verdict.sentences[0]


def test_the_test_split_is_read_once_at_the_end_of_a_run(
    tmp_path: Path, race: Race, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    evaluate = SoloRun.evaluate

    def spy(self: SoloRun, split: Any, **more: Any) -> dict[str, float]:
        seen.append((split, self.position))
        return evaluate(self, split, **more)

    monkeypatch.setattr(SoloRun, "evaluate", spy)
    race(tmp_path, [SGD], seeds=[0], epochs=3)
    assert seen == [("val", 10), ("val", 20), ("val", 30), ("test", 30)]


def test_a_changed_task_cannot_be_resumed_and_says_what_changed(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    with pytest.raises(StoppedError):
        race(tmp_path, observer=Watching(("a0-s0", 3)), pace=Pace(look=0.0, timing=0.0))
    x, y = torch.zeros(64, 6), torch.zeros(64, dtype=torch.int64)
    with pytest.raises(LedgerError, match="changed since the race began: the training data"):
        reopen(tmp_path, make_task(train=(x, y)))
    with pytest.raises(LedgerError, match="given as a Python object"):
        reopen(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 3}, r"seeds is \[0, 1\] there and \[0, 1, 2\] here"),
        ({"epochs": 3}, "steps is 20 there and 30 here"),
        ({"batch_size": 8}, "batch_size is 16 there and 8 here"),
        ({"level": 0.9}, r"level is 0\.95 there and 0\.9 here"),
    ],
)
def test_a_folder_with_another_race_is_left_alone_and_the_difference_shown(
    tmp_path: Path, race: Race, options: dict[str, Any], message: str
) -> None:
    race(tmp_path)
    before = digest(tmp_path)
    with pytest.raises(LedgerError, match=message):
        race(tmp_path, **options)
    assert digest(tmp_path) == before


def test_a_folder_with_other_arms_or_another_task_is_left_alone(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    race(tmp_path)
    with pytest.raises(LedgerError, match="holds another race: arms is"):
        race(tmp_path, [SGD])
    with pytest.raises(LedgerError, match="holds another race: the task's loss differs"):
        race(tmp_path, task=make_task(loss=nn.CrossEntropyLoss()))


def test_a_task_found_by_name_is_found_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steepest import tasks

    (tmp_path / "my_task.py").write_text(TASK_FILE)
    monkeypatch.chdir(tmp_path)
    task = tasks.load("my_task.py:task")
    settled = plan(task, [SGD], seeds=1, steps=3, task_spec="my_task.py:task")
    with open_race("out", settled):
        pass
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ledger, again, found = reopen("../out")
    with ledger:
        assert again == settled
        assert execute(ledger, again, found, pace=QUICK).statuses == {"done": 1}
    (tmp_path / "my_task.py").write_text(TASK_FILE.replace("nn.Dropout(0.2)", "nn.Dropout(0.3)"))
    with pytest.raises(LedgerError, match="the model"):
        reopen("../out")


def test_a_model_of_the_wrong_shape_is_refused_before_anything_is_written(
    tmp_path: Path, race: Race, make_task: Callable[..., Task]
) -> None:
    with pytest.raises(TaskError, match="the model raised RuntimeError"):
        race(tmp_path / "r", task=make_task(model=lambda: nn.Linear(5, 3)))
    assert not (tmp_path / "r").exists()
