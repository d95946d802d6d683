from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats as scipy_stats

from steepest.errors import InputError, LedgerError, UnsupportedError
from steepest.racing.ledger import Ledger
from steepest.racing.result import Result
from steepest.train.task import Task, build_model

SGD = "torch.optim:SGD(lr=0.1)"
ADAM = "torch.optim:Adam(lr=0.01)"
Race = Callable[..., Result]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return {"folder": tmp_path_factory.mktemp("result")}  # filled by the first test that races


@pytest.fixture
def result(shared: dict[str, Result], race: Race) -> Result:
    folder = shared["folder"]
    return race(
        folder / "r",
        {"sgd": SGD, "adam": ADAM + " + cosine()", "wild": "torch.optim:SGD(lr=1e20)"},
        seeds=[0, 1, 4],
        epochs=3,
        eval_every=4,
        target="accuracy=0.6",
    )


def test_the_table_has_one_row_per_run_with_all_settings(result: Result) -> None:
    table = result.to_dataframe()
    assert len(table) == 9
    assert set(zip(table.arm, table.seed, strict=True)) == {
        (arm, seed) for arm in ("sgd", "adam", "wild") for seed in (0, 1, 4)
    }
    row = table[(table.arm == "adam") & (table.seed == 4)].iloc[0]
    assert (row.lr, row.schedule, row.optimizer) == (0.01, "cosine()", "torch.optim:Adam")
    assert (row.status, row.steps, row.planned_steps, row.batch_size) == ("done", 30, 30, 16)


def test_ranking_and_differences_are_those_of_pandas(result: Result) -> None:
    table = result.to_dataframe()
    means = table[table.status == "done"].groupby("arm")["test_accuracy"].mean()
    by_label = {row.label: row for row in result.ranking}
    for arm, mean in means.items():
        assert by_label[arm].mean == pytest.approx(mean, rel=1e-12)
        values = table[table.arm == arm]["test_accuracy"]
        low, high = scipy_stats.t.interval(0.95, 2, loc=mean, scale=scipy_stats.sem(values))
        assert (by_label[arm].low, by_label[arm].high) == pytest.approx((low, high))
    order = means.sort_values(ascending=False).index.tolist()
    assert [row.label for row in result.ranking] == [*order, "wild"]
    assert (by_label["wild"].n, by_label["wild"].diverged) == (0, 3)
    assert math.isnan(by_label["wild"].mean)
    wide = table.pivot_table(index="seed", columns="arm", values="test_accuracy")
    pair = result.verdict.pair("sgd", "adam")
    assert pair.comparison.difference == pytest.approx((wide.sgd - wide.adam).mean(), abs=1e-12)
    assert pair.comparison.n == 3
    assert pair.comparison.p_value >= 0.25


def test_final_metrics_are_those_of_the_stored_weights(result: Result, task: Task) -> None:
    x, y = task.test
    for run in result.runs:
        if run.status != "done":
            continue
        model = build_model(task, run.seed).eval()
        weights = load_file(result.folder / "weights" / f"{run.run_id}.safetensors")
        model.load_state_dict(weights)
        with torch.no_grad():
            right = (model(x).argmax(1) == y).double().mean()
        assert run.metrics["test_accuracy"] == float(right)


def test_start_weights_are_those_that_the_seed_gives(result: Result, task: Task) -> None:
    for seed in (0, 1, 4):
        start = load_file(result.folder / "weights" / f"start-s{seed}.safetensors")
        for name, parameter in build_model(task, seed).named_parameters():
            assert torch.equal(start[name], parameter)


def test_time_to_target_is_the_first_evaluation_that_reaches_it(result: Result) -> None:
    for run in result.runs:
        steps, values = result.evaluations("val", "accuracy")[run.arm, run.seed]
        reached = pd.Series(values, index=steps).loc[lambda s: s >= 0.6]
        expected = float(reached.index[0]) if len(reached) else math.inf
        assert run.target_step == expected
        if math.isfinite(expected):
            assert 0 < run.target_seconds <= run.seconds
        else:
            assert run.target_seconds == math.inf
    assert all(r.target_step == math.inf for r in result.runs if r.arm == "wild")


