"""Tasks and arms that are Python objects train in other processes, or it is said why not."""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.racing.test_engine import TASK_FILE, StopAt, digest, kinds, race
from tests.racing.test_herd import Murderer, chosen
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from steepest import tasks
from steepest.errors import LedgerError, UnsupportedError
from steepest.racing import apart
from steepest.racing.arm import resolve
from steepest.racing.ledger import Ledger
from steepest.racing.objects import Handout
from steepest.racing.observer import Pace, StoppedError
from steepest.racing.plan import plan
from steepest.train.task import Task

__all__ = ["chosen"]

Make = Callable[..., Task]

OPTIMIZERS = """
import torch
def half(lr):
    return lr / 2
class Scaled(torch.optim.SGD):
    def __init__(self, params, lr=0.1, scale=None):
        super().__init__(params, lr=scale(lr))
def plain(params):
    return torch.optim.Adam(params, lr=0.01)
"""


@pytest.fixture
def optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A user's module, found by its name."""
    (tmp_path / "my_optimizers.py").write_text(OPTIMIZERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_optimizers")
    del sys.modules["my_optimizers"]


@pytest.fixture
def loaded(tmp_path: Path) -> Task:
    """A task that is an object, from a file that no name finds."""
    (tmp_path / "task.py").write_text(TASK_FILE)
    return tasks.load(f"{tmp_path / 'task.py'}:task")


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[apart.Worker]]:
    """All workers; none may be left."""
    hired: list[apart.Worker] = []
    hire = apart.Worker.__init__

    def hire_seen(self: apart.Worker, *args: Any, **kwargs: Any) -> None:
        hired.append(self)
        hire(self, *args, **kwargs)

    monkeypatch.setattr(apart.Worker, "__init__", hire_seen)
    yield hired
    assert all(worker.process.poll() is not None for worker in hired)


def why_not(task: Task, arms: Any = ("sgd(lr=0.1)",)) -> str:
    with closing(Handout(None, task, resolve(arms), train_on="train")) as handout:
        return str(handout.why_not())


