"""Images from folders, IDX and CIFAR files: read as published, augmented alike for every engine."""

import gzip
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import solo_runs
import torch
from PIL import Image

from steepest import tasks
from steepest.errors import DataError, InputError, TaskError, UnsupportedError
from steepest.tasks.images.augment import Augment
from steepest.tasks.images.cifar import unpickled
from steepest.train.dropout import key_dropout
from steepest.train.keyed import step_words
from steepest.train.population import Member, Population
from steepest.train.randomness import run_key


def load(folder, **options):
    written = "".join(f", {key}={value}" for key, value in options.items())
    return tasks.load(f"images(data='{folder}'{written})")


def draw(n, seed, *, channels=3, side=32):
    """Images whose class is which half is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 120, (n, channels, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, : side // 2 if label else side, : side if label else side // 2] += 100
    return images, labels


def idx_bytes(array):
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_idx(folder, *, test=True, packed=True):
    folder.mkdir(exist_ok=True)
    for name, n, seed in (("train", 120, 0), ("t10k", 40, 1))[: 1 + test]:
        images, labels = draw(n, seed, channels=1, side=28)
        parts = {"images-idx3": images[:, 0], "labels-idx1": (labels + 3).astype(np.uint8)}
        for kind, array in parts.items():
            data = idx_bytes(array)
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return folder


def write_cifar(folder, *, binary, fine=False):
    folder.mkdir(exist_ok=True)
    names = ["train", "test"] if fine else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        images, labels = draw(20, seed)
        flat = images.reshape(20, -1)
        if binary:
            columns = [labels[:, None] * 0, labels[:, None]] if fine else [labels[:, None]]
            data = np.concatenate([c.astype(np.uint8) for c in (*columns, flat)], axis=1).tobytes()
            (folder / f"{name}.bin").write_bytes(data)
        else:
            key = b"fine_labels" if fine else b"labels"
            held = {b"data": flat, key: labels.tolist(), b"batch_label": b"x"}
            (folder / name).write_bytes(pickle.dumps(held, protocol=2))
    if not binary and not fine:
        meta = pickle.dumps({b"label_names": [b"left", b"top"]}, protocol=2)
        (folder / "batches.meta").write_bytes(meta)
    return folder


def write_folders(folder, *, sizes=((20, 20),), split=False, mode="RGB"):
    for part in ("train/", "test/") if split else ("",):
        images, labels = draw(60, len(part), channels=3, side=20)
        for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            inside = folder / f"{part}{('왼쪽', 'top')[label]}"
            inside.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels.transpose(1, 2, 0)).convert(mode)
            image.resize(sizes[i % len(sizes)]).save(inside / f"{i}.png")
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_published(tmp_path, packed):
    task = load(write_idx(tmp_path / "fashion", packed=packed))
    assert task.name == "images-fashion"
    x, y = task.test
    images, labels = draw(40, 1, channels=1, side=28)
    assert torch.equal(x, torch.from_numpy(images))
    assert y.tolist() == labels.tolist()
    assert (len(task.train[0]), len(task.val[0])) == (108, 12)
    assert "160 IDX files of fashion (28 x 28, grey), 3 80, 4 80" in task.describe


def test_without_published_test_data_they_are_split_off(tmp_path):
    task = load(write_idx(tmp_path / "d", test=False))
    assert [len(part[0]) for part in (task.train, task.val, task.test)] == [84, 12, 24]


@pytest.mark.parametrize("fine", [False, True])
def test_both_forms_of_cifar_give_the_same_data(tmp_path, fine):
    plain = load(write_cifar(tmp_path / "py", binary=False, fine=fine))
    binary = load(write_cifar(tmp_path / "bin", binary=True, fine=fine))
    for part in ("train", "val", "test"):
        ours, theirs = getattr(plain, part), getattr(binary, part)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    images, labels = draw(20, 1 if fine else 5)
    assert torch.equal(plain.test[0], torch.from_numpy(images))
    assert plain.test[1].tolist() == labels.tolist()
    assert ("left" in plain.describe) == (not fine)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch bombed",)


def test_a_pickle_that_is_a_program_is_refused_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Bomb()}))
    with pytest.raises(DataError, match=r"it asks for posix.system; only numbers, texts and"):
        unpickled(path)
    nested = np.empty(1, dtype=object)
    nested[0] = Bomb()
    path.write_bytes(pickle.dumps({b"data": nested}))
    with pytest.raises(DataError, match=r"it asks for posix.system"):
        unpickled(path)
    assert not (tmp_path / "bombed").exists()


def test_damaged_files_are_told(tmp_path):
    folder = write_cifar(tmp_path / "bin", binary=True)
    (folder / "data_batch_2.bin").write_bytes(b"123")
    with pytest.raises(
        DataError, match=r"data_batch_2.bin holds 3 bytes, no multiple of the 3,073"
    ):
        load(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3.bin of CIFAR"):
        load(folder)
    plain = write_cifar(tmp_path / "py", binary=False)
    (plain / "data_batch_2").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"data_batch_2 cannot be read as a CIFAR file"):
        load(plain)
    (plain / "data_batch_2").write_bytes(pickle.dumps({b"labels": [1]}))
    with pytest.raises(DataError, match=r"data_batch_2 has no 'data'"):
        load(plain)
    (plain / "data_batch_2").write_bytes(pickle.dumps({b"data": np.ones((1, 3)), b"labels": [1]}))
    with pytest.raises(
        DataError, match=r"must be bytes of shape \(1, 3072\), got float64 \(1, 3\)"
    ):
        load(plain)
    idx = write_idx(tmp_path / "idx")
    (idx / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"no"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz is not an IDX file"):
        load(idx)
    (idx / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"expected one IDX file of labels with 't10k' or 'test'"):
        load(idx)


def test_folders_are_classes(tmp_path):
    task = load(write_folders(tmp_path / "flowers"))
    assert "60 images in folders of flowers (20 x 20, in colour), top 30, 왼쪽 30" in task.describe
    assert task.train[0].dtype == torch.uint8
    whole = sorted(x.sum().item() for part in (task.train, task.val, task.test) for x in part[0])
    images, _ = draw(60, 0, side=20)
    assert whole == sorted(image.sum().item() for image in torch.from_numpy(images).long())


def test_folders_with_splits_sizes_and_grey(tmp_path):
    folder = write_folders(tmp_path / "d", split=True, sizes=((20, 20), (30, 24)), mode="L")
    task = load(folder, size=16)
    assert task.test[0].shape == (60, 1, 16, 16)
    assert len(task.train[0]) + len(task.val[0]) == 60
    plain = load(folder)
    assert any("are of 2 sizes" in note for note in plain.notes)
    assert plain.test[0].shape == (60, 1, 64, 64)


def test_folders_that_cannot_be_are_told(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist; data is the folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither a folder per class, nor IDX.*There: nothing"):
        load(tmp_path / "empty")
    folder = write_folders(tmp_path / "d", split=True)
    (folder / "test" / "top").rename(folder / "test" / "topp")
    with pytest.raises(InputError, match=r"class 'topp' is in the test folder only"):
        load(folder)
    single = tmp_path / "single" / "one"
    single.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(single / "a.png")
    with pytest.raises(DataError, match=r"holds one class only, 'one'"):
        load(single.parent)
    (single / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b.png cannot be read as an image"):
        load(single.parent)
    with pytest.raises(InputError, match=r"0 MB at 20 x 20, and limit_mb is 0"):
        load(write_folders(tmp_path / "e"), limit_mb=0)
    with pytest.raises(InputError, match=r"size=8 is for folders of images; IDX files are taken"):
        load(write_idx(tmp_path / "idx"), size=8)


def test_without_pillow_the_install_line_is_printed(tmp_path, monkeypatch):
    folder = write_folders(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnsupportedError, match=r'pip install "steepest\[images\]"'):
        load(folder)


def test_equal_images_stay_together_and_published_leaks_are_told(tmp_path):
    folder = write_folders(tmp_path / "d")
    for path in list((folder / "top").iterdir())[:5]:
        (folder / "top" / f"again{path.name}").write_bytes(path.read_bytes())
    task = load(folder)
    assert any("duplicates: 5 images" in note for note in task.notes)
    held = [{x.numpy().tobytes() for x in part[0]} for part in (task.train, task.val, task.test)]
    assert not held[0] & held[2]
    assert not held[0] & held[1]
    images, labels = draw(120, 0, channels=1, side=28)
    idx = write_idx(tmp_path / "idx")
    (idx / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images[:40, 0])))
    (idx / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(labels[:40].astype(np.uint8) + 3))
    )
    assert any("40 published test images stand among" in note for note in load(idx).notes)


def augmented(module, x, *, seed=0, step=0):
    model = torch.nn.Sequential(module, torch.nn.Identity())
    key = key_dropout(model)
    key.copy_(step_words(run_key(seed), step))
    return model.train()(x)


def test_every_image_is_a_shifted_and_mirrored_one_of_itself():
    x = torch.randint(1, 255, (200, 3, 7, 7), dtype=torch.uint8)
    out = augmented(Augment(flip=True, crop=2), x)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    seen = set()
    for before, image in zip(padded, out, strict=True):
        matches = [
            (flip, dy, dx)
            for flip in (False, True)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(
                (before.flip(-1) if flip else before)[:, dy : dy + 7, dx : dx + 7], image
            )
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 45  # of 50, by 200 draws


def test_shifts_and_flips_are_equally_likely():
    x = torch.zeros(20_000, 1, 5, 5, dtype=torch.uint8)
    x[:, :, 2, 2] = 1
    out = augmented(Augment(flip=False, crop=2), x)
    counts = out.sum(0)[0].double() / len(x)
    assert counts.sub(1 / 25).abs().max() < 4 * (0.04 * 0.96 / 20_000) ** 0.5
    y = torch.zeros(20_000, 1, 1, 2, dtype=torch.uint8)
    y[..., 0] = 1
    share = augmented(Augment(flip=True, crop=0), y)[..., 1].double().mean()
    assert abs(share - 0.5) < 4 * 0.5 / 20_000**0.5


def test_augmentation_is_a_function_of_seed_and_step_and_off_in_evaluation():
    x = torch.randint(0, 255, (16, 1, 9, 9), dtype=torch.uint8)
    module = Augment(flip=True, crop=3)
    first = augmented(module, x)
    torch.manual_seed(5)
    assert torch.equal(first, augmented(module, x))
    assert not torch.equal(first, augmented(module, x, step=1))
    assert not torch.equal(first, augmented(module, x, seed=1))
    assert module.eval()(x) is x
    with pytest.raises(InputError, match=r"crop must be 0 to 60 pixels, got 61"):
        Augment(flip=False, crop=61)


def test_a_member_sees_the_images_that_its_run_alone_sees(tmp_path):
    task = load(write_folders(tmp_path / "d"), flip="true", crop=3)
    members = [Member(solo_runs.sgd, None, seed) for seed in (0, 1)]
    population = Population(task, members, steps=4, batch_size=12)
    chunks = population.advance(4)
    for place in (0, 1):
        run = solo_runs.solo(task, optimizer=solo_runs.sgd, seed=place, steps=4, batch_size=12)
        torch.testing.assert_close(run.advance(4).loss, chunks[place].loss, rtol=2e-3, atol=1e-4)
    plain = load(tmp_path / "d")
    run = solo_runs.solo(plain, optimizer=solo_runs.sgd, seed=0, steps=4, batch_size=12)
    assert abs(run.advance(4).loss - chunks[0].loss).max() > 0.01


def test_an_augmented_run_that_was_stopped_goes_on_bitwise(tmp_path):
    task = load(write_idx(tmp_path / "d"), flip="true", crop=2)
    whole, first, second = (solo_runs.solo(task, steps=6, batch_size=16) for _ in range(3))
    whole.advance(6)
    first.advance(2)
    second.restore(first.state())
    second.evaluate("val")
    second.advance(4)
    assert solo_runs.bits(second) == solo_runs.bits(whole)


def test_it_learns_what_is_there_to_learn(tmp_path):
    task = load(write_idx(tmp_path / "d"), crop=1)
    run = solo_runs.solo(task, seed=0, steps=40, batch_size=16)
    run.advance(40)
    assert run.evaluate("test")["accuracy"] == 1.0


def test_pixels_are_standardised_over_the_training_data(tmp_path):
    task = load(write_idx(tmp_path / "d"))
    x = task.model()[0](task.train[0]).double()
    assert abs(x.mean()) < 1e-6
    assert x.std(correction=0).item() == pytest.approx(1, rel=1e-5)


def test_too_small_images_are_the_models_own_error(tmp_path):
    folder = tmp_path / "tiny"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (1, 1), i * 9 + (name == "b")).save(folder / name / f"{i}.png")
    with pytest.raises(TaskError, match="the model raised"):
        solo_runs.solo(load(folder), steps=1, batch_size=2)
