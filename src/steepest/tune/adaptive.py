"""Trials that follow from the scores of earlier ones: any single-objective sampler of Optuna.

The trials are asked for and told in turns, so that they count, run and are written down exactly as
those of any other method. Optuna (Akiba et al., KDD 2019) is an extra; nothing else imports it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.errors import InputError, UnsupportedError, unknown_name
from steepest.extras import need
from steepest.tune._checks import whole
from steepest.tune.sampling import check_size
from steepest.tune.space import Space
from steepest.values import Choice

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["Proposer", "sampler_names"]


def sampler_names() -> tuple[str, ...]:
    """The samplers that the installed Optuna has: ``tpe`` for its ``TPESampler`` and so on.

    Raises:
        UnsupportedError: If Optuna is not installed.

    >>> "tpe" in sampler_names()
    True
    """
    return tuple(sorted(_samplers(_optuna())))


class Proposer:
    """Asks a sampler of Optuna for settings and tells it their scores.

    Deterministic: the same space, sampler, seed, batches and scores give the same settings.
    Resuming is therefore a replay: make a new one, ask for the same batches, and tell at once what
    the ledger holds. The order in which the runs of a batch end does not matter.

    Optuna sees the places of the settings in the unit cube (`Space.position`), so that the scales
    are the same as for every other method. A trial that diverged or failed is told as pruned,
    which TPE ranks below all others and other samplers leave out.

    Args:
        space: With at least one dimension.
        sampler: One of `sampler_names`. TPE draws its first 10 trials at random.
        seed: Of the sampler.
        higher_is_better: Which side of the scores is good.

    Raises:
        InputError: For an unknown sampler or a space with nothing to search.
        UnsupportedError: If Optuna, or what the sampler needs beside it, is not installed.

    >>> from steepest.tune import Range
    >>> proposer = Proposer(Space({"lr": Range(1e-4, 1e-1)}), sampler="random", seed=0)
    >>> len(proposer.ask(2))
    2
    >>> proposer.tell(0, 0.3)
    >>> proposer.tell(1, None)
    >>> sorted(proposer.ask(1)[0])
    ['lr']
    """

    def __init__(
        self,
        space: Space,
        *,
        sampler: str = "tpe",
        seed: int = 0,
        higher_is_better: bool = False,
    ) -> None:
        optuna = _optuna()
        known = _samplers(optuna)
        if sampler not in known:
            raise unknown_name("Optuna sampler", str(sampler), known)
        whole("the seed of a search", seed, least=0)
        check_size(space, 1)
        self.space = space
        self._optuna = optuna
        self._open: list[int] = []
        self._told: dict[int, float | None] = {}
        self._distributions = {
            name: optuna.distributions.CategoricalDistribution(range(len(d.values)))
            if isinstance(d, Choice)
            else optuna.distributions.FloatDistribution(0.0, 1.0)
            for name, d in space.dimensions.items()
        }
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
        try:
            self._study: Study = optuna.create_study(
                sampler=known[sampler](seed=seed),
                direction="maximize" if higher_is_better else "minimize",
            )
        except ImportError as error:
            raise _lacks(sampler, error) from error
        finally:
            optuna.logging.set_verbosity(level)
        self._sampler = sampler

    def ask(self, n: int) -> list[dict[str, Any]]:
        """The next ``n`` settings; their trials are numbered on from the last, the first is 0.

        Raises:
            InputError: While trials of the last batch have not been told, since what comes next
                depends on them.
        """
        whole("the number of trials", n)
        missing = [number for number in self._open if number not in self._told]
        if missing:
            raise InputError(
                f"trials {', '.join(map(str, missing))} have no score yet, and the next settings "
                "depend on them; tell them first (None for one that failed)"
            )
        for number in sorted(self._told):
            score = self._told[number]
            if score is None:
                self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(number, score)
        self._told.clear()
        try:
            trials = [self._study.ask(self._distributions) for _ in range(n)]
        except ImportError as error:
            raise _lacks(self._sampler, error) from error
        self._open = [trial.number for trial in trials]
        return [self.space.at(self._point(trial.params)) for trial in trials]

    def tell(self, trial: int, score: float | None) -> None:
        """The score of a trial of the last batch; None, or no finite number: it failed.

        Raises:
            InputError: For a trial that was not asked for, or was told already.
        """
        if trial not in self._open or trial in self._told:
            reason = "was told already" if trial in self._told else "is none of the last batch"
            raise InputError(f"trial {trial} {reason}; open: {self._open or 'none'}")
        self._told[trial] = score if score is not None and math.isfinite(score) else None

    def _point(self, params: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(
            [
                (params[name] + 0.5) / len(d.values) if isinstance(d, Choice) else params[name]
                for name, d in self.space.dimensions.items()
            ]
        )


def _optuna() -> Any:
    methods = "or use the methods sobol, random or grid, which need nothing"
    return need("optuna", extra="optuna", instead=methods)


def _lacks(sampler: str, error: ImportError) -> UnsupportedError:
    return UnsupportedError(
        f"Optuna's sampler {sampler} needs a package that is not installed: {error}; install it, "
        "or use tpe"
    )


def _samplers(optuna: ModuleType) -> dict[str, Any]:
    """Those that need nothing but a seed, by their lower-case name without ``Sampler``."""
    found = {}
    for name in optuna.samplers.__all__:
        if not name.endswith("Sampler") or name.startswith("Base"):
            continue
        cls = getattr(optuna.samplers, name)
        parameters = inspect.signature(cls).parameters.values()
        if all(p.default is not p.empty for p in parameters):
            found[name.removesuffix("Sampler").lower()] = cls
    return found
