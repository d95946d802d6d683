"""Curves come out of every kind of record as they went in, and bad records are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from steepest.diagnosing import Curves, Series, read
from steepest.errors import DataError, InputError

LOSS = [2.3, 1.1, 0.8, 0.6]


def test_a_csv_with_sparse_rows_as_lightning_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train_loss,val_loss,lr-Adam\n0,10,2.3,,\n0,20,1.1,,\n0,20,,1.5,\n,,,,\n"
        "1,30,0.8,,\n1,40,nan,1.2,0.001\n"
    )
    (curves,) = read(path)
    assert curves.train_loss is not None
    assert curves.train_loss.at.tolist() == [10, 20, 30, 40]
    assert curves.train_loss.values[:3].tolist() == LOSS[:3]
    assert math.isnan(curves.train_loss.values[3])
    assert curves.val_loss is not None
    assert curves.val_loss.at.tolist() == [20, 40]
    assert curves.lr is not None
    assert curves.lr.values.tolist() == [0.001]


def test_an_export_of_weights_and_biases_with_the_run_in_front(tmp_path: Path) -> None:
    path = tmp_path / "wandb.csv"
    path.write_text(
        '"Step","run-3 - train/loss","run-3 - train/loss__MIN","run-3 - train/loss__MAX"\n'
        + "".join(f"{i},{v},0,9\n" for i, v in enumerate(LOSS))
    )
    (curves,) = read(path)
    assert curves.train_loss is not None
    assert curves.train_loss.values.tolist() == LOSS
    assert curves.train_loss.at.tolist() == [0, 1, 2, 3]


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "verlust.csv"
    path.write_text("Schritt;Verlust\n1;2,3\n2;1,1\n")
    (curves,) = read(path, columns={"train_loss": "Verlust", "step": "Schritt"})
    assert curves.train_loss is not None
    assert curves.train_loss.values.tolist() == [2.3, 1.1]


def test_rows_per_batch_beside_an_epoch_column_are_counted_as_steps(tmp_path: Path) -> None:
    path = tmp_path / "batches.csv"
    path.write_text("epoch,loss\n" + "".join(f"{i // 5},{2 - i / 20}\n" for i in range(20)))
    (curves,) = read(path)
    assert curves.unit == "step"
    assert curves.train_loss is not None
    assert curves.train_loss.at.tolist() == list(range(1, 21))


@pytest.mark.parametrize(
    "history",
    [
        {"loss": LOSS, "val_loss": LOSS, "accuracy": LOSS, "learning_rate": [1e-3] * 4},
        SimpleNamespace(history={"loss": LOSS, "val_loss": LOSS, "lr": [1e-3] * 4}, epoch=[0]),
    ],
)  # fmt: skip
def test_a_keras_history(history: Any, tmp_path: Path) -> None:
    (curves,) = read(history)
    assert (curves.unit, curves.train_loss.values.tolist()) == ("epoch", LOSS)
    assert curves.lr.values.tolist() == [1e-3] * 4
    path = tmp_path / "history.json"
    path.write_text(json.dumps(getattr(history, "history", history)))
    (again,) = read(path)
    assert again.val_loss.values.tolist() == LOSS


def test_a_real_keras_history() -> None:
    keras = pytest.importorskip("keras", reason="Keras is an extra")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((8, 2), "float32")
    history = model.fit(x, x[:, :1], epochs=3, verbose=0, validation_data=(x, x[:, :1]))
    (curves,) = read(history)
    assert curves.train_loss.values.tolist() == history.history["loss"]
    assert len(curves.val_loss) == 3


def state() -> dict[str, Any]:
    log: list[dict[str, Any]] = [
        {"epoch": i / 4, "learning_rate": 1e-3 / i, "loss": LOSS[i - 1], "step": 100 * i}
        for i in range(1, 5)
    ]  # fmt: skip
    log.insert(
        2, {"epoch": 0.5, "eval_loss": 1.4, "eval_accuracy": 0.6, "eval_runtime": 2, "step": 200}
    )
    log.append({"epoch": 1.0, "train_loss": 1.2, "train_runtime": 9.0, "step": 400})
    return {"global_step": 400, "log_history": log}


def test_a_hugging_face_trainer_state_and_the_newest_checkpoint(tmp_path: Path) -> None:
    for number in (90, 400):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        held = state()
        held["log_history"] = held["log_history"][: 3 if number == 90 else None]
        (folder / "trainer_state.json").write_text(json.dumps(held))
    (curves,) = read(tmp_path)
    assert curves.train_loss.at.tolist() == [100, 200, 300, 400]
    assert curves.train_loss.values.tolist() == LOSS
    assert curves.val_loss.values.tolist() == [1.4]
    assert curves.lr.values[1] == 5e-4
    assert "eval_accuracy" in curves.metrics
    assert len(read(state()["log_history"])[0].train_loss) == 4


def test_tensorboard_event_files_one_run_per_folder(tmp_path: Path) -> None:
    writer_module = pytest.importorskip("torch.utils.tensorboard", reason="TensorBoard is an extra")
    for name in ("a", "b"):
        with writer_module.SummaryWriter(str(tmp_path / name)) as writer:
            for i, value in enumerate(LOSS, start=1):
                writer.add_scalar("Loss/train", value, i * 10)
                writer.add_scalar("lr", 0.1, i * 10)
            writer.add_scalar("Loss/val", 1.5, 40)
    found = read(tmp_path)
    assert [curves.name for curves in found] == [f"{tmp_path.name}/a", f"{tmp_path.name}/b"]
    assert found[0].train_loss.at.tolist() == [10, 20, 30, 40]
    assert found[0].train_loss.values == pytest.approx(LOSS)
    assert found[0].val_loss.values.tolist() == [1.5]


def test_epochs_beside_steps_are_laid_over_the_same_stretch() -> None:
    held = {"step": list(range(1, 101)), "loss": [1.0] * 100}
    (curves,) = read(held)
    assert curves.unit == "step"
    columns = {
        "loss": [(float(i), 1.0) for i in range(1, 101)],
        "val_loss": [(1.0, 2.0), (2.0, 1.0)],
    }
    from steepest.diagnosing.readers.columns import build

    mixed = build(
        "mixed", columns, {"train_loss": "loss", "val_loss": "val_loss"}, unit="step", baseline=None
    )
    assert mixed.val_loss.at.tolist() == [50.0, 100.0]
    assert "evenly spread" in mixed.notes[0]


BAD: dict[str, tuple[str, str, str]] = {
    "empty": ("a.csv", "", "is empty"),
    "a head and nothing below": ("a.csv", "step,loss\n", "no rows below"),
    "one point": ("a.csv", "step,loss\n1,2.3\n", "has 1 value; a diagnosis needs at least 2"),
    "no numbers": ("a.csv", "name,colour\na,red\nb,blue\n", "no column with numbers; its columns"),
    "no loss": ("a.csv", "step,speed\n1,2\n2,3\n", "no column is known to be a loss.*speed.*step"),
    "not JSON": ("a.json", "{", "is not JSON"),
    "another JSON": ("a.json", '{"model_type": "bert"}', "holds no curves.*'model_type'"),
    "JSON of nothing": ("a.json", "3", "holds no curves.*int"),
    "a list of words": ("a.json", '{"loss": ["a", "b"]}', "'loss' must be a list of numbers"),
    "a silent trainer": ("a.json", '{"log_history": []}', "holds no numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_what_was_found(case: str, tmp_path: Path) -> None:
    name, text, message = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_the_nearest_column_is_named() -> None:
    with pytest.raises(InputError, match="unknown column 'los'; did you mean 'loss'"):
        read({"loss": LOSS}, columns={"train_loss": "los"})


def test_a_rate_that_never_changed_can_be_said_instead_of_recorded() -> None:
    (curves,) = read({"loss": LOSS}, columns={"lr": "constant"})
    assert curves.lr.values.tolist() == [1.0] * 4
    (named,) = read({"loss": LOSS, "constant": [3.0] * 4}, columns={"lr": "constant"})
    assert named.lr.values.tolist() == [3.0] * 4


def test_a_missing_file_and_a_folder_without_curves(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"runs\.csv does not exist; in .* there is: notes\.txt"):
        read(tmp_path / "runs.csv")
    with pytest.raises(DataError, match="holds no curves; expected a race's folder"):
        read(tmp_path)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="is not a text file"):
        read(tmp_path / "picture.csv")


def test_what_cannot_be_read_at_all() -> None:
    with pytest.raises(InputError, match="got float"):
        read(3.5)
    with pytest.raises(InputError, match="no loss to look at"):
        Curves(name="x")
    with pytest.raises(InputError, match="baseline must be a number > 0"):
        read({"loss": LOSS}, baseline=-1.0)
    with pytest.raises(InputError, match="must increase; 2 is followed by 1"):
        Series([1, 2, 1], [1.0, 1.0, 1.0])
