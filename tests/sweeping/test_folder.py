"""A sweep's folder: it survives interruptions, goes on, and is all that its result needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import steepest
from steepest.errors import InputError, LedgerError
from steepest.racing.journal import FILE
from steepest.racing.observer import StoppedError
from steepest.sweeping import measure, sweep
from steepest.sweeping.folder import read_sweep
from steepest.train.solo import SoloRun

KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import steepest
from test_folder import ASKED, points

def look(done, total):
    if done >= {at}:
        os.kill(os.getpid(), signal.SIGKILL)

steepest.sweep(points(), "sgd", out={out!r}, progress=look, **ASKED)
"""
ASKED = {"lr": (1e-3, 1e3), "rates": 12, "seeds": 3, "steps": 30}


def points():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    return steepest.Task(
        name="points", model=lambda: nn.Linear(4, 1), loss=nn.functional.mse_loss,
        train=(x, x.sum(1, keepdim=True)), batch_size=8,
    )  # fmt: skip


def found(result):
    """Everything but where it lies and how long it took."""
    return result.to_dict() | {"folder": "", "seconds": 0}


def rows(folder):
    lines = [json.loads(line) for line in (Path(folder) / FILE).read_text().splitlines()]
    return [line["row"] for line in lines if "row" in line]


def presses(at):
    """Ctrl-C once so many run-steps are done."""
    left = [at]

    def look(done, total):
        if left and done >= left[0]:
            left.clear()
            os.kill(os.getpid(), signal.SIGINT)

    return look


@pytest.fixture
def never(monkeypatch):
    def raises(*a, **k):
        raise AssertionError

    def forbid():
        for name in ("hold", "grow", "why_not_batched"):
            monkeypatch.setattr(sweep, name, raises)

    return forbid


def test_a_row_is_one_pass_with_one_seed_with_the_losses_to_the_last_bit(tmp_path):
    result = steepest.sweep(points(), "sgd", out=tmp_path, **ASKED)
    units = [(row["pass"], row["seed"]) for row in rows(tmp_path)]
    assert units == [(name, seed) for name in ("coarse", "fine") for seed in range(3)]
    ended = 0
    for row in rows(tmp_path):
        assert len(row["rates"]) == len(row["losses"]) == {"coarse": 12, "fine": 13}[row["pass"]]
        for lr, losses in zip(row["rates"], row["losses"], strict=True):
            assert np.isfinite(losses).all()
            assert np.array_equal(np.float32(losses), losses)  # as the run had them
            ended += len(losses) < 30
            alone = SoloRun(
                points(), optimizer=lambda p, lr=lr: steepest.optim.SGD(p, lr=lr), schedule=None,
                seed=row["seed"], steps=30,
            )  # fmt: skip
            expected = alone.advance(30).loss[: len(losses)]
            np.testing.assert_allclose(losses[:5], expected[:5], rtol=1e-4)
    assert ended > 3  # rates up to 1000 blow up before 30 steps are done
    assert result.steps_done == (12 + 13) * 3 * 30
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in rows(tmp_path)))


@pytest.mark.parametrize("classical", [False, True])
def test_an_interrupted_sweep_goes_on_to_the_same_findings_bit_by_bit(tmp_path, classical):
    asked = ASKED | {"classical": classical}
    whole = steepest.sweep(points(), "sgd", out=tmp_path / "whole", **asked)
    # in the first seed, in the second, right after it, and in the pass around the edge
    stops = (10, 250, 410) if classical else (100, 400, 720, 1300, 2000)
    kept = []
    for at in stops:
        with pytest.raises(StoppedError, match=r"finished are kept in .*, the one that was under"):
            steepest.sweep(points(), "sgd", out=tmp_path / "cut", progress=presses(at), **asked)
        kept.append(len(rows(tmp_path / "cut")))
    assert kept == ([0, 1, 2] if classical else [0, 1, 2, 3, 5])
    cut = steepest.sweep(points(), "sgd", out=tmp_path / "cut", **asked)
    assert found(cut) == found(whole)
    assert np.array_equal(cut.findings.ends, whole.findings.ends)
    there = [{**row, "seconds": 0} for row in rows(tmp_path / "cut")]
    assert there == [{**row, "seconds": 0} for row in rows(tmp_path / "whole")]


def test_a_killed_sweep_goes_on_to_the_same_findings(tmp_path):
    whole = steepest.sweep(points(), "sgd", out=tmp_path / "whole", **ASKED)
    cut = tmp_path / "cut"
    for at in (500, 1500):
        script = KILLED.format(here=str(Path(__file__).parent), at=at, out=str(cut))
        ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(rows(cut)) == 4
    assert found(steepest.sweep(points(), "sgd", out=cut, **ASKED)) == found(whole)


def test_a_finished_sweep_is_read_and_nothing_is_trained(tmp_path, never):
    result = steepest.sweep(points(), "sgd", out=tmp_path, **ASKED)
    never()
    again = steepest.sweep(points(), "sgd", out=tmp_path, **ASKED)
    read = steepest.SweepResult.read(tmp_path)
    assert again.to_dict() == read.to_dict() == result.to_dict()
    assert read.sentences == result.sentences
    page = read.report()
    assert page == tmp_path / "report.html"
    assert result.headline in page.read_text()
    assert read.report(tmp_path / "other").read_text() == page.read_text()
    assert read.draw(tmp_path / "s.svg").is_file()


