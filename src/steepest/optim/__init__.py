"""The optimizers: torch.optim's classes, computed by our rules and engines.

>>> import torch
>>> from steepest import optim
>>> model = torch.nn.Linear(3, 1)
>>> optimizer = optim.NAdam(model.parameters(), lr=1e-2)
>>> optim.build("adam", model.parameters(), lr=1e-2, beta1=0.8).param_groups[0]["betas"]
(0.8, 0.999)
"""

from steepest.optim.build import build, from_rule
from steepest.optim.facade import Facade
from steepest.optim.faces import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
)

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Facade",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "build",
    "from_rule",
]
