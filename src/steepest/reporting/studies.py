"""A study as a page, as tables in a terminal, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest.numbers import amount, p_text, significant
from steepest.reporting.facts import Flag, metric_words
from steepest.reporting.page import Page, render_page, write_whole
from steepest.reporting.study_figures import (
    amounts_picture,
    calibration_picture,
    curves_picture,
    results_picture,
    sizes_picture,
)
from steepest.reporting.tables import DECISIONS, Cell, Table, aligned
from steepest.reporting.terminal import plain_values, print_flags, print_tables

if TYPE_CHECKING:
    from rich.console import Console

    from steepest.studies.study import Contrast, Study

__all__ = ["print_study", "study_flags", "study_json", "study_tables", "write_study_html"]


def write_study_html(study: Study, path: str | Path) -> Path:
    """Write the page of a study.

    Args:
        study: Finished or not.
        path: The file, or a folder that gets a ``report.html``.

    Raises:
        LedgerError: If it cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.html"
    return write_whole(path, render_page(_page(study)).encode(), what="the page")


def _page(study: Study) -> Page:
    variants, contrasts, *more = study_tables(study)
    pictures = [
        picture
        for picture in (
            results_picture(study),
            amounts_picture(study),
            curves_picture(study),
            sizes_picture(study),
            calibration_picture(study),
        )
        if picture is not None
    ]
    under = {"results": [variants, contrasts]}
    if more:
        under["calibration"] = more
    return Page(
        headline=study.headline(),
        eyebrow=_eyebrow(study),
        sentences=[study.sentence(contrast) for contrast in study.contrasts],
        flags=study_flags(study),
        pictures=pictures,
        tables=under,
        command=str(study.meta.get("command") or ""),
    )


def _eyebrow(study: Study) -> str:
    spec = study.spec
    return " · ".join(
        [
            study.task,
            str(spec["arm"]) + (f" + {spec['schedule']}" if spec.get("schedule") else ""),
            f"{amount(len(spec['seeds']), 'seed')} × {amount(spec['steps'], 'step')} of "
            f"{amount(spec['batch_size'], 'example')}",
            str(spec["device"]),
        ]
    )


def study_flags(study: Study) -> list[Flag]:
    """What to know before believing it."""
    found = []
    if not study.complete:
        missing = len(study.spec["seeds"]) - len(study.rows)
        found.append(Flag("stop", f"Not finished: {amount(missing, 'seed')} are missing."))
    lost = [row["seed"] for row in study.rows if row["status"] != "done"]
    if lost:
        found.append(
            Flag(
                "warn",
                f"{amount(len(lost), 'seed')} diverged and count as the worst result: "
                f"{', '.join(map(str, lost))}.",
            )
        )
    if study.rows and any(math.isinf(c.comparison.low) for c in study.contrasts):
        found.append(Flag("warn", f"{amount(len(study.rows), 'seed')} are too few to decide."))
    if str(study.metric).startswith("train_"):
        found.append(Flag("warn", "The task has no held-out data: this is about training data."))
    found += [Flag("note", f"{event['text']}.") for event in study.events]
    hows = {str(row["how"]) for row in study.rows if str(row.get("how", "vmap")) != "vmap"}
    found += [Flag("note", f"Members were asked in a {how}.") for how in sorted(hows)]
    return found


def study_tables(study: Study) -> list[Table]:
    """Variants, comparisons, and where there is one, the table of uncertainty."""
    tables = [_variant_table(study), _contrast_table(study)]
    sure = _uncertainty_table(study)
    return [*tables, sure] if sure is not None else tables


def _variant_table(study: Study) -> Table:
    shown = [name for name in study.metrics if not name.startswith("val_")]
    units = {name: study.unit(name) for name in shown}
    rows = []
    for variant in study.variants:
        cells = [Cell(variant.label), Cell(variant.about)]
        for name in shown:
            mean, low, high = study.interval(variant.key, name)
            known = math.isfinite(mean)
            cells.append(Cell(units[name].mean(mean, low, high) if known else "–"))
        rows.append(tuple(cells))
    heads = ("", "What it is", *(metric_words(name).capitalize() for name in shown))
    better = "higher" if study.higher_is_better else "lower"
    return Table(
        f"{metric_words(study.metric).capitalize()} decides ({better} is better): mean and "
        f"{significant(100 * study.spec['level'])} % interval over seeds",
        heads,
        tuple(rows),
        aligned("left", "left", to=heads),
    )


