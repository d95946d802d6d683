"""The formulas: one family per file, no framework.

A rule is written once, as in its paper; everything else (the torch optimizer, the kernels, the
populations) is derived from it. See `rule` for how to add one.
"""

from steepest.rules._domains import DOMAINS, Domain
from steepest.rules._memory import memory_formula, state_bytes
from steepest.rules._modifier import Modifier
from steepest.rules._routing import Assignment, assign, why_not_matrix
from steepest.rules._rule import Rule, get, names, rule
from steepest.rules._slot import Slot, matrix_shape
from steepest.rules.adabelief import adabelief
from steepest.rules.adadelta import adadelta
from steepest.rules.adafactor import adafactor
from steepest.rules.adagrad import adagrad
from steepest.rules.adam import adam, adamw
from steepest.rules.adamax import adamax
from steepest.rules.adan import adan
from steepest.rules.ademamix import ademamix
from steepest.rules.adopt import adopt
from steepest.rules.asgd import asgd
from steepest.rules.lamb import lamb
from steepest.rules.lars import lars
from steepest.rules.lion import lion
from steepest.rules.modifiers import MODIFIERS
from steepest.rules.muon import muon
from steepest.rules.nadam import nadam
from steepest.rules.prodigy import prodigy
from steepest.rules.radam import radam
from steepest.rules.rmsprop import rmsprop
from steepest.rules.rprop import rprop
from steepest.rules.schedulefree import schedulefree_adamw, schedulefree_sgd
from steepest.rules.sgd import sgd
from steepest.rules.shampoo import shampoo
from steepest.rules.signum import signum
from steepest.rules.soap import soap

__all__ = [
    "DOMAINS",
    "MODIFIERS",
    "Assignment",
    "Domain",
    "Modifier",
    "Rule",
    "Slot",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "asgd",
    "assign",
    "get",
    "lamb",
    "lars",
    "lion",
    "matrix_shape",
    "memory_formula",
    "muon",
    "nadam",
    "names",
    "prodigy",
    "radam",
    "rmsprop",
    "rprop",
    "rule",
    "schedulefree_adamw",
    "schedulefree_sgd",
    "sgd",
    "shampoo",
    "signum",
    "soap",
    "state_bytes",
    "why_not_matrix",
]
