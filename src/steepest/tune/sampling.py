"""The settings that a search tries, decided before any of them is tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from steepest.errors import InputError, unknown_name
from steepest.tune._checks import whole
from steepest.tune.space import Space
from steepest.values import Choice

__all__ = ["METHODS", "Method", "grid_levels", "propose"]

Method = Literal["sobol", "random", "grid"]
METHODS: tuple[Method, ...] = get_args(Method)


def propose(space: Space, *, method: Method, trials: int, seed: int) -> list[dict[str, Any]]:
    """Exactly ``trials`` settings of a space, all different, the same for the same arguments.

    Every arm of a race gets the same number of trials, whatever the dimension of its space.

    - ``sobol``: a Sobol sequence with Owen's scrambling, which covers every dimension, and every
      small group of them, more evenly than chance does. The first n of a longer search are those
      of a search with n trials. Owen, "Scrambled net variance for integrals of smooth functions",
      Ann. Statist. 25 (1997); the baselines of AlgoPerf (arXiv:2306.07179) are tuned this way.
    - ``random``: independent and uniform. Bergstra & Bengio, JMLR 13 (2012).
    - ``grid``: see `grid_levels`. A grid rarely has exactly ``trials`` points; what is missing is
      filled up with points of ``sobol``, at the end, so that the number of trials is the same for
      every arm.

    Uniform means: on each range's own scale. Settings that differ by less than 1/2000 of a range
    can come out the same decimal (see `Space.at`); in a space of choices alone, none is tried
    twice.

    Args:
        space: With at least one dimension.
        method: One of `METHODS`.
        trials: How many, >= 1.
        seed: Of the scrambling and of ``random``.

    Raises:
        InputError: For a space with nothing to search, with fewer settings than trials, for an
            unknown method, or fewer trials than the method needs.

    >>> from steepest.tune import Range
    >>> space = Space({"lr": Range(1e-4, 1e-1)})
    >>> propose(space, method="grid", trials=4, seed=0)
    [{'lr': 0.0001}, {'lr': 0.001}, {'lr': 0.01}, {'lr': 0.1}]
    >>> propose(space, method="sobol", trials=2, seed=0)
    [{'lr': 0.0017}, {'lr': 0.0182}]
    >>> propose(space, method="gird", trials=4, seed=0)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown method 'gird'; did you mean 'grid'? Known: grid, random, ...
    """
    if method not in METHODS:
        raise unknown_name("method", str(method), METHODS)
    whole("the seed of a search", seed, least=0)
    check_size(space, trials)
    if method == "random":
        rng = np.random.default_rng(seed)
        return _distinct(space, trials, lambda count, _: rng.random((count, space.dim)))
    first = _grid(space, trials) if method == "grid" else []
    return _distinct(space, trials, lambda count, skip: _sobol(space, count, skip, seed), first)


def check_size(space: Space, trials: int) -> None:
    """Raise `InputError` unless a space has that many settings to try."""
    whole("the number of trials", trials)
    if not space.dim:
        fixed = f"only the fixed values {space}" if space.fixed else "no dimension"
        raise InputError(
            f"there is nothing to search: the space has {fixed}; write a range such as "
            "lr=1e-4..1e-1 or a choice such as nesterov={true, false}"
        )
    if space.size < trials:
        raise InputError(
            f"{trials} trials were asked for, but {space} has only {space.size} different "
            f"settings; ask for at most {space.size} trials, or search a range as well"
        )


def grid_levels(space: Space, trials: int) -> dict[str, int]:
    """How many values of each dimension the grid has.

    A choice has all of its values. What remains of ``trials`` is shared out over the ranges: from
    one value each, the range with the fewest (of several, the first) for which the product stays
    within ``trials`` gets one more, until there is none. A range with one value has its middle;
    with more, its ends and even steps between them.

    Raises:
        InputError: If the choices alone have more combinations than there are trials.

    >>> from steepest.tune import Range
    >>> ranges = {"lr": Range(1e-4, 1e-2), "beta1": Range(0.8, 0.99), "weight_decay": Range(0, 1)}
    >>> grid_levels(Space(ranges), 16)
    {'lr': 4, 'beta1': 2, 'weight_decay': 2}
    >>> grid_levels(Space(ranges | {"amsgrad": Choice((True, False))}), 16)
    {'lr': 2, 'beta1': 2, 'weight_decay': 2, 'amsgrad': 2}
    """
    levels = {
        name: len(d.values) if isinstance(d, Choice) else 1 for name, d in space.dimensions.items()
    }
    ranges = [name for name, d in space.dimensions.items() if not isinstance(d, Choice)]
    if math.prod(levels.values()) > trials:
        raise InputError(
            f"a grid of {trials} trials cannot hold the {math.prod(levels.values())} combinations "
            f"of the choices in {space}; ask for more trials, or use sobol"
        )
    while True:
        for name in sorted(ranges, key=lambda key: levels[key]):
            more = levels | {name: levels[name] + 1}
            if math.prod(more.values()) <= trials:
                levels = more
                break
        else:
            return levels


def _grid(space: Space, trials: int) -> list[NDArray[np.float64]]:
    axes = []
    for (_, dimension), count in zip(
        space.dimensions.items(), grid_levels(space, trials).values(), strict=True
    ):
        if isinstance(dimension, Choice):
            axes.append([(i + 0.5) / count for i in range(count)])
        else:
            axes.append([0.5] if count == 1 else list(np.linspace(0.0, 1.0, count)))
    return [np.array(point) for point in itertools.product(*axes)]


def _sobol(space: Space, count: int, skip: int, seed: int) -> NDArray[np.float64]:
    """Points ``skip`` to ``skip + count`` of the scrambled sequence, shape (count, d)."""
    power = max(0, math.ceil(math.log2(skip + count)))  # only whole powers of 2 are balanced
    sampler = qmc.Sobol(space.dim, scramble=True, seed=np.random.default_rng(seed))
    return sampler.random_base2(power)[skip : skip + count]


def _distinct(
    space: Space,
    trials: int,
    draw: Callable[[int, int], NDArray[np.float64]],
    first: Sequence[NDArray[np.float64]] = (),
) -> list[dict[str, Any]]:
    """The first settings, and what is drawn until there are enough; none twice where few exist."""
    found = [space.at(point) for point in first]
    finite = math.isfinite(space.size)
    drawn = 0
    while len(found) < trials:
        count = trials - len(found)
        for point in draw(count, drawn):
            setting = space.at(np.clip(point, 0.0, 1.0))
            if not (finite and setting in found):
                found.append(setting)
        drawn += count
    return found[:trials]