def test_why_it_was_measured_so_is_kept(tmp_path, never):
    arm = "sgd(lr=1e-3..1) + cosine()"
    with pytest.raises(StoppedError):
        steepest.sweep(points(), arm, classical=True, seeds=2, out=tmp_path, progress=presses(250))
    never()
    with pytest.raises(AssertionError):  # it goes on to train, and does not ask again
        steepest.sweep(points(), arm, classical=True, seeds=2, out=tmp_path)


def test_the_reason_and_what_was_left_out_are_in_the_result(tmp_path):
    arm = "sgd(lr=1e-3..1) + cosine()"
    asked = {"rates": 6, "seeds": 1, "steps": 10}
    grown = steepest.sweep(points(), arm, classical=True, out=tmp_path / "grown", **asked)
    assert grown.reason == "as was asked for; its schedule cosine() is left out"
    held = steepest.sweep(points(), arm, out=tmp_path / "held", **asked)
    assert held.reason == "60 run-steps as populations; its schedule cosine() is left out"


def test_what_does_not_fit_into_memory_is_halved_and_said(tmp_path, monkeypatch):
    whole = steepest.sweep(points(), "sgd", out=tmp_path / "whole", **ASKED)
    train = measure._train

    def small(task, members, *a, **k):
        if len(members) > 6:
            raise MemoryError
        return train(task, members, *a, **k)

    monkeypatch.setattr(measure, "_train", small)
    halved = steepest.sweep(points(), "sgd", out=tmp_path / "halved", **ASKED)
    np.testing.assert_allclose(halved.findings.ends, whole.findings.ends, rtol=1e-4)
    assert halved.events == (
        "12 runs at a time do not fit into memory; halved",
        "13 runs at a time do not fit into memory; halved",
        "7 runs at a time do not fit into memory; halved",
    )
    assert "12 runs at a time do not fit into memory; halved." in halved.report().read_text()


def test_an_unfinished_sweep_says_how_far_it_is(tmp_path):
    parts = {
        1: "nothing of it is measured yet",
        400: "measured are the grid of rates with 1 of 3 seeds",
        1300: "the grid of rates with 3 of 3 seeds, the rates around the edge with 0 of 3 seeds",
    }
    for at, words in parts.items():
        with pytest.raises(StoppedError):
            steepest.sweep(points(), "sgd", out=tmp_path, progress=presses(at), **ASKED)
        with pytest.raises(LedgerError, match=f"is not finished: .*{words}.*same command again"):
            steepest.SweepResult.read(tmp_path)


def test_another_sweep_in_the_folder_is_refused_unless_fresh(tmp_path):
    small = {"rates": 6, "seeds": 1, "steps": 10, "out": tmp_path}
    steepest.sweep(points(), "sgd", **small)
    with pytest.raises(LedgerError, match="holds another sweep: rates is 6 there and 7 here"):
        steepest.sweep(points(), "sgd", **small | {"rates": 7})
    with pytest.raises(LedgerError, match=r"arm is sgd\(\) there and adam\(\) here"):
        steepest.sweep(points(), "adam", **small)
    assert len(steepest.sweep(points(), "adam", fresh=True, **small).findings.rates) == 6
    with pytest.raises(LedgerError, match="holds a sweep of another kind"):
        steepest.average(points(), "sgd(lr=0.1)", seeds=1, steps=5, out=tmp_path)


def test_studies_and_sweeps_are_told_apart(tmp_path):
    steepest.sweep(points(), "sgd", rates=6, seeds=1, steps=10, out=tmp_path / "sweep")
    steepest.average(points(), "sgd(lr=0.1)", seeds=1, steps=5, out=tmp_path / "study")
    with pytest.raises(LedgerError, match="folder of a sweep, not of a study; steepest report"):
        steepest.StudyResult(tmp_path / "sweep")
    with pytest.raises(LedgerError, match=r"folder of a study \(average\), not of a sweep"):
        read_sweep(tmp_path / "study")
    with pytest.raises(LedgerError, match="no study"):
        read_sweep(tmp_path)


def test_without_a_folder_it_lies_under_one_that_is_named_by_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"rates": 6, "seeds": 1, "steps": 10}
    one = steepest.sweep(points(), "sgd", **small)
    assert one.folder.parent == Path("runs")
    assert one.folder.name.startswith("points-sweep-sgd-")
    assert steepest.sweep(points(), "sgd", **small).folder == one.folder
    other = steepest.sweep(points(), "torch.optim:SGD(lr=1)", **small)
    assert other.folder.name.startswith("points-sweep-torch.optim-SGD-")
    assert len(list(Path("runs").iterdir())) == 2
    assert one.report() == one.folder / "report.html"


def test_a_sweep_of_a_live_model_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"loader": [(torch.ones(8, 4), torch.ones(8, 1))], "loss": nn.functional.mse_loss,
                "steps": 30, "seeds": 1}  # fmt: skip
    result = steepest.sweep(model, optimizer, **settings)
    assert result.folder is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="has no folder that the report could go to"):
        result.report()
    assert result.report("sweep.html") == Path("sweep.html")
    for given in ({"out": tmp_path}, {"fresh": True}):
        with pytest.raises(InputError, match="writes nothing, so it has no folder"):
            steepest.sweep(model, optimizer, **settings, **given)
