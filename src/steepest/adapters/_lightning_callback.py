"""A run of Lightning's Trainer written down as a ledger; imported when Lightning is there."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from steepest.errors import InputError
from steepest.racing.logbook import Logbook, Outline, arm_of
from steepest.racing.spec import Measure
from steepest.train.task import hash_tensors

__all__ = ["LedgerCallback"]

_VALIDATION = re.compile(r"^(?:val|valid|validation)[_/]")


class LedgerCallback(Callback):  # type: ignore[misc]  # Lightning is not looked into
    """Writes a run of Lightning's Trainer into a folder for ``steepest report`` and ``diagnose``.

    The training loss is what ``training_step`` returns, its mean over accumulated batches; the
    evaluations are the metrics that are logged under names such as ``val_loss`` or
    ``val/accuracy``. A step is a step of the first optimizer. A run that is resumed from a
    checkpoint goes on in the same folder.

    Args:
        folder: Where the ledger lies; made if it does not exist.
        task: What the run is called.
        monitor: The logged metric that says how good the run is.
        mode: ``"min"`` or ``"max"``.
        loss: Under manual optimisation without a returned loss: the name under which it is logged.
        fresh: Delete a run that lies there when another one begins.

    Raises:
        LedgerError: When training begins: if something else lies in the folder.
        InputError: If the length of the run or its loss is not known.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        task: str = "lightning",
        monitor: str = "val_loss",
        mode: str = "min",
        loss: str | None = None,
        fresh: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise InputError(f"mode must be 'min' or 'max', got {mode!r}")
        self.folder = Path(folder)
        self.task = task
        self.monitor = monitor
        self.mode = mode
        self.loss = loss
        self.fresh = fresh
        self._book: Logbook | None = None
        self._at = 0
        self._losses: list[float] = []
        self._lr: float | None = None
        self._began = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the ledger."""
        if not trainer.is_global_zero:
            return
        self._close()
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise InputError(
                "a ledger has to know how long the run is: give the Trainer max_steps or max_epochs"
            )
        accumulated = trainer.accumulate_grad_batches
        per_epoch = max(1, math.ceil(trainer.num_training_batches / accumulated))
        evaluates = sum(trainer.num_val_batches) > 0
        metric = _VALIDATION.sub("", self.monitor)
        size = getattr(trainer.train_dataloader, "batch_size", None) or 1
        plans = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
        check = trainer.val_check_batch if evaluates else per_epoch
        self._book = Logbook.begin(
            self.folder,
            Outline(
                by="Lightning's Trainer",
                task=self.task,
                steps=int(steps),
                steps_per_epoch=per_epoch,
                batch_size=size * accumulated * trainer.world_size,
                eval_every=max(1, int(check) // accumulated) if math.isfinite(check) else per_epoch,
                decides=Measure(
                    split="val" if evaluates else "train",
                    metric=metric if evaluates else "loss",
                    higher_is_better=self.mode == "max" and evaluates,
                ),
                seed=int(os.environ.get("PL_GLOBAL_SEED", "0")),
                device=pl_module.device.type,
            ),
            arm_of(trainer.optimizers[0], schedule=plans[0] if plans else None),
            at=self._at,
            fresh=self.fresh,
            start_hash=hash_tensors(pl_module.state_dict()),
        )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock."""
        self._began = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Read the learning rate that the step is taken with."""
        if optimizer is trainer.optimizers[0]:
            self._lr = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, and take down its loss."""
        if self._book is None:
            return
        self._losses.append(self._loss_of(outputs, trainer))
        if self._lr is None:
            return  # gradients are being accumulated
        # automatic optimisation divides each loss by the number of accumulated batches
        total = sum(self._losses)
        loss = total if pl_module.automatic_optimization else total / len(self._losses)
        self._book.took(lr=self._lr, seconds=time.perf_counter() - self._began)
        self._book.lost(loss)
        self._losses, self._lr = [], None

    def _loss_of(self, outputs: Any, trainer: Any) -> float:
        found = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if found is None and self.loss is not None:
            found = trainer.callback_metrics.get(self.loss)
        if not isinstance(found, torch.Tensor):
            raise InputError(
                "training_step returned no loss; return it, or log it and name it: "
                "LedgerCallback(folder, loss='train_loss')"
            )
        return float(found)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take down an evaluation."""
        if self._book is not None and not trainer.sanity_checking:
            logged = trainer.callback_metrics.items()
            numbers = {_VALIDATION.sub("", k): float(v) for k, v in logged if _VALIDATION.match(k)}
            self._book.measured("val", numbers)

    def state_dict(self) -> dict[str, Any]:
        """The steps done, for Lightning's checkpoint; what was done is written down before it."""
        if self._book is None:
            return {"at": self._at}
        self._book.commit()
        return {"at": self._book.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._at = state_dict["at"]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The run is over."""
        if self._book is not None:
            book, self._book, self._at = self._book, None, 0
            book.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what was done: an interrupted run can go on, a failed one says why."""
        if isinstance(exception, Exception) and self._book is not None:
            book, self._book = self._book, None
            book.end(message=f"{type(exception).__name__}: {exception}")
        self._close()

    def _close(self) -> None:
        if self._book is not None:
            book, self._book = self._book, None
            book.interrupt()
