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
from steepest.optim.layerwise import LAMB, LARS, Adafactor, Prodigy
from steepest.optim.matrix import SOAP, Muon, Shampoo
from steepest.optim.modern import ADOPT, AdaBelief, Adan, AdEMAMix, Lion, Signum
from steepest.optim.schedulefree import ScheduleFreeAdamW, ScheduleFreeSGD

__all__ = [
    "ADOPT",
    "ASGD",
    "LAMB",
    "LARS",
    "SGD",
    "SOAP",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Facade",
    "Lion",
    "Muon",
    "NAdam",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Shampoo",
    "Signum",
    "build",
    "from_rule",
]
