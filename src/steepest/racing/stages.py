"""What comes next in a race: from what its ledger holds to what is added to its plan.

    tuning stage    wave 0: every arm's first settings on the tuning seeds
                    further waves: the next rung, the next proposals, or a widened space
    final stage     one wave: the chosen settings of all arms on fresh seeds, with the selections
                    further waves: seeds that somebody added

Each addition is a function of the ledger alone, and is written in one transaction, so a race that
is killed between two waves goes on as if nothing had happened. Runs that may read the test data
do not exist before the settings of all arms are chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from steepest import tune
from steepest.errors import InputError, LedgerError
from steepest.racing.arm import Arm
from steepest.racing.ledger import Ledger
from steepest.racing.records import Addition, PlannedRun, PlannedTrial, Selection
from steepest.racing.selection import Outcome, best, outcomes, promoted
from steepest.racing.spec import Plan, RaceSpec, RunPlan, TuningSpec
from steepest.tune import Space
from steepest.tune.adaptive import Proposer

__all__ = ["final_runs", "first", "following", "grown", "planned", "steps_to_come", "waves_like_it"]

BATCH = 4
"""Settings of each arm that an adaptive method proposes at a time: more of them train better
together, fewer of them learn more from each other."""

WIDER = 0.5
"""Of its width, in its own scale, is added to a range at the end where the best setting lies."""


def first(spec: RaceSpec) -> Addition:
    """What is known before anything runs.

    Raises:
        InputError: If a space has fewer settings than there are trials.
    """
    trials: list[PlannedTrial] = []
    for arm_id, arm in enumerate(spec.arms):
        if arm.space is None or spec.tuning is None:
            values = arm.settings()["values"]
            trials.append(PlannedTrial(len(trials), arm_id, 0, "fixed", 0, None, values))
            continue
        trials += _proposed(spec.tuning, arm.label, arm_id, arm.space, 0, after=trials)
        if spec.tuning.defaults:
            values = _defaults(arm).values
            trials.append(PlannedTrial(len(trials), arm_id, -1, "defaults", 0, None, values))
    if spec.tuning is None:
        return Addition(trials=tuple(trials), runs=final_runs(spec, trials, spec.seeds, wave=0))
    candidates = [trial for trial in trials if trial.role == "candidate"]
    return Addition(
        trials=tuple(trials),
        runs=_tuning_runs(spec.tuning, candidates, rung=0, wave=0),
        meta={"spaces": {arm.label: [arm.space.spec()] for arm in spec.tuned if arm.space}},
    )


def following(spec: RaceSpec, ledger: Ledger) -> Addition | None:
    """What is added now that all planned runs have come to their ends; None: nothing."""
    tuning = spec.tuning
    if tuning is None or ledger.selections():
        return None
    wave = 1 + max(row["wave"] for row in ledger.runs())
    found = outcomes(ledger, vars(tuning.chooses))
    turn = max(outcome.trial.round for outcome in found)
    latest = [outcome for outcome in found if outcome.trial.round == turn]
    by_arm = {arm_id: [o for o in latest if o.trial.arm_id == arm_id] for arm_id in _tuned(spec)}
    if len(next(iter(by_arm.values()))) < tuning.trials:
        return _asked(spec, tuning, ledger, by_arm, turn, wave)
    rung = 1 + max(outcome.rung for outcome in latest)
    if rung < len(tuning.rungs):
        keep, higher = tuning.rungs[rung][0], tuning.chooses.higher_is_better
        survivors = [
            outcome.trial
            for of_arm in by_arm.values()
            for outcome in promoted(
                (o for o in of_arm if o.rung == rung - 1), keep, higher_is_better=higher
            )
        ]
        return Addition(runs=_tuning_runs(tuning, survivors, rung=rung, wave=wave))
    higher = tuning.chooses.higher_is_better
    chosen = {
        arm_id: best([o for o in found if o.trial.arm_id == arm_id], higher_is_better=higher)
        for arm_id in _tuned(spec)
    }
    spaces = {arm_id: _spaces(ledger, spec.arms[arm_id]) for arm_id in chosen}
    edges = {
        arm_id: spaces[arm_id][-1].edges(
            outcome.trial.values,
            tried=[o.trial.values for o in found if o.trial.arm_id == arm_id],
        )
        for arm_id, outcome in chosen.items()
    }
    if turn < tuning.widen and any(edges.values()):
        return _widened(spec, tuning, ledger, spaces, edges, turn + 1, wave)
    return _final(spec, ledger, chosen, edges, wave)


def final_runs(
    spec: RaceSpec, trials: Iterable[PlannedTrial], seeds: Sequence[int], *, wave: int
) -> tuple[PlannedRun, ...]:
    """Settings on seeds: all arms of a seed before the next seed."""
    return tuple(
        PlannedRun(
            f"a{trial.arm_id}-{'d-' if trial.role == 'defaults' else ''}s{seed}",
            trial.trial_id,
            "final",
            seed,
            spec.steps,
            wave=wave,
        )
        for seed in seeds
        for trial in sorted(trials, key=lambda t: (t.role == "defaults", t.arm_id))
    )


def planned(
    spec: RaceSpec, trials: Iterable[PlannedTrial], runs: Iterable[PlannedRun]
) -> tuple[RunPlan, ...]:
    """Rows of the ledger as runs that can be carried out."""
    by_id = {trial.trial_id: trial for trial in trials}
    arms: dict[int, Arm] = {}
    for trial in by_id.values():
        arm = spec.arms[trial.arm_id]
        if trial.role == "candidate":
            arm = arm.at(trial.values)
        arms[trial.trial_id] = _defaults(arm) if trial.role == "defaults" else arm
    return tuple(
        RunPlan(
            run.run_id,
            arms[run.trial_id],
            run.trial_id,
            run.seed,
            run.stage,
            run.steps,
            by_id[run.trial_id].number,
            by_id[run.trial_id].role,
            run.rung,
            run.wave,
        )
        for run in runs
    )


def grown(plan: Plan, ledger: Ledger) -> Plan:
    """The plan with all that its ledger holds by now."""
    meta = ledger.meta()
    seeds = (*meta["spec"]["seeds"], *meta.get("extended", ()))
    spec = replace(plan.spec, seeds=seeds)
    trials = tuple(ledger.trials())
    keys = PlannedRun._fields
    runs = [PlannedRun(**{key: row[key] for key in keys}) for row in ledger.runs()]
    return replace(
        plan,
        spec=spec,
        trials=trials,
        facts={key: meta[key] for key in ("spaces",) if key in meta},
        runs=planned(spec, trials, runs),
        later=steps_to_come(spec, runs, rounds=1 + max(trial.round for trial in trials)),
    )


def steps_to_come(spec: RaceSpec, runs: Sequence[PlannedRun], *, rounds: int = 1) -> int:
    """Steps of both stages that no planned run has yet; spaces may be widened beyond that."""
    if spec.tuning is None or any(run.stage == "final" for run in runs):
        return 0
    tuned = len(spec.tuned)
    finals = len(spec.arms) + (tuned if spec.tuning.defaults else 0)
    ahead = rounds * tuned * spec.tuning.steps_per_round + finals * len(spec.seeds) * spec.steps
    return ahead - sum(run.steps for run in runs)


def waves_like_it(spec: RaceSpec, runs: Sequence[RunPlan]) -> int:
    """How many waves of about this size the stage still has, this one included."""
    tuning = spec.tuning
    if tuning is None or runs[0].stage == "final" or tuning.sampler is None:
        return 1
    settings = len({run.trial_id for run in runs})
    known = 1 + max(run.number for run in runs)
    return 1 + max(0, tuning.trials - known) * len(spec.tuned) // settings


def _tuned(spec: RaceSpec) -> list[int]:
    return [arm_id for arm_id, arm in enumerate(spec.arms) if arm.space is not None]


def _defaults(arm: Arm) -> Arm:
    try:
        return arm.untuned()
    except InputError as error:
        raise InputError(
            f"the defaults of '{arm.label}' cannot run beside it: {error}; leave defaults out"
        ) from error


def _proposed(
    tuning: TuningSpec,
    label: str,
    arm_id: int,
    space: Space,
    turn: int,
    *,
    after: Sequence[PlannedTrial],
    history: Sequence[Outcome] = (),
) -> list[PlannedTrial]:
    """Settings of an arm's space: all of a round, or the next ones of an adaptive method."""
    try:
        if tuning.sampler is not None:
            settings = _asked_of_optuna(tuning, tuning.sampler, space, turn, history)
        else:
            method: Any = "sobol" if tuning.method == "halving" else tuning.method
            settings = tune.propose(space, method=method, trials=tuning.trials, seed=turn)
    except InputError as error:
        raise InputError(f"the arm '{label}': {error}") from error
    number = 1 + max((t.number for t in after if t.arm_id == arm_id), default=-1)
    return [
        PlannedTrial(
            len(after) + i,
            arm_id,
            number + i,
            "candidate",
            turn,
            tuple(space.position(values).tolist()),
            values,
        )
        for i, values in enumerate(settings)
    ]


