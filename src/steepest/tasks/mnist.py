"""The three MNIST tasks: a ConvNet, a perceptron with one hidden layer, logistic regression.

The data are inside the package: 60,000 training and 10,000 test images of LeCun, Cortes and
Burges (CC BY-SA 3.0, see ``data/LICENSE-MNIST.txt``).

**The split.** Validation takes the *last* 10,000 training images: a fixed block needs no random
generator, is the same in every version of every library, and is the customary choice, so numbers
compare. Its digits are as frequent as those of the other 50,000 within 0.8 percentage points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.tasks.idx import read
from steepest.tasks.scores import accuracy
from steepest.train.task import Task

__all__ = ["MEAN", "STD", "ConvNet", "accuracy", "mnist", "mnist_logreg", "mnist_mlp"]

MEAN, STD = 0.1302, 0.3069
"""Mean and standard deviation with which pixels in [0, 1] are normalised."""

_FOLDER = Path(__file__).parent / "data"
_HELD_OUT = 10_000
_FILES = {  # MD5 of the unpacked files, as the database's mirrors publish them
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}

TrainOn = Literal["train", "all"]


class ConvNet(nn.Module):
    """Two 3x3 convolutions, one max-pool, two fully connected layers, two dropouts.

    ``[B, 1, 28, 28] -> [B, 16, 26, 26] -> [B, 32, 24, 24] -> [B, 32, 12, 12] -> 64 -> 10``

    >>> model = ConvNet()
    >>> sum(p.numel() for p in model.parameters())
    300426
    >>> model(torch.zeros(2, 1, 28, 28)).exp().sum(1).detach().allclose(torch.ones(2))
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.dropout1 = nn.Dropout2d(0.10)
        self.fc1 = nn.Linear(4608, 64)
        self.dropout2 = nn.Dropout(0.25)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of the ten digits."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = self.dropout2(F.relu(self.fc1(x.flatten(1))))
        return F.log_softmax(self.fc2(x), dim=1)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def _logreg() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def _split(kind: Literal["train", "t10k"]) -> tuple[Tensor, Tensor]:
    """Fresh tensors from the bytes that were read once: whoever changes theirs changes no other."""
    images, labels = (
        read(_FOLDER / name, md5=_FILES[name])
        for name in (f"{kind}-images-idx3-ubyte.gz", f"{kind}-labels-idx1-ubyte.gz")
    )
    x = torch.from_numpy(images.astype("float32"))
    x.mul_(1 / (255 * STD)).sub_(MEAN / STD)
    return x.unsqueeze(1), torch.from_numpy(labels.astype("int64"))


def _task(
    name: str,
    *,
    model: Callable[[], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    describe: str,
    train_on: TrainOn,
) -> Task:
    x, y = _split("train")
    cut = len(x) if train_on == "all" else len(x) - _HELD_OUT
    return Task(
        name=name,
        model=model,
        loss=loss,
        train=(x[:cut], y[:cut]),
        val=None if train_on == "all" else (x[cut:], y[cut:]),
        test=_split("t10k"),
        metrics={"accuracy": accuracy},
        batch_size=32,
        describe=describe,
    )


def mnist(*, train_on: TrainOn = "train") -> Task:
    """MNIST with the ConvNet: 300,426 parameters."""
    return _task(
        "mnist",
        model=ConvNet,
        loss=F.nll_loss,
        describe="MNIST digits, ConvNet 1-16-32 with fc 64 and dropout",
        train_on=train_on,
    )


def mnist_mlp(*, train_on: TrainOn = "train") -> Task:
    """MNIST with a perceptron 784-128-10: 101,770 parameters."""
    return _task(
        "mnist-mlp",
        model=_mlp,
        loss=F.cross_entropy,
        describe="MNIST digits, perceptron 784-128-10",
        train_on=train_on,
    )


def mnist_logreg(*, train_on: TrainOn = "train") -> Task:
    """MNIST with multinomial logistic regression: 7,850 parameters, a convex problem."""
    return _task(
        "mnist-logreg",
        model=_logreg,
        loss=F.cross_entropy,
        describe="MNIST digits, logistic regression 784-10",
        train_on=train_on,
    )
