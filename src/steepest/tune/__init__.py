"""Spaces of hyperparameters, how they are sampled, and budgets that are equal for every arm.

space.py      ranges and choices, and the scales on which they are searched
presets.py    the space of every rule, each number with its source
sampling.py   trials that are settled beforehand: Sobol, random, grid
adaptive.py   trials that follow from scores, through Optuna
halving.py    successive halving
budget.py     how many trials and seeds
select.py     which trial is the best
"""

from steepest.tune.adaptive import Proposer, sampler_names
from steepest.tune.budget import BUDGETS, FIRST_TUNING_SEED, Budget, resolve, tuning_seeds
from steepest.tune.halving import ETA, Rung, promote, rungs, total_steps
from steepest.tune.presets import DEEPOBS_RATES, PRESETS, Preset, preset, rates_only
from steepest.tune.sampling import METHODS, Method, grid_levels, propose
from steepest.tune.select import Selection, best, ranked
from steepest.tune.space import EDGE_SHARE, Edge, Space, customary_scale
from steepest.values import SCALES, Choice, Range, Scale

__all__ = [
    "BUDGETS",
    "DEEPOBS_RATES",
    "EDGE_SHARE",
    "ETA",
    "FIRST_TUNING_SEED",
    "METHODS",
    "PRESETS",
    "SCALES",
    "Budget",
    "Choice",
    "Edge",
    "Method",
    "Preset",
    "Proposer",
    "Range",
    "Rung",
    "Scale",
    "Selection",
    "Space",
    "best",
    "customary_scale",
    "grid_levels",
    "preset",
    "promote",
    "propose",
    "ranked",
    "rates_only",
    "resolve",
    "rungs",
    "sampler_names",
    "total_steps",
    "tuning_seeds",
]
