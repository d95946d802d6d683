"""A task with everything in it that could leak between steps, and short runs of it."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from steepest.train.solo import SoloRun
from steepest.train.task import Task, hash_tensors

G = torch.Generator().manual_seed(0)
X = torch.randn(200, 1, 8, 8, generator=G)
Y = torch.randint(0, 5, (200,), generator=G)


class Net(nn.Module):
    """Everything that could leak between steps: batch norm, dropout of both sorts, numpy noise."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.2)
        self.fc = nn.Linear(144, 5)

    def forward(self, x):
        x = self.drop(F.relu(self.norm(self.conv(x))))
        x = F.dropout(x.flatten(1), 0.1, training=self.training)
        if self.training:
            x = x * (1 + 0.01 * random.random() + 0.01 * np.random.rand())
        return self.fc(x)


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean()


def make(**changes):
    given = {
        "name": "t",
        "model": Net,
        "loss": F.cross_entropy,
        "train": (X[:150], Y[:150]),
        "val": (X[150:], Y[150:]),
        "metrics": {"accuracy": accuracy},
        "batch_size": 16,
        "eval_batch_size": 16,
    }
    return Task(**(given | changes))


TASK = make()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def solo(task=TASK, *, optimizer=adam, schedule=None, seed=0, steps=40, **more):
    return SoloRun(task, optimizer=optimizer, schedule=schedule, seed=seed, steps=steps, **more)


def bits(run):
    return {name: hash_tensors({"": tensor}) for name, tensor in run.state().tensors.items()}
