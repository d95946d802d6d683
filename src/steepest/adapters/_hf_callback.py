"""A Trainer's run written down as a ledger; imported when transformers is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from steepest.racing.logbook import Logbook, Outline, arm_of
from steepest.racing.spec import Measure
from steepest.train.task import hash_tensors

__all__ = ["LedgerCallback"]

_NO_METRICS = (
    "runtime",
    "samples_per_second",
    "steps_per_second",
    "model_preparation_time",
    "jit_compilation_time",
)


class LedgerCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not looked into
    """Writes a Trainer's run into a folder that ``steepest report`` and ``diagnose`` read.

    The training loss is what the Trainer logs: with ``logging_steps=1`` that of every step; with
    more, all steps since the last log have their mean. A run that is resumed from a checkpoint goes
    on in the same folder.

    Args:
        folder: Where the ledger lies; made if it does not exist.
        task: What the run is called.
        fresh: Delete a run that lies there when another one begins.

    Raises:
        LedgerError: When training begins: if something else lies in the folder.
    """

    def __init__(self, folder: str | Path, *, task: str = "trainer", fresh: bool = False) -> None:
        self.folder = Path(folder)
        self.task = task
        self.fresh = fresh
        self._book: Logbook | None = None
        self._began = 0.0
        self._lr = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Open the ledger."""
        if not state.is_world_process_zero:
            return
        self.close()
        optimizer, model = given["optimizer"], given["model"]
        per_epoch = max(1, round(state.max_steps / state.num_train_epochs))
        evaluates = args.eval_strategy != "no"
        metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
        schedule = args.lr_scheduler_type
        self._book = Logbook.begin(
            self.folder,
            Outline(
                by="transformers' Trainer",
                task=self.task,
                steps=state.max_steps,
                steps_per_epoch=per_epoch,
                batch_size=args.train_batch_size
                * args.gradient_accumulation_steps
                * args.world_size,
                eval_every=state.eval_steps if args.eval_strategy == "steps" else per_epoch,
                decides=Measure(
                    split="val" if evaluates else "train",
                    metric=metric if evaluates else "loss",
                    higher_is_better=bool(args.greater_is_better) and evaluates,
                ),
                seed=args.seed,
                device=args.device.type,
            ),
            arm_of(getattr(optimizer, "optimizer", optimizer), schedule=str(schedule.value)),
            at=state.global_step,
            fresh=self.fresh,
            start_hash=hash_tensors(model.state_dict()),
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at the clock."""
        self._began = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Read the learning rate that the step is taken with."""
        self._lr = float(given["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count the step; before a checkpoint write down all that was done."""
        if self._book is not None:
            self._book.took(lr=self._lr, seconds=time.perf_counter() - self._began)
            if control.should_save:
                self._book.commit()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Take down the loss."""
        if self._book is not None and logs is not None and "loss" in logs:
            self._book.lost(float(logs["loss"]))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any
    ) -> None:
        """Take down an evaluation."""
        if self._book is not None and metrics is not None:
            named = {k.removeprefix("eval_"): v for k, v in metrics.items() if k[:5] == "eval_"}
            numbers = {
                name: float(value)
                for name, value in named.items()
                if name not in _NO_METRICS and isinstance(value, (int, float))
            }
            self._book.measured("val", numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The run is over."""
        if self._book is not None:
            book, self._book = self._book, None
            book.end()

    def close(self) -> None:
        """Let go of the folder after training was interrupted; what was done is kept."""
        if self._book is not None:
            book, self._book = self._book, None
            book.interrupt()
