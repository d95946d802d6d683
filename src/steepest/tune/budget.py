"""How much is spent on tuning, the same for every arm, and with which seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steepest.errors import InputError, unknown_name
from steepest.tune._checks import whole

__all__ = ["BUDGETS", "FIRST_TUNING_SEED", "Budget", "resolve", "tuning_seeds"]

FIRST_TUNING_SEED = 1_000_000_000
"""Tuning seeds count up from here; final seeds count up from 0. They do not meet."""


@dataclass(frozen=True)
class Budget:
    """What each arm may spend.

    Attributes:
        trials: Settings that are tried.
        tuning_seeds: Runs of each setting while tuning.
        seeds: Runs of the chosen setting in the final stage.

    >>> BUDGETS["quick"].runs
    14
    """

    trials: int
    tuning_seeds: int
    seeds: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole("the number of " + name.replace("_", " "), value)

    @property
    def runs(self) -> int:
        """Runs of an arm in both stages together."""
        return self.trials * self.tuning_seeds + self.seeds


BUDGETS: dict[str, Budget] = {
    # 6 seeds are the fewest with which two arms can be told apart at 95 %, because no p-value of
    # the sign-flip test is below 2/2^n; 10 are enough for all pairs of five arms, and 20 leave
    # room for noise (steepest.stats.seeds_to_decide_at_all; Holm's correction, first look). A race
    # with more arms takes more by itself.
    "quick": Budget(trials=8, tuning_seeds=1, seeds=6),
    "standard": Budget(trials=16, tuning_seeds=1, seeds=10),
    "thorough": Budget(trials=32, tuning_seeds=3, seeds=20),
}


def resolve(
    budget: str | Budget = "standard",
    *,
    trials: int | None = None,
    tuning_seeds: int | None = None,
    seeds: int | None = None,
) -> Budget:
    """A named budget, with what was given explicitly in place of its own numbers.

    Raises:
        InputError: For an unknown name or a number below 1.

    >>> resolve("quick", seeds=10)
    Budget(trials=8, tuning_seeds=1, seeds=10)
    >>> resolve("standart")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: unknown budget 'standart'; did you mean 'standard'? Known: ...
    """
    if not isinstance(budget, Budget):
        if budget not in BUDGETS:
            raise unknown_name("budget", str(budget), BUDGETS)
        budget = BUDGETS[budget]
    given = {"trials": trials, "tuning_seeds": tuning_seeds, "seeds": seeds}
    return replace(budget, **{name: n for name, n in given.items() if n is not None})


def tuning_seeds(count: int, *, finals: Sequence[int]) -> tuple[int, ...]:
    """The seeds of the tuning stage: `FIRST_TUNING_SEED` and the following.

    Args:
        count: How many.
        finals: The seeds of the final stage.

    Raises:
        InputError: If a final seed is among them: its numbers would come from a run that helped
            to choose the setting.

    >>> tuning_seeds(2, finals=range(10))
    (1000000000, 1000000001)
    """
    whole("the number of tuning seeds", count)
    seeds = tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count))
    shared = sorted(set(seeds) & set(finals))
    if shared:
        raise InputError(
            f"the seed {shared[0]} is for tuning (those from {FIRST_TUNING_SEED} on are), so it "
            f"cannot be a seed of the final stage; choose seeds below {FIRST_TUNING_SEED}"
        )
    return seeds
