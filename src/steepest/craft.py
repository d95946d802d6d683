"""The verbs around the race in Python: diagnose curves, follow a recipe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steepest import tasks
from steepest.diagnosing import Diagnosis, look
from steepest.errors import InputError
from steepest.recipes import TITLES, Settings, State, Watcher, follow
from steepest.reporting.curve_findings import write_diagnosis
from steepest.reporting.recipe import recipe_headline, write_recipe
from steepest.train.task import Task

__all__ = ["CurveDiagnosis", "Recipe", "diagnose", "recipe"]


@dataclass(frozen=True)
class CurveDiagnosis(Diagnosis):
    """What learning curves say; everything of `steepest.diagnosing.Diagnosis`, and `report`.

    Attributes:
        folder: Where the report goes if nobody says where.
    """

    folder: Path = field(default_factory=Path)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the marked curves and the findings: one HTML file that needs no network.

        Args:
            path: Where to; default: ``diagnosis.html`` in the race's folder, or here.

        Returns:
            The file that was written.
        """
        return write_diagnosis(self, self.folder / "diagnosis.html" if path is None else path)


def diagnose(
    source: Any,
    *,
    baseline: float | None = None,
    train_loss: str | None = None,
    val_loss: str | None = None,
    lr: str | None = None,
    step: str | None = None,
) -> CurveDiagnosis:
    """Name what learning curves show, with the evidence and what to do about it.

    Args:
        source: A race's folder or result; a CSV file; TensorBoard event files or their folder; a
            Hugging Face ``trainer_state.json`` or its folder; a Keras history, as the object, its
            dict, or JSON; a dict of lists; or `steepest.diagnosing.Curves`.
        baseline: Loss of the best constant prediction, such as log(10) for ten equally frequent
            classes: the yardstick where the record does not reach back to the start.
        train_loss: The column or tag of the training loss, where it is not known by its name.
        val_loss: That of the validation loss.
        lr: That of the learning rate; ``"constant"`` says that it never changed.
        step: The column that counts the steps.

    Returns:
        ``runs``, each with ``findings`` (``kind``, ``evidence``, ``advice``, ``spans``) and what
        was ``unchecked``, with the reason; no finding means that there is nothing to report.

    Raises:
        DataError: If there are no curves, or they cannot be read.
        InputError: If a column is not there, or a package for reading is missing.

    >>> losses = {"loss": [2.3] + [2.3 * 0.8**n for n in range(1, 30)],
    ...           "val_loss": [2.3, 1.9, 1.6] + [1.4 + 0.03 * n for n in range(27)]}
    >>> [finding.kind for finding in diagnose(losses).findings]
    ['overfitting']
    """
    columns = {"train_loss": train_loss, "val_loss": val_loss, "lr": lr, "step": step}
    found = look(source, baseline=baseline, columns=columns)
    place = Path(source) if isinstance(source, (str, Path)) else getattr(source, "folder", Path())
    return CurveDiagnosis(found.runs, place if (place / "ledger.sqlite").exists() else Path())


@dataclass(frozen=True)
class Recipe(State):
    """What a recipe found, step by step; see `recipe`.

    ``records`` has a `steepest.recipes.Record` per step that is done: ``passed``, ``sentence``,
    ``advice``, ``numbers``.
    """

    @property
    def passed(self) -> bool:
        """All seven steps are done, and every gate was open."""
        return len(self.records) == len(TITLES) and all(r.passed for r in self.records.values())

    @property
    def headline(self) -> str:
        """What came out, or where it stopped."""
        return recipe_headline(self)

    @property
    def arm(self) -> str | None:
        """The setting that was found; None before the last step."""
        last = self.records.get(len(TITLES))
        return None if last is None else str(last.numbers["arm"])

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report: one HTML file that needs no network.

        Args:
            path: Where to; default: ``recipe.html`` in the folder.
        """
        return write_recipe(self, self.folder / "recipe.html" if path is None else path)


def recipe(
    task: str | Task,
    arm: str,
    *,
    minutes: float = 15.0,
    seeds: int = 3,
    batch_size: int | None = None,
    device: str = "cpu",
    start: int | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    command: str = "",
    watcher: Watcher | None = None,
) -> Recipe:
    """Go from nothing to a trained setting in seven steps, each with a gate that can stop.

    (1) The loss at the start is what theory says. (2) A tiny sample is learned by heart. (3) At
    some rate the loss falls within 100 steps. (4) A coarse grid over rate and weight decay.
    (5) The best few for longer. (6) `diagnose` looks at their curves. (7) Refined until nothing
    improves beyond the noise of seeds; then fresh seeds, and the test data once.

    Args:
        task: A `Task`, the name of a ready-made one, or ``"my_task.py:task"``.
        arm: An optimizer: ``"adam"``, ``"sgd(momentum=0.9)"``, ``"package.module:Class()"``. Its
            rate and weight decay are looked for; everything else stays as written.
        minutes: Time for all of it; runs are made as long as that allows.
        seeds: Fresh seeds of the last measurement.
        batch_size: Default: the task's.
        device: ``"cpu"`` or ``"cuda"``.
        start: Begin with this step, also over a gate that was shut; default: the first step that
            is not done.
        out: The folder; default: one under ``runs/`` that is named by task and arm.
        fresh: Delete what lies there.
        command: What repeats it, for the report.
        watcher: Who wants to see how far it is.

    Returns:
        What was found; ``passed`` is False where a gate is shut.

    Raises:
        InputError: For an arm without a rate, a bad task, a step that needs one before it.
        LedgerError: If another recipe lies in the folder.
    """
    if not minutes > 0:
        raise InputError(f"minutes must be a number > 0, got {minutes!r}")
    if seeds < 2:
        raise InputError(f"seeds must be a whole number >= 2, got {seeds!r}: one has no interval")
    loaded = tasks.load(task)
    settings = Settings(
        task=loaded.name,
        arm=arm,
        minutes=float(minutes),
        seeds=seeds,
        batch_size=batch_size or loaded.batch_size,
        device=device,
        command=command,
    )
    digest = hashlib.sha256(f"{loaded.name} {arm} {settings.batch_size}".encode()).hexdigest()[:8]
    folder = Path("runs") / f"recipe-{loaded.name}-{digest}" if out is None else Path(out)
    state = follow(loaded, settings, folder, start=start, fresh=fresh, watcher=watcher)
    found = Recipe(state.folder, state.settings, state.records)
    found.report()
    return found
