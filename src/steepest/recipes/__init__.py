"""Seven steps from nothing to a trained model that one can believe in, each with a gate.

records.py   what was asked for, what was found, kept as JSON
probes.py    what can be known before training
trials.py    settings of an arm, and short races over them
kitchen.py   what every step has at hand
checking.py  steps 1 to 3: is anything wrong before time is spent
searching.py steps 4 to 7: grid, longer runs, diagnosis, refining
steps.py     their table
follow.py    one after the other
"""

from steepest.recipes.follow import Watcher, follow
from steepest.recipes.records import TITLES, Chart, Line, Record, Settings, State

__all__ = ["TITLES", "Chart", "Line", "Record", "Settings", "State", "Watcher", "follow"]
