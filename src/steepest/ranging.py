"""The verb sweep in Python: the learning-rate range test, of a task or of a model as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from steepest import tasks
from steepest.errors import InputError
from steepest.reporting.sweep import draw_sweep, write_sweep_html
from steepest.sweeping.folder import read_sweep
from steepest.sweeping.live import sweep_live
from steepest.sweeping.result import Sweep
from steepest.sweeping.sweep import read_range, sweep_task
from steepest.train.task import Task

__all__ = ["SweepResult", "read_range", "sweep"]


class SweepResult(Sweep):
    """The outcome of a range test, with the ways to look at it."""

    @classmethod
    def read(cls, folder: str | Path) -> SweepResult:
        """The sweep of a task that lies in a folder; nothing is trained and no task is loaded.

        Raises:
            LedgerError: If there is no sweep, or it is not finished; then it says how far it is.
        """
        return cls(**vars(read_sweep(folder)))

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page: one HTML file that needs no network.

        Args:
            path: Where to; default: ``report.html`` in the sweep's folder.

        Returns:
            The file that was written.

        Raises:
            InputError: Without a path for a sweep of a live model, which has no folder.
        """
        if path is None:
            if self.folder is None:
                raise InputError(
                    "the sweep of a live model has no folder that the report could go to; name "
                    "the file: report('sweep.html')"
                )
            path = self.folder / "report.html"
        return write_sweep_html(self, path)

    def draw(self, path: str | Path) -> Path:
        """Write the picture as ``.html``, ``.svg`` or ``.png``."""
        return draw_sweep(self, path)


def sweep(
    task: str | Task | nn.Module,
    arm: Any,
    *,
    lr: tuple[float, float] | None = None,
    rates: int = 36,
    seeds: int | Sequence[int] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    classical: bool = False,
    level: float = 0.95,
    loader: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    command: str = "",
) -> SweepResult:
    """The learning-rate range test: where the loss falls the fastest, and where it blows up.

    With a task, every rate is held constant for a short run, with several seeds; the runs of a
    seed have the same start and train at once as one population. Then the edge of stability is
    looked at more closely. Where the runs cannot be batched, and on request, one run per seed
    whose rate grows from step to step (Smith, arXiv:1506.01186). What is measured is written
    into a folder, seed by seed: an interrupted sweep goes on when it is asked for again, and a
    finished one is read.

    With a model and its optimizer, always the latter, on copies: parameters, buffers, gradients,
    the optimizer's state, the generators of torch, NumPy and Python, those of loader and
    samplers, and train or eval mode are bit for bit what they were, and nothing is written.

    Args:
        task: The task or its name; or a model that exists.
        arm: The optimizer as in `race`, a bare name with its defaults; or the optimizer that
            belongs to the model. Its own learning rate does not matter; groups keep their ratios.
        lr: The lowest and the highest rate; default 1e-6 to 10.
        rates: How many, evenly spread over the logarithm.
        seeds: Their number or the seeds themselves; default 4, with a model 3.
        steps: Of every run; default 100, of one whose rate grows 200.
        batch_size: Default: the task's.
        device: ``cpu`` or ``cuda``; a model is swept where it is.
        classical: Let the rate grow within one run per seed.
        level: Of the intervals.
        loader: With a model: what yields batches ``(x, y)``, again and again.
        loss: With a model: ``(outputs, targets) -> loss``.
        out: With a task: the sweep's folder; default: one under ``runs/`` that is named by what
            was asked for.
        fresh: Delete a sweep that lies in ``out`` and begin again.
        progress: Told how many run-steps are done, of how many.
        command: What the page names as what repeats it.

    Raises:
        InputError: For an empty range, too few rates or steps, an arm that cannot be, a loader
            that can be read only once, or a loss that uses the model itself.
        LedgerError: If ``out`` holds something else or cannot be written.
        StoppedError: After Ctrl-C; the seeds that are finished are kept.

    >>> import steepest, tempfile
    >>> result = steepest.sweep("mnist-logreg", "sgd", lr=(1e-4, 10), rates=12, seeds=2, steps=20,
    ...                         out=tempfile.mkdtemp())
    >>> 1e-3 < result.suggestion < 0.5, result.findings.suggestion.sure
    (True, 'clear')
    """
    if isinstance(task, nn.Module):
        if out is not None or fresh:
            raise InputError(
                "the sweep of a live model writes nothing, so it has no folder: leave out= and "
                "fresh= away, and write what came out with .report('sweep.html')"
            )
        found = sweep_live(
            task,
            arm,
            loader=loader,
            loss=loss,
            lr=lr,
            seeds=3 if seeds is None else seeds,
            steps=200 if steps is None else steps,
            level=level,
            progress=progress,
        )
    else:
        if loader is not None or loss is not None:
            raise InputError(
                "loader and loss belong to a model that exists; a task has its own data and loss"
            )
        found = sweep_task(
            tasks.load(task),
            arm,
            lr=lr,
            rates=rates,
            seeds=4 if seeds is None else seeds,
            steps=100 if steps is None else steps,
            batch_size=batch_size,
            device=device,
            classical=classical,
            level=level,
            out=out,
            fresh=fresh,
            task_spec=task if isinstance(task, str) else None,
            command=command,
            progress=progress,
        )
    return SweepResult(**vars(found))