def test_layer_differences_are_those_of_numpy(result: Result) -> None:
    def weights(name: str) -> dict[str, np.ndarray]:
        loaded = load_file(result.folder / "weights" / f"{name}.safetensors")
        return {k: v.double().numpy().ravel() for k, v in loaded.items()}

    rows = {(d.arm_a, d.arm_b, d.layer): d for d in result.layer_differences()}
    layers = ["0.weight", "0.bias", "3.weight", "3.bias"]
    pairs = [("sgd", "sgd"), ("sgd", "adam"), ("adam", "adam")]
    assert set(rows) == {(*pair, layer) for pair in pairs for layer in layers}
    seeds = (0, 1, 4)
    sgd = {s: weights(f"a0-s{s}") for s in seeds}
    adam = {s: weights(f"a1-s{s}") for s in seeds}
    start = {s: weights(f"start-s{s}") for s in seeds}
    for layer in layers:
        a, b = [sgd[s][layer] for s in seeds], [adam[s][layer] for s in seeds]
        s0 = [start[s][layer] for s in seeds]
        row = rows["sgd", "adam", layer]
        assert row.n == 3
        assert not row.is_yardstick
        gap = [x - y for x, y in zip(a, b, strict=True)]
        norm = np.linalg.norm
        assert row.mean_difference == pytest.approx(np.mean([g.mean() for g in gap]))
        distance = np.mean([norm(g) / norm(x) for g, x in zip(gap, a, strict=True)])
        assert row.relative_distance == pytest.approx(distance)
        ways = [(x - s, y - s) for x, y, s in zip(a, b, s0, strict=True)]
        assert row.cosine == pytest.approx(np.mean([u @ v / norm(u) / norm(v) for u, v in ways]))
        row = rows["sgd", "sgd", layer]
        assert (row.n, row.is_yardstick) == (2, True)
        distance = np.mean([norm(a[i] - a[i + 1]) / norm(a[i]) for i in (0, 1)])
        assert row.relative_distance == pytest.approx(distance)


def test_a_result_is_the_same_from_a_moved_folder(result: Result, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(result.folder, tmp_path / "moved")
    moved = Result(tmp_path / "moved")
    assert moved.verdict.text == result.verdict.text
    assert str(moved.runs) == str(result.runs)
    assert str(moved.layer_differences()) == str(result.layer_differences())


def test_the_stored_verdict_is_what_the_runs_say(result: Result) -> None:
    assert str(result.verdict) == str(result.judge())
    assert str(result.verdict.to_dict()) == str(result.judge().to_dict())


def test_what_a_single_seed_would_have_claimed_is_counted(result: Result) -> None:
    wide = result.to_dataframe().pivot_table(
        index="seed", columns="arm", values="test_accuracy", dropna=False
    )
    (row,) = (r for r in result.verdict.single_seed if (r.a, r.b) == ("sgd", "adam"))
    assert row.a_ahead == (wide.sgd > wide.adam).sum()
    assert row.b_ahead == (wide.sgd < wide.adam).sum()
    assert row.ties == (wide.sgd == wide.adam).sum()
    crossed = wide.sgd.to_numpy()[:, None] > wide.adam.to_numpy()[None, :]
    assert row.a_ahead_unpaired == pytest.approx(crossed.mean())


def test_curves_can_be_asked_for_by_arm_and_seed(result: Result) -> None:
    assert set(result.curves(arm="sgd")) == {("sgd", 0), ("sgd", 1), ("sgd", 4)}
    assert set(result.curves("lr", seed=4)) == {("sgd", 4), ("adam", 4), ("wild", 4)}
    with pytest.raises(InputError, match="did you mean 'sgd'"):
        result.curves(arm="sgdd")
    with pytest.raises(InputError, match="unknown seed '7'"):
        result.curves(seed=7)
    with pytest.raises(InputError, match="did you mean 'train_loss'"):
        result.curves("trainloss")


def test_the_protocol_says_how_it_was_done(result: Result) -> None:
    protocol = result.protocol()
    assert protocol["command"] == "pytest"
    assert protocol["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(protocol["start_hashes"]) == {"0", "1", "4"}
    assert protocol["created"] <= protocol["finished"]


def test_without_pandas_the_table_says_what_to_install(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnsupportedError, match=r'pip install "steepest\[pandas\]"'):
        result.to_dataframe()


def test_a_lost_weight_file_is_named(result: Result, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(result.folder, tmp_path / "r")
    (tmp_path / "r" / "weights" / "a1-s1.safetensors").unlink()
    with pytest.raises(LedgerError, match=r"a1-s1\.safetensors cannot be read"):
        Result(tmp_path / "r").layer_differences()


def test_a_ledger_that_lost_the_place_of_weights_says_so(tmp_path: Path, race: Race) -> None:
    race(tmp_path, [SGD, ADAM])
    with Ledger.write(tmp_path) as ledger, ledger.transaction():
        ledger._connection.execute("DELETE FROM checkpoints WHERE run_id = 'a1-s1'")
    with pytest.raises(LedgerError, match="knows no weights of a1-s1, although they are done"):
        Result(tmp_path).layer_differences()
