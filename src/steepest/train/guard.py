r"""A guard against blow-ups: it stops a run that diverges, and has the weights from before.

    l_s  training loss of step s, before its update
    r    reference: the running median of the last ``window`` losses, or that of the first ones
    f    factor

A step is *high* if its loss is not finite, above ``threshold``, or if :math:`l_s - r > (f-1)\,|r|`,
which for positive losses is :math:`l_s > f r`. It is *calm* if the same holds for no more than
twice the reference: :math:`l_s - r \le |r|` (for f < 2: not high). A loss that is not finite, or
above the threshold, ends the run at once; ``steps`` high steps in a row do, too, dated back to
the first of them. High losses do not enter the running median, so that a blow-up cannot raise
what it is compared with.

Weights are worth keeping if the step that they came out of *and* the next one, the first that was
computed with them, were both calm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from steepest.errors import InputError, unknown_name
from steepest.numbers import amount, significant
from steepest.train.keep import KeptWeights
from steepest.train.words import read_settings

__all__ = ["DivergenceGuard", "GuardRule", "Guarded", "Watch"]

_FRESH = 10  # losses between two evaluations of the running median
_FIRST = 10  # losses whose median is the start's


@dataclass(frozen=True, kw_only=True)
class GuardRule:
    """When a run has blown up; see `steepest.train.guard`.

    Attributes:
        factor: How far above its reference a loss is high; None: only what is not finite, or
            above the threshold, is.
        of: The reference: ``median`` of the last losses, or the ``start``.
        window: How many last losses.
        steps: How many high steps in a row are a blow-up.
        threshold: A loss above it ends the run at once.
        every: Steps between two keepings of the weights.

    >>> GuardRule(factor=0.5)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: factor must be a number > 1, got 0.5
    """

    factor: float | None = 10.0
    of: Literal["median", "start"] = "median"
    window: int = 100
    steps: int = 10
    threshold: float | None = None
    every: int = 100

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, least in (("window", 10), ("steps", 1), ("every", 1)):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")
        for name, low in (("factor", 1.0), ("threshold", -math.inf)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InputError(f"{name} must be a number, got {value!r}")
            if not low < value < math.inf:
                raise InputError(f"{name} must be a number > {low:g}, got {value!r}")
        if self.of not in ("median", "start"):
            raise unknown_name("reference (of)", str(self.of), ("median", "start"))

    @property
    def text(self) -> str:
        """As a command line has it."""
        plain = asdict(GuardRule())
        changed = {k: v for k, v in asdict(self).items() if v != plain[k]}
        return ", ".join(f"{k}={v}" for k, v in changed.items()) or f"factor={self.factor:g}"

    @classmethod
    def parse(cls, text: str) -> GuardRule:
        """Read ``factor=5, steps=20`` or ``threshold=100``.

        >>> GuardRule.parse("factor=5, of=start").factor
        5
        """
        return cls(**read_settings(text, asdict(GuardRule()), kind="the guard"))


class Watch:
    """The counting of a `GuardRule`, without any weights.

    Attributes:
        rule: When a run has blown up.
        calm: Whether the last loss was calm, see `steepest.train.guard`.
        high: High steps in a row, the last one among them.
        since: The first of them.
        blown_at: The first step of the blow-up, or None.
        reason: Why, in words.
    """

    def __init__(self, rule: GuardRule) -> None:
        self.rule = rule
        self.calm = True
        self.high = 0
        self.since: int | None = None
        self.blown_at: int | None = None
        self.reason = ""
        self._recent: list[float] = []
        self._seen = 0
        self._reference: float | None = None

    def see(self, step: int, loss: float) -> bool:
        """Take a step's loss; whether the run has blown up."""
        if self.blown_at is not None:
            return True
        rule = self.rule
        if not math.isfinite(loss):
            return self._blow(step, f"its loss was not finite at step {step}")
        if rule.threshold is not None and loss > rule.threshold:
            much = f"{significant(loss)} at step {step}, above {significant(rule.threshold)}"
            return self._blow(step, f"its loss was {much}")
        reference, factor = self._reference, rule.factor
        self.calm = True
        if reference is None or factor is None:
            return self._pass(loss)
        above, size = loss - reference, abs(reference)
        self.calm = above <= min(1.0, factor - 1) * size
        if above <= (factor - 1) * size:
            return self._pass(loss)
        self.since = step if self.since is None else self.since
        self.high += 1
        if self.high < rule.steps:
            return False
        of = "its running median" if rule.of == "median" else "its start"
        return self._blow(
            self.since,
            f"its loss was more than {significant(factor)} × {of} of {significant(reference)} for "
            f"{amount(self.high, 'step')} from step {self.since} on",
        )

    def _pass(self, loss: float) -> bool:
        self.high, self.since = 0, None
        self._learn(loss)
        return False

    def _blow(self, step: int, reason: str) -> bool:
        self.calm, self.blown_at, self.reason = False, step, reason
        return True

    def _learn(self, loss: float) -> None:
        """A loss that is not high moves the reference, in its time."""
        self._seen += 1
        most = self.rule.window if self.rule.of == "median" else _FIRST
        if self.rule.of == "median" or self._seen <= _FIRST:
            self._recent = [*self._recent[-(most - 1) :], loss]
            if self._seen % _FRESH == 0:
                self._reference = float(np.median(self._recent))

    def state_dict(self) -> dict[str, Any]:
        """Plain values for `load_state_dict`."""
        return {"rule": asdict(self.rule), **{name: getattr(self, name) for name in _STATE}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises:
            InputError: If it was taken under another rule.
        """
        if state["rule"] != asdict(self.rule):
            raise InputError(
                f"this state was saved with the guard {state['rule']}, and {asdict(self.rule)} is "
                "asked for now; give the same"
            )
        for name in _STATE:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)


_STATE = ("calm", "high", "since", "blown_at", "reason", "_recent", "_seen", "_reference")


class Guarded:
    """A run under a guard: the engines' side of it, with the weights in memory.

    It sees a step's loss before the step's update, so the parameters are those that gave the
    loss: where that is calm, they are worth keeping at once.

    Args:
        rule: When the run has blown up.
    """

    def __init__(self, rule: GuardRule) -> None:
        self.watch = Watch(rule)
        self._due = 0
        self._safe: dict[str, Tensor] = {}

    def see(self, step: int, loss: float, own: Mapping[str, Tensor]) -> bool:
        """Take a step's loss; whether the run ends.

        Args:
            step: Number of the step, from 0.
            loss: Its loss.
            own: The run's parameters and buffers.
        """
        if self.watch.see(step + 1, loss):  # whose words count from 1, as ledgers do
            return True
        if self.watch.calm and step >= self._due:
            self._safe = {name: tensor.detach().clone() for name, tensor in own.items()}
            self._due = step + self.watch.rule.every
        return False

    def put_back(self, own: Mapping[str, Tensor]) -> None:
        """Overwrite the run's parameters and buffers with those from before the blow-up."""
        with torch.no_grad():
            for name, value in self._safe.items():
                own[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"watch": self.watch.state_dict(), "due": self._due, "safe": dict(self._safe)}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Go on where the state was taken.

        Raises:
            InputError: If the checkpoint was written without a guard, or under another one.
        """
        if state is None:
            raise InputError(
                "this checkpoint was written without a guard, and one is asked for now"
            )
        self.watch.load_state_dict(state["watch"])
        self._due = state["due"]
        self._safe = dict(state["safe"])


class DivergenceGuard(Watch):
    """Watches a training loop of your own, and brings back the weights from before a blow-up.

    Args:
        factor: How far above its reference a loss is high; None: only what is not finite, or
            above the threshold, is.
        of: The reference: the running ``median`` of the last losses, or the ``start``.
        window: How many last losses.
        steps: How many high steps in a row are a blow-up.
        threshold: A loss above it ends training at once.
        every: Steps between two keepings of the weights.
        folder: Where they are kept, as safetensors files; None: in a temporary folder.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1)
    >>> guard = DivergenceGuard(factor=10, steps=3, every=5)
    >>> for step in range(100):
    ...     loss = 1.0 if step < 42 else 50.0      # it blows up at step 42
    ...     if guard.update(step, loss, model):    # after loss.backward() and optimizer.step()
    ...         break
    >>> step, guard.blown_at, guard.restore(model)
    (44, 42, 40)
    >>> print(guard.reason)
    its loss was more than 10 × its running median of 1 for 3 steps from step 42 on
    """

    def __init__(
        self,
        *,
        factor: float | None = 10.0,
        of: Literal["median", "start"] = "median",
        window: int = 100,
        steps: int = 10,
        threshold: float | None = None,
        every: int = 100,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(
            GuardRule(
                factor=factor, of=of, window=window, steps=steps, threshold=threshold, every=every
            )
        )
        self.safe = KeptWeights("calm", folder)
        self._next = KeptWeights("next", folder)
        self._due = 0

    def update(self, step: int, loss: float, model: nn.Module) -> bool:
        """Take a step's loss; whether to stop.

        Call it in every step after ``optimizer.step()``. The weights of the start are not kept,
        so a run that blows up in its very first steps has nothing to go back to.

        Args:
            step: Number of the step.
            loss: Its training loss.
            model: Whose parameters and buffers are kept now and then.
        """
        stop = self.see(step, float(loss))
        if self._next.path is not None:
            if self.calm:
                self.safe, self._next = self._next, self.safe
            self._next.drop()
        if not stop and self.calm and step >= self._due:
            self._next.keep(model, step)
            self._due = step + self.rule.every
        return stop

    def restore(self, model: nn.Module) -> int:
        """Write the weights from before the blow-up into the model; the step they came out of.

        Raises:
            InputError: If it blew up before any weights were kept.
            LedgerError: If the file is gone or damaged.
        """
        if self.safe.path is None:
            raise InputError(
                "the run blew up before any of its weights were known to be good; begin again "
                "with a smaller learning rate or with a warmup"
            )
        return self.safe.restore(model)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, to be saved beside the model's and the optimizer's state."""
        kept = {"safe": self.safe.state(), "next": self._next.state(), "due": self._due}
        return {**super().state_dict(), "kept": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where the state was taken."""
        super().load_state_dict(state)
        self.safe.load_state(state["kept"]["safe"])
        self._next.load_state(state["kept"]["next"])
        self._due = state["kept"]["due"]
