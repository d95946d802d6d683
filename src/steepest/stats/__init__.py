"""Intervals, tests, curves and decisions: NumPy and SciPy only.

tests.py        tests without assumptions about the noise, and their inversion
intervals.py    intervals of means: sign-flip, Student, BCa
power.py        how many seeds it takes to find a difference
verdict.py      better, worse, undecided
sequential.py   looking again after more seeds
single.py       what single runs would have claimed
curves.py       what is read off a curve, and off the trials of a search
aggregate.py    several tasks at once
importance.py   which hyperparameters the trials of a search differ by
"""

from steepest.stats.aggregate import (
    interquartile_mean,
    normalised_scores,
    performance_profile,
    score_profile,
)
from steepest.stats.curves import (
    BestOfK,
    NearBest,
    best_of_k_band,
    expected_best_of_k,
    moving_average,
    near_best_width,
    steps_to_target,
    upper_envelope,
)
from steepest.stats.importance import Importance, Importances, importances, trials_needed
from steepest.stats.intervals import (
    bca_interval,
    mean_interval,
    median_interval,
    sign_flip_interval,
    student_interval,
)
from steepest.stats.power import SEED_CAP, seeds_for_power
from steepest.stats.sequential import decide_looks, look_level
from steepest.stats.single import OneSeed, one_seed
from steepest.stats.tests import floor_p, seeds_to_decide_at_all, sign_flip_test
from steepest.stats.verdict import Comparison, Decision, PairVerdict, compare, decide_all, holm

__all__ = [
    "SEED_CAP",
    "BestOfK",
    "Comparison",
    "Decision",
    "Importance",
    "Importances",
    "NearBest",
    "OneSeed",
    "PairVerdict",
    "bca_interval",
    "best_of_k_band",
    "compare",
    "decide_all",
    "decide_looks",
    "expected_best_of_k",
    "floor_p",
    "holm",
    "importances",
    "interquartile_mean",
    "look_level",
    "mean_interval",
    "median_interval",
    "moving_average",
    "near_best_width",
    "normalised_scores",
    "one_seed",
    "performance_profile",
    "score_profile",
    "seeds_for_power",
    "seeds_to_decide_at_all",
    "sign_flip_interval",
    "sign_flip_test",
    "steps_to_target",
    "student_interval",
    "trials_needed",
    "upper_envelope",
]
