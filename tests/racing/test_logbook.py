"""A ledger of one run that somebody else's loop drives."""

import math

import numpy as np
import pytest
import torch

from steepest.errors import LedgerError
from steepest.racing.ledger import Ledger
from steepest.racing.logbook import Logbook, Outline, arm_of
from steepest.racing.result import Result
from steepest.racing.spec import Measure

ARM = arm_of(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), schedule="linear")


def outline(**more):
    given = {
        "by": "my loop",
        "task": "points",
        "steps": 10,
        "steps_per_epoch": 5,
        "batch_size": 4,
        "eval_every": 5,
        "decides": Measure(split="val", metric="loss", higher_is_better=False),
    }
    return Outline(**{**given, **more})


def walk(book, upto, *, told=1):
    while book.at < upto:
        book.took(lr=0.1 * book.at, seconds=0.5)
        if book.at % told == 0:
            book.lost(1.0 / book.at)


def test_what_was_told_is_what_is_read(tmp_path):
    book = Logbook.begin(tmp_path, outline(), ARM, start_hash="ab")
    walk(book, 5)
    book.measured("val", {"loss": 0.5})
    book.commit()
    walk(book, 10)
    book.measured("val", {"loss": 0.25})
    book.end()
    result = Result(tmp_path)
    ((key, (steps, losses)),) = result.curves("train_loss").items()
    assert key == ("SGD(lr=0.1) + linear", 0)
    np.testing.assert_allclose(losses, 1.0 / steps, rtol=1e-6)
    np.testing.assert_allclose(result.curves("lr")[key][1], 0.1 * (steps - 1), atol=1e-7)
    assert result.evaluations("val", "loss")[key][1].tolist() == [0.5, 0.25]
    (run,) = result.runs
    assert (run.status, run.steps, run.seconds) == ("done", 10, 5.0)
    assert (run.start_hash, run.metrics) == ("ab", {"val_loss": 0.25})
    assert (result.metric, result.complete) == ("val_loss", True)
    assert result.precision is None  # nobody said


def test_a_loss_told_for_several_steps_is_that_of_each(tmp_path):
    book = Logbook.begin(tmp_path, outline(), ARM)
    walk(book, 10, told=4)
    book.end()
    ((_, losses),) = Result(tmp_path).curves("train_loss").values()
    np.testing.assert_allclose(losses, [1 / 4] * 4 + [1 / 8] * 4)
    assert Result(tmp_path).runs[0].steps == 10


def test_going_on_forgets_what_came_after_the_checkpoint(tmp_path):
    book = Logbook.begin(tmp_path, outline(), ARM)
    walk(book, 8)  # one piece of curve, across the checkpoint
    book.measured("val", {"loss": 9.0})
    book.interrupt()
    book = Logbook.begin(tmp_path, outline(), ARM, at=5)
    walk(book, 10)
    book.end()
    ((_, losses),) = Result(tmp_path).curves("train_loss").values()
    np.testing.assert_allclose(losses, 1.0 / np.arange(1, 11), rtol=1e-6)
    assert len(Result(tmp_path).evaluations("val", "loss").popitem()[1][0]) == 0


def test_a_loss_that_is_not_finite_is_divergence_from_its_step_on(tmp_path):
    book = Logbook.begin(tmp_path, outline(), ARM)
    walk(book, 3)
    book.took(lr=0.1)
    book.lost(math.nan)
    walk(book, 10)
    book.end()
    (run,) = Result(tmp_path).runs
    assert (run.status, run.diverged_at) == ("diverged", 4)


def test_a_run_that_failed_says_why(tmp_path):
    book = Logbook.begin(tmp_path, outline(), ARM)
    walk(book, 3)
    book.end(message="RuntimeError: no more")
    (run,) = Result(tmp_path).runs
    assert (run.status, run.message, run.steps) == ("failed", "RuntimeError: no more", 3)


def test_without_evaluations_the_last_loss_decides(tmp_path):
    train = Measure(split="train", metric="loss", higher_is_better=False)
    book = Logbook.begin(tmp_path, outline(decides=train), ARM)
    walk(book, 10)
    book.end()
    assert Result(tmp_path).runs[0].metrics == {"train_loss": 0.1}


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    book = Logbook.begin(tmp_path / "a", outline(), ARM)
    with pytest.raises(LedgerError, match="another process is writing"):
        Logbook.begin(tmp_path / "a", outline(), ARM)
    walk(book, 10)
    book.interrupt()
    with pytest.raises(LedgerError, match="holds a run already"):
        Logbook.begin(tmp_path / "a", outline(), ARM)
    with pytest.raises(LedgerError, match="task is points there and lines here"):
        Logbook.begin(tmp_path / "a", outline(task="lines"), ARM, at=5)
    with pytest.raises(LedgerError, match="has come to step 10 only"):
        Logbook.begin(tmp_path / "a", outline(), ARM, at=11)
    with pytest.raises(LedgerError, match="no ledger of the steps before"):
        Logbook.begin(tmp_path / "b", outline(), ARM, at=5)
    with Ledger.read(tmp_path / "a") as ledger:
        assert len(ledger.curve("a0-s0", "train_loss")) == 10
    fresh = Logbook.begin(tmp_path / "a", outline(task="lines"), ARM, fresh=True)
    fresh.interrupt()
    assert Result(tmp_path / "a").task == "lines"