def _asked_of_optuna(
    tuning: TuningSpec, sampler: str, space: Space, turn: int, history: Sequence[Outcome]
) -> list[dict[str, Any]]:
    """What the sampler proposes after it was told all scores again, batch by batch."""
    proposer = Proposer(
        space, sampler=sampler, seed=turn, higher_is_better=tuning.chooses.higher_is_better
    )
    done = 0
    while True:
        settings = proposer.ask(min(BATCH, tuning.trials - done))
        if done == len(history):
            return settings
        batch = history[done : done + len(settings)]
        if [outcome.trial.values for outcome in batch] != settings:
            raise LedgerError(
                f"optuna:{sampler} proposes other settings now than when the race began; install "
                "the version of Optuna that it was begun with, or race again with another --out"
            )
        for number, outcome in enumerate(batch, start=done):
            proposer.tell(number, outcome.score)
        done += len(settings)


def _tuning_runs(
    tuning: TuningSpec, trials: Sequence[PlannedTrial], *, rung: int, wave: int
) -> tuple[PlannedRun, ...]:
    """The arms take turns, so that a race that stops early has compared like with like."""
    place: dict[int, int] = {}
    of_arm: dict[int, int] = {}
    for trial in trials:
        place[trial.trial_id] = of_arm[trial.arm_id] = of_arm.get(trial.arm_id, -1) + 1
    suffix = f"-r{rung}" if rung else ""
    return tuple(
        PlannedRun(
            f"a{trial.arm_id}-t{trial.number}{suffix}-s{seed}",
            trial.trial_id,
            "tuning",
            seed,
            tuning.rungs[rung][1],
            rung,
            wave,
        )
        for seed in tuning.seeds
        for trial in sorted(trials, key=lambda t: (place[t.trial_id], t.arm_id))
    )