def test_objects_train_to_the_bits_of_solo_and_are_written_once(
    tmp_path: Path,
    loaded: Task,
    optimizers: ModuleType,
    crew: list[apart.Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = {
        "scaled": functools.partial(optimizers.Scaled, lr=0.1, scale=optimizers.half),
        "plain": optimizers.plain,
        "rule": "adam(lr=0.01) + cosine(warmup=0.1)",
    }
    more: dict[str, Any] = {"steps": 60, "epochs": None}
    race(tmp_path / "solo", loaded, "solo", arms, **more)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    written: list[int] = []
    save = torch.save

    def save_seen(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        written.append(len(os.listdir(tmp_path / "temporary")))

    monkeypatch.setattr(torch, "save", save_seen)
    asked: dict[int, apart.Worker] = {}
    ask = apart.Worker.ask

    def ask_seen(self: apart.Worker, *args: Any) -> Any:
        asked[threading.get_ident()] = self
        return ask(self, *args)

    monkeypatch.setattr(apart.Worker, "ask", ask_seen)
    murderer = Murderer(1, asked)
    found = race(tmp_path / "apart", loaded, "processes", arms, observer=murderer, **more)
    assert digest(tmp_path / "apart") == digest(tmp_path / "solo")
    assert {run.status for run in found.runs} <= {"done", "diverged"}
    assert kinds(found).count("worker_lost") == 1
    assert len(crew) == 3
    assert written == [0]  # once, into a file that has no name


@pytest.mark.slow
def test_populations_of_objects_in_processes_give_the_same_bits_also_when_resumed(
    tmp_path: Path, loaded: Task, optimizers: ModuleType, chosen: Callable[[int, int], None]
) -> None:
    arms = {"plain": optimizers.plain, "rule": "sgd(lr=0.1, momentum=0.9)"}
    more: dict[str, Any] = {"steps": 30, "epochs": None}
    chosen(2, 1)
    race(tmp_path / "here", loaded, "auto", arms, **more)
    chosen(2, 2)
    slow = Pace(look=0.0, commit=1000.0, timing=0.0)
    with pytest.raises(StoppedError, match="steepest resume"):
        race(tmp_path / "there", loaded, "auto", arms, observer=StopAt(13), pace=slow, **more)
    race(tmp_path / "there", loaded, None, arms, **more)
    assert digest(tmp_path / "there") == digest(tmp_path / "here")
    with Ledger.read(tmp_path / "there") as ledger:
        assert ledger.meta()["engine"]["workers"] == 2


# --------------------------------------------------------------------------- the script that is run

SCRIPT = """
import os, sys, torch
from contextlib import closing
from functools import partial
from torch import nn
from steepest.racing.objects import Handout
from steepest.train.task import Task
with open("loaded", "a") as file:
    print(__name__, file=file)
def model(width, act):
    return nn.Sequential(nn.Linear(6, width), act(), nn.Linear(width, 2))
class Accuracy:
    def __call__(self, outputs, targets):
        return (outputs.argmax(1) == targets).double().mean()
def task():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=g)
    return Task(name="script", model=partial(model, 8, nn.ReLU), loss=nn.CrossEntropyLoss(),
                train=(x[:48], (x[:48, 0] > 0).long()), val=(x[48:], (x[48:, 0] > 0).long()),
                metrics={"accuracy": Accuracy()}, batch_size=8)
def main():
    with closing(Handout(None, task(), [], train_on="train")) as handout:
        return handout.why_not()
"""
GUARD = 'if __name__ == "__main__":\n    '


def run_script(folder: Path, text: str) -> dict[str, Any]:
    (folder / "script.py").write_text(text)
    return runpy.run_path(str(folder / "script.py"), run_name="__main__")


@pytest.mark.parametrize(
    "start",
    [
        f"{GUARD}said = main()",
        "import sys\nif sys.path and '__main__' == __name__:\n    said = main()",
        f"{GUARD}said = [\n        main()\n    for _ in '1'][0]",
    ],
)
def test_a_script_is_loaded_by_workers_if_its_race_is_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script(tmp_path, SCRIPT + start)["said"] is None


@pytest.mark.parametrize(
    "start",
    [
        "said = main()",
        f"{GUARD}pass\nsaid = main()",
        f"{GUARD}pass\nelse:\n    pass\nfor _ in '1':\n    said = main()",
        'if __name__ != "else":\n    said = main()',
        'if __name__ == "__main__" or True:\n    said = main()',
    ],
)
def test_a_script_that_would_race_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run_script(tmp_path, SCRIPT + start)["said"]
    assert said.startswith("the model is defined in script.py, and a process that loads this ")
    assert "would start the race again; start it under \"if __name__ == '__main__':\"" in said


def test_what_is_typed_at_a_prompt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", prompt)
    exec(SCRIPT + "said = main()", vars(prompt))
    said = prompt.said  # type: ignore[attr-defined]
    assert said.startswith("the model is defined at a prompt or in a notebook")


def test_a_race_of_a_script_is_that_of_solo_and_is_begun_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crew: list[apart.Worker]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "race_here", sys.modules[race.__module__])
    start = """
    from pathlib import Path
    from race_here import race
    for engine in ("solo", "processes"):
        race(Path(engine), task(), engine, ["sgd(lr=0.1)", "adam(lr=0.01)"])
"""
    run_script(tmp_path, SCRIPT + GUARD.rstrip() + start)
    assert digest(tmp_path / "processes") == digest(tmp_path / "solo")
    assert (tmp_path / "loaded").read_text().split() == ["__main__", "__mp_main__", "__mp_main__"]
    assert len(crew) == 2


def test_a_process_that_trains_begins_no_race_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crew: list[apart.Worker]
) -> None:
    monkeypatch.chdir(tmp_path)
    start = f"""
    from steepest.racing.apart import Worker
    with closing(Handout(None, task(), [], train_on="train")) as handout:
        Worker(handout.kit(), threads=1)
if __name__ == "__mp_main__":
    import steepest
    steepest.race({(str(tmp_path / "mine.py:task"))!r}, ["sgd(lr=0.1)"], seeds=2, out="theirs")
"""
    (tmp_path / "mine.py").write_text(TASK_FILE)
    with pytest.raises(LedgerError, match="theirs by a process that leaves that to the race"):
        run_script(tmp_path, SCRIPT + GUARD.rstrip() + start)
    assert not (tmp_path / "theirs" / "ledger.sqlite").exists()
    assert len(crew) == 1


# --------------------------------------------------------------------------- what cannot be


class Opened(TensorDataset):
    """Keeps a file open, as a Dataset may."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(32, 6), torch.zeros(32, dtype=torch.int64))
        self.file = Path(__file__).open()  # noqa: SIM115  that is the fault


def local() -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        return nn.Linear(6, 3)

    return model


def first(outputs: Any, targets: Any) -> float:
    return float(outputs[0, 0])


def test_what_cannot_be_pickled_is_named_with_what_to_do(
    make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened()
    homeless = ModuleType("homeless")
    exec("def loss(outputs, targets):\n    return outputs.mean()", vars(homeless))
    monkeypatch.setitem(sys.modules, "homeless", homeless)
    loss: Any = homeless.loss  # type: ignore[attr-defined]
    x, y = torch.zeros(32, 6), torch.zeros(32, dtype=torch.int64)
    for changes, words in (
        ({"loss": lambda a, b: (a - b).mean()}, "the loss is a lambda, .* write it with def"),
        ({"model": local()}, "the model is 'model', which is defined inside 'local', .*partial"),
        ({"model": functools.partial(first, lambda: 0)}, "the model holds a lambda"),
        ({"metrics": {"m": lambda a, b: 0.0, "first": first}}, "the metric 'm' is a lambda"),
        ({"train": opened}, "the training data cannot be pickled .*TextIOWrapper.* open files"),
        ({"val": lambda: DataLoader(TensorDataset(x, y))}, "the validation data is a lambda"),
        ({"loss": loss}, "the loss is defined in 'homeless', a module without a file"),
    ):
        assert_matches(why_not(make_task(**changes)), words)
    opened.file.close()
    arms = {"mine": lambda params: torch.optim.SGD(params, lr=0.1)}
    assert_matches(why_not(make_task(), arms), "the arm 'mine' is a lambda")


def assert_matches(text: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        raise UnsupportedError(text)


# --------------------------------------------------------------------------- the same task


def hired(task: Task, arms: Any, spec: str | None = None) -> None:
    """A worker for a race, which is let go at once."""
    settled = plan(task, arms, seeds=2, steps=5, task_spec=spec)
    with closing(Handout(spec, task, settled.spec.arms, train_on="train")) as handout:
        place: Any = SimpleNamespace(plan=settled, handout=handout)
        apart.hire(place, threads=1).close()


def test_code_that_was_edited_meanwhile_is_found_out(
    tmp_path: Path, loaded: Task, optimizers: ModuleType, crew: list[apart.Worker]
) -> None:
    arms = resolve({"plain": optimizers.plain})
    hired(loaded, arms)
    halved = TASK_FILE.replace(".double().mean()", ".double().mean() / 2")
    (tmp_path / "task.py").write_text(halved)
    (tmp_path / "my_optimizers.py").write_text(OPTIMIZERS.replace("lr=0.01", "lr=0.02"))
    words = r"something else than this one: the metrics, the arm 'plain'\. What"
    with pytest.raises(UnsupportedError, match=words):
        hired(loaded, arms)
    assert len(crew) == 2


def test_a_file_that_makes_another_task_every_time_is_found_out(
    tmp_path: Path, crew: list[apart.Worker]
) -> None:
    fickle = TASK_FILE.replace("manual_seed(seed)", "manual_seed(seed + os.getpid())")
    (tmp_path / "task.py").write_text(f"import os\n{fickle}")
    spec = f"{tmp_path / 'task.py'}:task"
    words = "than this one: the training data, the validation data, the test data"
    with pytest.raises(UnsupportedError, match=words):
        hired(tasks.load(spec), ["sgd(lr=0.1)"], spec)
    assert len(crew) == 1