def _contrast_table(study: Study) -> Table:
    heads = ("A", "B", "A − B", "Interval", "p", "Seeds on which A wins", "Decision")
    rows = tuple(_contrast_row(study, contrast) for contrast in study.contrasts)
    levels = {round(100 * c.comparison.level, 2) for c in study.contrasts}
    at = f" ({levels.pop():.4g} % each)" if len(levels) == 1 else ""
    return Table(
        "What the study was made to compare, seed by seed",
        heads,
        rows,
        ("left", "left", "right", "right", "right", "right", "left"),
        (
            f"Intervals are exact{at}, so that all of them hold together at "
            f"{significant(100 * study.spec['level'])} %; p is that of the exact sign-flip test "
            "before any correction.",
        ),
    )


def _contrast_row(study: Study, contrast: Contrast) -> tuple[Cell, ...]:
    unit, c = study.unit(), contrast.comparison
    sign, tone = DECISIONS[contrast.decision]
    who = {"better": "A better", "worse": "B better"}.get(contrast.decision, contrast.decision)
    return (
        Cell(contrast.a.label),
        Cell(contrast.b.label),
        Cell(unit.difference(c.difference, c.low, c.high)),
        Cell(unit.interval(c.low, c.high)),
        Cell(p_text(c.p_value)),
        Cell(f"{c.prob_a_better * c.n:g} of {c.n}"),
        Cell(f"{sign} {who}", tone=tone),
    )


def _uncertainty_table(study: Study) -> Table | None:
    """How sure ensembles are of right and of wrong answers; None for other studies."""
    rows = [row["uncertainty"] for row in study.rows if "uncertainty" in row]
    if not rows:
        return None
    names = ("confidence", "entropy", "mutual_information", "disagreement")
    words = {"all": "all answers", "right": "right answers", "wrong": "wrong answers"}
    cells = []
    for part, text in words.items():
        known = [row[part] for row in rows if part in row]
        if known:
            means = [float(np.mean([of[name] for of in known])) for name in names]
            cells.append((Cell(text), *(Cell(significant(mean)) for mean in means)))
    heads = ("", "Confidence", "Entropy", "Mutual information", "Disagreement")
    return Table(
        "How sure the ensembles are, mean over examples and seeds",
        heads,
        tuple(cells),
        aligned("left", to=heads),
        (
            "Entropies are in nats. Mutual information is the part of the entropy that is there "
            "because the members differ; disagreement is the share of pairs of members that name "
            "different classes.",
        ),
    )


def print_study(study: Study, console: Console) -> None:
    """Print what came out: the headline, the comparisons, the tables."""
    from rich.text import Text

    console.print(Text(study.headline(), style="bold"))
    for contrast in study.contrasts:
        console.print(Text(study.sentence(contrast)))
    print_flags(study_flags(study), console)
    print_tables(_without_abouts(study_tables(study)), console)


def _without_abouts(tables: Sequence[Table]) -> list[Table]:
    """A terminal is narrower than a page: what a variant is stands in the page."""
    first, *rest = tables
    keep = [0, *range(2, len(first.columns))]
    narrow = Table(
        first.caption,
        tuple(first.columns[i] for i in keep),
        tuple(tuple(row[i] for i in keep) for row in first.rows),
        tuple(first.align[i] for i in keep),
    )
    return [narrow, *rest]


def study_json(study: Study) -> dict[str, Any]:
    """Everything as values that JSON knows; numbers that it has no word for are None."""
    values: dict[str, Any] = plain_values({**study.to_dict(), "flags": [
        vars(flag) for flag in study_flags(study)
    ]})  # fmt: skip
    return values
