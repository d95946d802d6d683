r"""Learning-rate schedules: pure functions of the step.

    s  step                from 0, the first step of the optimizer
    T  total steps of the run
    W  steps of warmup
    m  multiplier of the base learning rate, which is the highest of the run: 0 <= m <= 1

During warmup every schedule rises in a straight line from 0, as in Hugging Face's trainer:
:math:`m(s) = m(W)\, s/W` for :math:`s < W`. What follows takes place in the other T - W steps.
Past the end, ``s >= T``, the multiplier is that of ``s = T``.

Arguments that are lengths of time are whole numbers of steps (``warmup=500``) or fractions of the
run (``warmup=0.05``).

>>> cosine(warmup=0.05)(525, 1000)
0.5
>>> parse("cosine(warmup=0.05)") == cosine(warmup=0.05)
True
"""

from steepest.schedules._schedule import Schedule, names
from steepest.schedules.decays import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    polynomial,
    step,
    wsd,
)
from steepest.schedules.text import parse
from steepest.schedules.waves import cosine_restarts, cyclic, one_cycle

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "linear",
    "names",
    "one_cycle",
    "parse",
    "polynomial",
    "step",
    "wsd",
]
