"""What was asked for about tuning, and what comes of it for these arms and this task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steepest import tune
from steepest.errors import InputError, unknown_name
from steepest.racing.arm import Arm
from steepest.racing.spec import Measure, TuningSpec
from steepest.stats import look_level, seeds_to_decide_at_all
from steepest.train.task import Task
from steepest.tune import adaptive

__all__ = ["SEEDS", "Wishes"]

SEEDS = 6
"""Of a race without tuned arms, unless it takes more to decide: enough for two arms at 95 %."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked for; None: nothing was said.

    Attributes:
        budget: ``quick``, ``standard`` or ``thorough``.
        trials: Settings of each tuned arm.
        tuning_seeds: Runs of each setting.
        method: How settings are proposed.
        widen: How often spaces may be widened.
        defaults: Whether defaults run beside the tuned arms.
    """

    budget: str | None = None
    trials: int | None = None
    tuning_seeds: int | None = None
    method: str | None = None
    widen: int | None = None
    defaults: bool = False

    def final_seeds(self, arms: Sequence[Arm], *, level: float) -> int:
        """How many seeds the final stage has if nobody says: never too few to decide anything.

        Args:
            arms: What is compared: the more pairs, the more seeds the smallest p-value needs.
            level: Confidence of all decisions together.

        >>> from steepest.racing.arm import parse
        >>> arms = [parse(f"adam(lr={lr})") for lr in range(1, 9)]
        >>> [Wishes().final_seeds(arms[:n], level=0.95) for n in (1, 2, 3, 8)]
        [6, 6, 8, 11]
        """
        seeds = self._resolved().seeds if any(arm.space for arm in arms) else SEEDS
        pairs = max(1, len(arms) * (len(arms) - 1) // 2)
        return max(seeds, seeds_to_decide_at_all(look_level(level, 1), pairs))

    def settle(
        self, task: Task, arms: Sequence[Arm], *, seeds: Sequence[int], steps: int, train_on: str
    ) -> TuningSpec | None:
        """How the arms are tuned; None if all of them were given a setting.

        Raises:
            InputError: If there is nothing to tune, nothing to choose by, or too little to choose
                from.
        """
        tuned = [arm for arm in arms if arm.space is not None]
        if not tuned:
            self._nothing_asked()
            return None
        if task.val is None:
            why = (
                "and all of it is trained on (train_on='all'); leave that out"
                if train_on == "all"
                else "and the task has none; give it val data"
            )
            raise InputError(
                f"the arm '{tuned[0].label}' is to be tuned: its setting is chosen on validation "
                f"data, {why}, or fix the setting: {tuned[0].middle().text}"
            )
        method = self.method or "sobol"
        resolved = self._resolved()
        if method.startswith("optuna:"):
            known = [f"optuna:{name}" for name in adaptive.sampler_names()]
        else:
            known = [*tune.METHODS, "halving", "optuna:tpe"]
        if method not in known:
            raise unknown_name("tuning method", method, known)
        rungs: tuple[tuple[int, int], ...] = ((resolved.trials, steps),)
        if method == "halving":
            rungs = tuple((r.trials, r.steps) for r in tune.rungs(resolved.trials, steps))
            for arm in tuned:
                if arm.schedule is not None:
                    for _, length in rungs:
                        arm.schedule.check(length)
        name, higher = task.primary
        widen: Any = 0 if self.widen is None else self.widen
        if isinstance(widen, bool) or not isinstance(widen, int) or widen < 0:
            raise InputError(f"widen must be a whole number >= 0, got {self.widen!r}")
        return TuningSpec(
            method=method,
            trials=resolved.trials,
            seeds=tune.tuning_seeds(resolved.tuning_seeds, finals=seeds),
            rungs=rungs,
            chooses=Measure(split="val", metric=name, higher_is_better=higher),
            budget=self.budget or "standard",
            widen=widen,
            defaults=self.defaults,
        )

    def _resolved(self) -> tune.Budget:
        return tune.resolve(
            self.budget or "standard", trials=self.trials, tuning_seeds=self.tuning_seeds
        )

    def _nothing_asked(self) -> None:
        """Raise `InputError` if tuning was asked for."""
        asked: dict[str, Any] = {k: v for k, v in vars(self).items() if v not in (None, False)}
        if asked:
            said = ", ".join(f"{name}={value}" for name, value in asked.items())
            raise InputError(
                f"{said}: this is about tuning, but every arm was given its setting; leave it out, "
                "or let an arm be tuned: a bare name (adam) or a range (adam(lr=1e-4..1e-1))"
            )
