"""`steepest average`, `ensemble` and `transfer` as a user runs them."""

from __future__ import annotations

import json

import pytest
import torch

ARM = "sgd(lr=0.5)"


@pytest.fixture
def run(steepest, task_file, tmp_path):
    def words(verb, *more):
        return steepest(verb, f"{task_file}:task", "--arm", ARM, "--out", tmp_path / verb, *more)

    return words


def test_average_prints_the_comparison_and_writes_the_page(run, steepest, tmp_path):
    done = run("average", "--method", "polyak", "--method", "ema", "--seeds", 2, "--steps", 20)
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "the Polyak mean cannot be told from the raw weights on points" in text.replace(
        "The EMA (0.999)", "the Polyak mean"
    )
    assert "report.html" in text
    page = (tmp_path / "average" / "report.html").read_text()
    assert "steepest" in page
    again = run("average", "--method", "polyak", "--method", "ema", "--seeds", 2, "--steps", 20,
                "--json")  # fmt: skip
    values = json.loads(again.out)
    shown = steepest("report", tmp_path / "average", "--json", "--out", tmp_path / "other.html")
    assert json.loads(shown.out)["rows"] == values["rows"]
    assert (tmp_path / "other.html").is_file()
    assert [v["key"] for v in values["variants"]] == ["raw", "ema", "polyak"]
    assert values["complete"] is True
    assert [row["seed"] for row in values["rows"]] == [0, 1]


def test_ensembles_of_both_kinds(run):
    members = json.loads(run("ensemble", "--members", 2, "--seeds", 2, "--steps", 8, "--json").out)
    assert members["kind"] == "members"
    assert {c["b"] for c in members["contrasts"]} == {"best", "mean", "hindsight"}
    cut = run("ensemble", "--snapshots", 2, "--seeds", 2, "--steps", 8, "--json", "--fresh")
    snapshots = json.loads(cut.out)
    assert snapshots["kind"] == "snapshots"
    assert snapshots["spec"]["cycle_ends"] == [4, 8]


def test_transfer_from_a_file_of_weights(steepest, task_file, tmp_path):
    text = task_file.read_text()
    deeper = "nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))"
    task_file.write_text(text.replace("nn.Linear(5, 2)", deeper))
    torch.manual_seed(0)
    other = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 7))
    torch.save(other.state_dict(), tmp_path / "w.pth")
    words = ("transfer", f"{task_file}:task", "--arm", ARM, "--weights", tmp_path / "w.pth",
             "--amounts", "10, 40", "--seeds", 2, "--steps", 5,
             "--out", tmp_path / "t")  # fmt: skip
    values = json.loads(steepest(*words, "--head", "2", "--json").out)
    assert values["spec"]["amounts"] == [10, 40]
    assert len(values["contrasts"]) == 4
    wrong = steepest(*words, "--head", "fc", "--fresh")
    assert wrong.code == 2
    assert "no module 'fc'; nearest: 2 (Linear), 0 (Linear)" in " ".join(wrong.err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("average", "--method", "ema", "--decay", "2"), "less than 1, got 2.0"),
        (("average", "--start", "1.5"), "start is a part of the run"),
        (("ensemble",), "give one of the two"),
        (("ensemble", "--members", "1"), "at least 2 members, got 1"),
        (("ensemble", "--snapshots", "9", "--steps", "8"), "do not fit into a run of 8 steps"),
        (("transfer",), "give one of the two"),
        (("transfer", "--weights", "w.pth", "--amounts", "ten"), "separated by commas"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(run, words, said):
    done = run(*words)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err