def _spaces(ledger: Ledger, arm: Arm) -> list[Space]:
    """An arm's space in every round."""
    return [Space.from_spec(spec) for spec in ledger.meta()["spaces"][arm.label]]


def _asked(
    spec: RaceSpec,
    tuning: TuningSpec,
    ledger: Ledger,
    by_arm: dict[int, list[Outcome]],
    turn: int,
    wave: int,
) -> Addition:
    """The next settings of every arm, from what is known about the ones before."""
    trials = ledger.trials()
    new: list[PlannedTrial] = []
    for arm_id, of_arm in by_arm.items():
        arm = spec.arms[arm_id]
        space = _spaces(ledger, arm)[turn]
        after = [*trials, *new]
        new += _proposed(tuning, arm.label, arm_id, space, turn, after=after, history=of_arm)
    return Addition(trials=tuple(new), runs=_tuning_runs(tuning, new, rung=0, wave=wave))


def _widened(
    spec: RaceSpec,
    tuning: TuningSpec,
    ledger: Ledger,
    spaces: dict[int, list[Space]],
    edges: dict[int, tuple[tune.Edge, ...]],
    turn: int,
    wave: int,
) -> Addition:
    """Another round for every arm, so that all have spent the same afterwards."""
    trials = ledger.trials()
    new: list[PlannedTrial] = []
    events = []
    for arm_id, of_arm in spaces.items():
        label = spec.arms[arm_id].label
        wider = of_arm[-1].widened(WIDER, edges[arm_id]) if edges[arm_id] else of_arm[-1]
        of_arm.append(wider)
        why = "; ".join(map(str, edges[arm_id])) or "nothing lies at an end of it"
        text = f"{label} is searched again in {wider}: {why}"
        events.append(("widened", text))
        new += _proposed(tuning, label, arm_id, wider, turn, after=[*trials, *new])
    meta = {
        "spaces": {
            spec.arms[arm_id].label: [space.spec() for space in of_arm]
            for arm_id, of_arm in spaces.items()
        }
    }
    runs = _tuning_runs(tuning, new, rung=0, wave=wave)
    return Addition(trials=tuple(new), runs=runs, meta=meta, events=tuple(events))


def _final(
    spec: RaceSpec,
    ledger: Ledger,
    chosen: dict[int, Outcome],
    edges: dict[int, tuple[tune.Edge, ...]],
    wave: int,
) -> Addition:
    """The settings of all arms, and their final runs, in one."""
    ids = {outcome.trial.trial_id for outcome in chosen.values()}
    trials = [t for t in ledger.trials() if t.role != "candidate" or t.trial_id in ids]
    return Addition(
        runs=final_runs(spec, trials, spec.seeds, wave=wave),
        selections=tuple(
            Selection(
                arm_id,
                outcome.trial.trial_id,
                outcome.score if outcome.score == outcome.score else None,
                tuple(map(str, edges[arm_id])),
            )
            for arm_id, outcome in chosen.items()
        ),
    )
