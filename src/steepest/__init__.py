"""steepest: which optimizer, learning rate and schedule for my model and data, and how sure?

The public names are loaded when they are first used, so that ``import steepest`` costs little
more than torch itself and pulls in no optional package.

>>> import steepest
>>> {"race", "load", "resume"} <= set(steepest.__all__)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest import optim, rules, schedules, tasks
    from steepest.adapters import hf, keras, lightning, optax
    from steepest.api import (
        MultiResult,
        RaceResult,
        load,
        race,
        resume,
    )
    from steepest.auditing import audit
    from steepest.craft import diagnose, recipe
    from steepest.errors import SteepestError
    from steepest.ranging import SweepResult, sweep
    from steepest.reporting.schedules import draw_schedules
    from steepest.searching import SearchResult, search
    from steepest.studying import StudyResult, average, ensemble, transfer
    from steepest.train.guard import DivergenceGuard
    from steepest.train.stopping import EarlyStopping
    from steepest.train.task import Metric, Task

__version__ = "0.1.0"

__all__ = [
    "DivergenceGuard",
    "EarlyStopping",
    "Metric",
    "MultiResult",
    "RaceResult",
    "SearchResult",
    "SteepestError",
    "StudyResult",
    "SweepResult",
    "Task",
    "__version__",
    "audit",
    "average",
    "diagnose",
    "draw_schedules",
    "ensemble",
    "hf",
    "keras",
    "lightning",
    "load",
    "optax",
    "optim",
    "race",
    "recipe",
    "resume",
    "rules",
    "schedules",
    "search",
    "sweep",
    "tasks",
    "transfer",
]

# name -> (module, attribute); an empty attribute means the module itself
_PUBLIC = {
    "DivergenceGuard": ("steepest.train.guard", "DivergenceGuard"),
    "EarlyStopping": ("steepest.train.stopping", "EarlyStopping"),
    "Metric": ("steepest.train.task", "Metric"),
    "MultiResult": ("steepest.api", "MultiResult"),
    "RaceResult": ("steepest.api", "RaceResult"),
    "SearchResult": ("steepest.searching", "SearchResult"),
    "SteepestError": ("steepest.errors", "SteepestError"),
    "StudyResult": ("steepest.studying", "StudyResult"),
    "SweepResult": ("steepest.ranging", "SweepResult"),
    "Task": ("steepest.train.task", "Task"),
    "audit": ("steepest.auditing", "audit"),
    "diagnose": ("steepest.craft", "diagnose"),
    "average": ("steepest.studying", "average"),
    "ensemble": ("steepest.studying", "ensemble"),
    "transfer": ("steepest.studying", "transfer"),
    "draw_schedules": ("steepest.reporting.schedules", "draw_schedules"),
    "hf": ("steepest.adapters.hf", ""),
    "keras": ("steepest.adapters.keras", ""),
    "lightning": ("steepest.adapters.lightning", ""),
    "load": ("steepest.api", "load"),
    "optax": ("steepest.adapters.optax", ""),
    "optim": ("steepest.optim", ""),
    "race": ("steepest.api", "race"),
    "recipe": ("steepest.craft", "recipe"),
    "resume": ("steepest.api", "resume"),
    "rules": ("steepest.rules", ""),
    "schedules": ("steepest.schedules", ""),
    "search": ("steepest.searching", "search"),
    "sweep": ("steepest.ranging", "sweep"),
    "tasks": ("steepest.tasks", ""),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'steepest' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
