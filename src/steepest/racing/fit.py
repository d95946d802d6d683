"""Which runs can train in populations, and how many at a time: found out by trying."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch

from steepest.racing.record import Place
from steepest.racing.spec import RunPlan
from steepest.train.agreement import why_not_together
from steepest.train.memory import fitting, member_bytes
from steepest.train.population import Member

__all__ = ["Fit", "calmest_first", "in_groups", "try_population"]


@dataclass
class Fit:
    """Which runs can train in populations, and of what size at most.

    Attributes:
        size: None where none can.
        together: The runs.
        events: Why not the others.
    """

    size: int | None
    together: list[RunPlan]
    events: list[tuple[str, str]] = field(default_factory=list)


def in_groups(
    run_ids: Sequence[str], size: int, *, multiple: int = 1
) -> tuple[tuple[str, ...], ...]:
    """Runs in their order, in as few groups as there must be, all of about one size.

    Args:
        run_ids: The runs.
        size: Of a group, at most.
        multiple: So many processes share the groups, each as many as the others.

    >>> in_groups(["a", "b", "c", "d", "e"], 4)
    (('a', 'b', 'c'), ('d', 'e'))
    >>> in_groups(["a", "b", "c"], 4, multiple=2)
    (('a', 'b'), ('c',))
    """
    if not run_ids or size < 1:
        return ()
    groups = min(len(run_ids), -(-len(run_ids) // (size * multiple)) * multiple)
    each, more = divmod(len(run_ids), groups)
    ends = [0, *accumulate(each + (i < more) for i in range(groups))]
    return tuple(tuple(run_ids[i:j]) for i, j in pairwise(ends))


def calmest_first(runs: Iterable[RunPlan]) -> list[RunPlan]:
    """Runs with small learning rates first: they can be compared where others diverge at once."""
    return sorted(runs, key=lambda run: run.arm.learning_rate() or 0.0)


def try_population(place: Place, waiting: Sequence[RunPlan]) -> Fit:
    """Find out which runs can be batched: by doing it, and comparing with them alone."""
    events: list[tuple[str, str]] = []
    fine: list[RunPlan] = []
    for number, arm in enumerate(place.plan.spec.arms):
        runs = calmest_first(run for run in waiting if run.arm.label == arm.label)
        if not runs:
            continue
        reason = why_not_together(
            place.task,
            [Member(run.arm.factory(), run.arm.schedule, run.seed) for run in runs[:2]],
            steps=runs[0].steps,
            batch_size=place.plan.spec.batch_size,
            device=place.plan.spec.device,
            precision=place.plan.spec.precision,
        )
        if reason is None:
            fine += runs
            continue
        events.append(("not_batched", f"{arm.label} cannot train in a population: {reason}"))
        if not fine and number == 0 and "model" in reason:
            break  # not this arm's fault, so the others need not be tried
    fine = [run for run in waiting if run in fine]
    if not fine:
        return Fit(None, [], events)
    spec = place.plan.spec
    each = max(
        member_bytes(
            place.task,
            Member(run.arm.factory(), run.arm.schedule, run.seed),
            batch_size=spec.batch_size,
            device=spec.device,
            precision=spec.precision,
        )
        for run in fine[:3]
    )
    most = fitting(each, torch.device(spec.device)) or len(fine)
    if most < len(fine):
        events.append(
            ("memory", f"{most} runs fit into memory at a time, at {each / 2**20:.1f} MiB each")
        )
    return Fit(min(most, len(fine)), fine, events)
