"""What came out of a study: every variant over the seeds, and what can be said about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from steepest.errors import LedgerError
from steepest.numbers import Unit, amount, unit_of
from steepest.racing import journal
from steepest.stats import Comparison, compare, mean_interval, seeds_to_decide_at_all

__all__ = ["Contrast", "Study", "Variant", "Wish"]

KINDS = ("average", "snapshots", "members", "transfer")
VERBS = {"better": "beats", "worse": "is worse than", "undecided": "cannot be told from"}
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared.

    Attributes:
        key: Its name in the journal.
        label: How tables call it.
        about: What it is, in a line.
    """

    key: str
    label: str
    about: str


@dataclass(frozen=True)
class Wish:
    """A comparison that the study was made for, fixed before anything was measured.

    Attributes:
        a: Key of the variant that is hoped to be better.
        b: Key of what it is compared with.
    """

    a: str
    b: str


@dataclass(frozen=True)
class Contrast:
    """What a comparison came to.

    Attributes:
        a: The variant that is hoped to be better.
        b: What it is compared with.
        comparison: Over the seeds, paired.
        decision: Of a against b.
    """

    a: Variant
    b: Variant
    comparison: Comparison
    decision: Literal["better", "worse", "undecided"]


class Study:
    """Everything that a study's folder says; no task is loaded and nothing is trained.

    Args:
        folder: The study's folder.

    Attributes:
        folder: The same.
        spec: What was studied: ``kind``, ``task``, ``arm``, ``seeds``, ``steps``, ``level`` ….
        meta: How it was done: versions, machine, command.
        rows: One per seed: ``seed``, ``status``, ``values`` by variant and metric, and more.
        events: What a reader should know: dicts with ``at``, ``kind``, ``text``.

    Raises:
        LedgerError: If there is no study in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        header, rows, self.events = journal.read(self.folder)
        self.spec: dict[str, Any] = header["spec"]
        if self.kind not in KINDS:
            raise LedgerError(
                f"{folder} is the folder of a {self.kind}, not of a study; steepest report shows it"
            )
        self.meta: dict[str, Any] = header["meta"]
        places = {seed: place for place, seed in enumerate(self.spec["seeds"])}
        self.rows = sorted(rows, key=lambda row: places[row["seed"]])

    def __repr__(self) -> str:
        done = f"{len(self.rows)} of {len(self.spec['seeds'])} seeds"
        return f"<{type(self).__name__} {self.folder}: {done}>"

    @property
    def kind(self) -> str:
        """``average``, ``snapshots``, ``members`` or ``transfer``."""
        return str(self.spec["kind"])

    @property
    def task(self) -> str:
        """How the task is called."""
        return str(self.spec["task"])

    @property
    def metric(self) -> str:
        """What decides, such as ``test_accuracy``."""
        return str(self.spec["metric"])

    @property
    def higher_is_better(self) -> bool:
        """Of that metric."""
        return bool(self.spec["higher_is_better"])

    @property
    def complete(self) -> bool:
        """Every seed has its row."""
        return len(self.rows) == len(self.spec["seeds"])

    @property
    def variants(self) -> list[Variant]:
        """What is compared, in the order of the tables."""
        return [Variant(**values) for values in self.spec["variants"]]

    def variant(self, key: str) -> Variant:
        """The one with this key."""
        return next(v for v in self.variants if v.key == key)

    def values(self, key: str, metric: str | None = None) -> Reals:
        """One number per seed; NaN where the run diverged or the number was not taken."""
        name = metric or self.metric
        return np.array(
            [row["values"].get(key, {}).get(name, math.nan) for row in self.rows], np.float64
        )

    @property
    def metrics(self) -> list[str]:
        """Everything that was measured of any variant, what decides first."""
        names = {name: None for row in self.rows for of in row["values"].values() for name in of}
        return sorted(names, key=lambda name: name != self.metric)

    def interval(self, key: str, metric: str | None = None) -> tuple[float, float, float]:
        """Mean over the seeds, and Student's interval."""
        return mean_interval(self.values(key, metric), self.spec["level"])

    def unit(self, metric: str | None = None) -> Unit:
        """How values of a metric are written."""
        name = metric or self.metric
        values = [v for variant in self.variants for v in self.values(variant.key, name)]
        return unit_of(name, values)

    @property
    def contrasts(self) -> list[Contrast]:
        """The comparisons that the study was made for, all right together at its level.

        With m comparisons each has the level 1 - (1 - level)/m (Bonferroni), so that all
        intervals hold at once with the level that was asked for.
        """
        wishes = [Wish(**values) for values in self.spec["contrasts"]]
        if not self.rows:
            return []
        level = 1 - (1 - self.spec["level"]) / len(wishes)
        found = []
        for wish in wishes:
            comparison = compare(
                self.values(wish.a),
                self.values(wish.b),
                higher_is_better=self.higher_is_better,
                level=level,
            )
            sign = comparison.direction * (1 if self.higher_is_better else -1)
            words: dict[int, Literal["better", "worse", "undecided"]]
            words = {1: "better", 0: "undecided", -1: "worse"}
            found.append(
                Contrast(self.variant(wish.a), self.variant(wish.b), comparison, words[sign])
            )
        return found

    def sentence(self, contrast: Contrast) -> str:
        """A comparison in words, with its interval."""
        unit, c = self.unit(), contrast.comparison
        between = unit.interval(c.low, c.high)
        if math.isfinite(c.low) and math.isfinite(c.high):
            sure = f"{100 * c.level:.4g} % interval {between}"
        else:
            least = seeds_to_decide_at_all(self.spec["level"], len(self.spec["contrasts"]))
            sure = f"{amount(c.n, 'seed')} decide nothing, {least} or more can"
        return (
            f"{_capital(contrast.a.label)} {VERBS[contrast.decision]} {contrast.b.label}: "
            f"{unit.difference(c.difference, c.low, c.high)} ({sure})."
        )

    def headline(self) -> str:
        """What the study was made to find out, in a sentence.

        Where several variants are compared with one, all that beat it are named; else it is the
        first comparison.
        """
        contrasts = self.contrasts
        if not contrasts:
            return f"Nothing is finished yet of this study on {self.task}"
        first = contrasts[0]
        where = f" on {self.task} over {amount(len(self.rows), 'seed')}"
        alike = [c for c in contrasts if c.b.key == first.b.key]
        winners = [c.a.label for c in alike if c.decision == "better"]
        if len(alike) > 1 and winners:
            verb = "beat" if len(winners) > 1 else "beats"
            return f"{_capital(_listed(winners))} {verb} {first.b.label}{where}"
        return f"{_capital(first.a.label)} {VERBS[first.decision]} {first.b.label}{where}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "task": self.task,
            "complete": self.complete,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "headline": self.headline(),
            "spec": self.spec,
            "variants": [
                {
                    **vars(variant),
                    "metrics": {
                        name: dict(
                            zip(("mean", "low", "high"), self.interval(variant.key, name),
                                strict=True),
                        )
                        for name in self.metrics
                    },
                }
                for variant in self.variants
            ],
            "contrasts": [
                {
                    "a": c.a.key,
                    "b": c.b.key,
                    "decision": c.decision,
                    "text": self.sentence(c),
                    **vars(c.comparison),
                }
                for c in self.contrasts
            ],
            "rows": self.rows,
            "events": self.events,
            "meta": self.meta,
        }  # fmt: skip


def _listed(words: Sequence[str]) -> str:
    """Words with commas and an "and".

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def as_spec(variants: Sequence[Variant], wishes: Sequence[Wish]) -> Mapping[str, Any]:
    """Variants and comparisons as a journal keeps them."""
    return {"variants": [vars(v) for v in variants], "contrasts": [vars(w) for w in wishes]}
