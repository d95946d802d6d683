r"""Early stopping: train until what is watched has not improved for a while, and keep the best.

    v_k  the watched number at evaluation k
    b    the best one so far, at evaluation k*
    d    what an improvement is at least: min_delta, or min_delta |b| where it is relative

Evaluation k improves if :math:`v_k < b - d` (``min``) or :math:`v_k > b + d` (``max``): strictly,
so that an equal value is none. Training stops at the first evaluation k with
:math:`k - k^* \ge` ``patience``. A value that is not a number never improves. Prechelt, "Early
stopping, but when?", 1998 (there class UP counts successive worsenings; this one is the criterion
of Keras and Lightning).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from steepest.errors import InputError, unknown_name
from steepest.numbers import amount, significant
from steepest.train.keep import KeptWeights
from steepest.train.words import read_settings

__all__ = ["EarlyStopping", "StopRule", "Stopper"]

Mode = Literal["min", "max"]

# Parts of names that say which side of a metric is good.
_LOW = ("loss", "error", "perplexity", "ppl", "mse", "mae", "rmse", "nll", "wer", "cer")
_HIGH = ("acc", "auc", "f1", "precision", "recall", "bleu", "rouge", "iou", "dice", "r2", "map")


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When to stop; see `steepest.train.stopping`.

    Attributes:
        monitor: The name of the watched number, such as ``val_loss``.
        mode: Which side is good; None: told from the name. It stays None where the name does not
            tell, and the first evaluation then asks for it.
        min_delta: What an improvement is at least; 0: any strict improvement.
        min_delta_mode: ``absolute``, or ``relative`` to the best value's size.
        patience: How many evaluations in a row may fail to improve.

    >>> StopRule(monitor="val_loss", patience=3).mode
    'min'
    >>> StopRule(monitor="val_loss", patience=0)
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: patience must be a whole number of evaluations >= 1, got 0
    """

    monitor: str = "val_loss"
    mode: Mode | None = None
    min_delta: float = 0.0
    min_delta_mode: Literal["absolute", "relative"] = "absolute"
    patience: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        given: Any = self.patience
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InputError(f"patience must be a whole number of evaluations >= 1, got {given!r}")
        delta: Any = self.min_delta
        if not isinstance(delta, (int, float)) or not 0 <= delta < math.inf:
            raise InputError(f"min_delta must be a number >= 0, got {delta!r}")
        if self.min_delta_mode not in ("absolute", "relative"):
            raise unknown_name("min_delta_mode", str(self.min_delta_mode), ("absolute", "relative"))
        if self.mode is None:
            object.__setattr__(self, "mode", _mode_of(self.monitor))
        if self.mode not in ("min", "max", None):
            raise unknown_name("mode", str(self.mode), ("min", "max"))

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value improves on the best one so far.

        >>> StopRule(monitor="val_loss", min_delta=0.1).is_better(0.89, 1.0)
        True
        >>> StopRule(monitor="val_loss", min_delta=0.1, min_delta_mode="relative").is_better(9, 10)
        False
        """
        if math.isnan(value):
            return False
        if best is None:
            return True
        if math.isinf(best):  # anything on the good side of it; a margin of it would be infinite
            return value < best if self.mode == "min" else value > best
        margin = self.min_delta * (abs(best) if self.min_delta_mode == "relative" else 1.0)
        return value < best - margin if self.mode == "min" else value > best + margin

    @property
    def text(self) -> str:
        """As a command line has it."""
        plain = {**_PLAIN, "mode": _mode_of(self.monitor)}
        changed = [f"{k}={v}" for k, v in asdict(self).items() if v != plain.get(k, v)]
        return ", ".join([self.monitor, *changed])

    @classmethod
    def parse(cls, text: str) -> StopRule:
        """Read ``val_loss, patience=5, min_delta=1e-3``.

        >>> StopRule.parse("val_accuracy, patience=3").mode
        'max'
        """
        known = {**_PLAIN, "monitor": "val_loss"}
        return cls(**read_settings(text, known, kind="early stopping", bare="monitor"))


_PLAIN = {"mode": None, "min_delta": 0.0, "min_delta_mode": "absolute", "patience": 5}


def _mode_of(monitor: str) -> Mode | None:
    name = monitor.lower()
    if any(part in name for part in _LOW):
        return "min"
    return "max" if any(part in name for part in _HIGH) else None


class Stopper:
    """The counting of a `StopRule`, without any weights.

    Attributes:
        rule: When to stop.
        best: The best value so far; None before the first number.
        best_step: Its step.
        waited: Evaluations since then.
        improved: Whether the last evaluation was the best.
        stopped_at: The step at which to stop, or None.
    """

    def __init__(self, rule: StopRule) -> None:
        self.rule = rule
        self.best: float | None = None
        self.best_step: int | None = None
        self.last_step: int | None = None
        self.waited = 0
        self.improved = False
        self.stopped_at: int | None = None

    def see(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Take an evaluation; whether to stop.

        Raises:
            InputError: If the watched number is not there, or the evaluations are out of order.
        """
        if self.rule.monitor not in metrics:
            raise unknown_name("metric to monitor", self.rule.monitor, metrics)
        if self.rule.mode is None:
            raise InputError(
                f"whether a higher '{self.rule.monitor}' is better cannot be told from its name; "
                "give mode='min' or mode='max'"
            )
        if self.last_step is not None and step <= self.last_step:
            raise InputError(
                f"evaluations must come in order: step {step} after step {self.last_step}; after "
                "going back to an earlier checkpoint, load the state that was saved with it"
            )
        value = float(metrics[self.rule.monitor])
        self.last_step = step
        self.improved = self.rule.is_better(value, self.best)
        if self.improved:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
            if self.waited >= self.rule.patience and self.stopped_at is None:
                self.stopped_at = step
        return self.stopped_at is not None

    @property
    def reason(self) -> str:
        """Why it stopped, in words."""
        seen = (
            "there never was a number"
            if self.best is None
            else (f"the best was {significant(self.best, 4)} at step {self.best_step}")
        )
        return (
            f"stopped at step {self.stopped_at}: {self.rule.monitor} had not improved for "
            f"{amount(self.waited, 'evaluation')}; {seen}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain values for `load_state_dict`."""
        return {
            "rule": asdict(self.rule),
            **{name: getattr(self, name) for name in _STATE},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises:
            InputError: If it was taken under another rule.
        """
        own = asdict(self.rule)
        for name, value in state["rule"].items():
            if own[name] != value:
                raise InputError(
                    f"this state was saved with {name}={value!r}, and {name}={own[name]!r} is "
                    "asked for now; counts under different rules cannot be continued"
                )
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("best", "best_step", "last_step", "waited", "improved", "stopped_at")


class EarlyStopping(Stopper):
    """Early stopping for a training loop of your own; the best weights are kept on disk.

    Args:
        monitor: The name of the watched number in what is handed to `update`.
        mode: ``min`` or ``max``; None: told from the name (``loss``, ``accuracy`` …).
        min_delta: What an improvement is at least, in the metric's units or relative to the best
            value; an improvement is strict, so with 0 an equal value is none.
        min_delta_mode: ``absolute`` or ``relative``.
        patience: How many evaluations (not steps, not epochs) in a row may fail to improve.
        folder: Where the best weights are kept, as one safetensors file; None: in a temporary
            folder, which ends with the process, so that `restore` works and resuming does not.

    Raises:
        InputError: For a patience below 1, an unknown mode, a monitor that is not in the metrics.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> stopper = EarlyStopping("val_loss", patience=2)
    >>> for epoch, loss in enumerate([0.9, 0.5, 0.6, 0.5, 0.4]):
    ...     with torch.no_grad():
    ...         _ = model.weight.fill_(float(epoch))       # train an epoch
    ...     if stopper.update(epoch, {"val_loss": loss}, model):
    ...         break
    >>> epoch, stopper.best, stopper.restore(model), model.weight[0, 0].item()
    (3, 0.5, 1, 1.0)
    >>> print(stopper.reason)
    stopped at step 3: val_loss had not improved for 2 evaluations; the best was 0.5 at step 1
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        mode: Mode | None = None,
        min_delta: float = 0.0,
        min_delta_mode: Literal["absolute", "relative"] = "absolute",
        patience: int = 5,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(
            StopRule(
                monitor=monitor,
                mode=mode,
                min_delta=min_delta,
                min_delta_mode=min_delta_mode,
                patience=patience,
            )
        )
        self.kept = KeptWeights(f"best-{monitor}", folder)

    def update(self, step: int, metrics: Mapping[str, Any], model: nn.Module | None = None) -> bool:
        """Take an evaluation; whether to stop.

        Args:
            step: Of the evaluation; they must rise. Epochs will do.
            metrics: What was measured, by name.
            model: Whose parameters and buffers are kept if this is the best evaluation so far.
        """
        stop = self.see(step, metrics)
        if self.improved and model is not None:
            self.kept.keep(model, step)
        return stop

    def restore(self, model: nn.Module) -> int:
        """Write the best weights into the model, bit for bit; the step that they are of.

        Raises:
            InputError: If no model was handed to `update`, or another one.
            LedgerError: If the file is gone or damaged.
        """
        return self.kept.restore(model)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, to be saved beside the model's and the optimizer's state."""
        return {**super().state_dict(), "kept": self.kept.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where the state was taken, with the weights that were the best then."""
        super().load_state_dict(state)
        self.kept.load_state(state["kept"])
