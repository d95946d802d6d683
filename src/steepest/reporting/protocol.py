"""How a race was done: what the report says so that somebody else can repeat and check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from steepest.numbers import amount, significant, time_text
from steepest.racing.words import PRECISIONS
from steepest.reporting.facts import arm_numbers, final_runs, metric_words, target_words
from steepest.reporting.tables import Cell, Table
from steepest.train.guard import GuardRule
from steepest.train.precision import FLOAT32
from steepest.train.stopping import StopRule

if TYPE_CHECKING:
    from steepest.racing.result import Result

__all__ = ["Group", "protocol_groups", "protocol_tables", "reproduce"]


@dataclass(frozen=True)
class Group:
    """Facts under one head."""

    title: str
    items: tuple[tuple[str, str], ...]


def reproduce(result: Result) -> str:
    """The command that repeats the race, or for a race from Python the call; and what followed."""
    command = result.protocol()["command"]
    counts = [len(seeds) for seeds in result.looks]
    added = [later - n for n, later in pairwise(counts)]
    if command:
        return "\n".join([command, *(f"steepest resume DIR --seeds +{n}" for n in added)])
    return "\n".join([_call(result), *(f'steepest.resume(out, seeds="+{n}")' for n in added)])


def _call(result: Result) -> str:
    """The call of a race from Python."""
    spec = result.spec
    task = result.protocol()["task_spec"]
    arms = {arm.label: arm.text for arm in result.arms}
    given: dict[str, Any] = {"seeds": spec["seeds"], "steps": spec["steps"]}
    given |= {name: spec[name] for name in ("batch_size", "eval_every", "device", "level")}
    if spec["target"]:
        given["target"] = f"{spec['target']['metric']}={spec['target']['value']}"
    if spec["min_effect"]:
        given["min_effect"] = spec["min_effect"]
    if spec["train_on"] != "train":
        given["train_on"] = spec["train_on"]
    for name, rule in (("early_stopping", _stopping(result)), ("guard", _guard(result))):
        if rule is not None:
            given[name] = rule.text
    if result.precision not in (None, FLOAT32):
        given["precision"] = result.precision
    tuning = result.spec.get("tuning")
    if tuning is not None:
        given |= {name: tuning[name] for name in ("method", "trials", "widen", "defaults")}
        given["tuning_seeds"] = len(tuning["seeds"])
    lines = [repr(task) if task else "task", repr(arms)]
    lines += [f"{name}={value!r}" for name, value in given.items()]
    body = "".join(f"    {line},\n" for line in lines)
    return f"steepest.race(\n{body})"


def protocol_groups(result: Result) -> list[Group]:
    """Budget, decision, versions and hardware, fingerprints of the task."""
    protocol = result.protocol()
    groups = [
        Group("Budget", tuple(_budget(result))),
        Group("Tuning", tuple(_tuning(result))),
        Group("Decision", tuple(_decision(result))),
        Group(
            "Task", tuple((_words(k), _text(v)) for k, v in _flat(protocol["fingerprint"] or {}))
        ),
        Group(
            "Versions and hardware",
            tuple((_words(k), _text(v)) for k, v in _flat(protocol["environment"] or {})),
        ),
    ]
    return [group for group in groups if group.items]


def _budget(result: Result) -> Iterator[tuple[str, str]]:
    spec = result.spec
    planned = max((run.planned_steps for run in final_runs(result)), default=0)
    per_epoch = spec.get("steps_per_epoch")
    epochs = f" ({significant(planned / per_epoch)} epochs of {per_epoch:,})" if per_epoch else ""
    yield "steps per run", f"{planned:,}{epochs}"
    yield "batch size", f"{spec['batch_size']:,}"
    yield "seeds", ", ".join(map(str, result.seeds))
    yield "runs", str(len(final_runs(result)))
    if spec.get("eval_every"):
        yield "evaluated every", amount(spec["eval_every"], "step")
    stopping, guard = _stopping(result), _guard(result)
    if stopping is not None:
        yield "early stopping", stopping.text
    if guard is not None:
        yield "guard", guard.text
    yield "device", str(spec["device"])
    if result.precision is not None:
        yield "precision", f"{result.precision}: {PRECISIONS[result.precision]}"
    seconds = sum(run.seconds for run in result.runs)
    yield "time in training steps", time_text(seconds)
    protocol = result.protocol()
    if protocol["created"]:
        yield "started", moment(protocol["created"])
    if protocol["finished"]:
        yield "finished", moment(protocol["finished"])


def _tuning(result: Result) -> Iterator[tuple[str, str]]:
    tuning = result.tuning
    if tuning is None:
        return
    yield "settings proposed by", f"{tuning.method}, {amount(tuning.trials, 'trial')} per arm"
    if tuning.rounds > 1 or tuning.widen:
        widened = f"{tuning.rounds - 1} of at most {tuning.widen} times"
        yield "spaces widened", widened
    yield "tuning seeds", ", ".join(map(str, tuning.seeds))
    yield "steps of a run", ", ".join(f"{steps:,}" for steps in tuning.rungs)
    spent = ", ".join(f"{label} {steps:,}" for label, steps in tuning.steps_per_arm.items())
    yield "steps in all", f"{spent} ({'equal' if tuning.equal else 'NOT equal'})"
    yield "chosen by", f"{metric_words(tuning.metric)}, mean over the tuning seeds"


def _decision(result: Result) -> Iterator[tuple[str, str]]:
    spec = result.spec
    better = "higher" if result.higher_is_better else "lower"
    yield "decides", f"{metric_words(result.metric)} after the last step, {better} is better"
    yield "test", "exact sign-flip test over seeds, Holm over all pairs"
    yield "level", f"{significant(100 * spec['level'])} % for all pairs and looks together"
    counts = [len(seeds) for seeds in result.looks]
    if len(counts) > 1:
        yield "looks", ", ".join(f"{n} seeds" for n in counts)
    if spec.get("min_effect"):
        yield "smallest difference that matters", significant(spec["min_effect"])
    yield "target", target_words(result) or "none"


def _stopping(result: Result) -> StopRule | None:
    rule = result.spec.get("stopping")
    return None if rule is None else StopRule(**rule)


def _guard(result: Result) -> GuardRule | None:
    rule = result.spec.get("guard")
    return None if rule is None else GuardRule(**rule)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif value not in (None, "", [], ()):
            yield f"{prefix}{key}", value


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return shorten_hash(text)


def moment(text: str) -> str:
    """A UTC time of the ledger, for people.

    >>> moment("2025-03-01T10:09:12.123456+00:00")
    '2025-03-01 10:09:12 UTC'
    """
    return f"{text[:19].replace('T', ' ')} UTC"


def shorten_hash(text: str) -> str:
    """The first twelve digits of a long hexadecimal hash; other text as it is.

    >>> shorten_hash("0123456789abcdef0123456789abcdef"), shorten_hash("torch 2.13.0")
    ('0123456789ab…', 'torch 2.13.0')
    """
    is_hash = len(text) >= 32 and not set(text) - set("0123456789abcdef")
    return f"{text[:12]}…" if is_hash else text


def protocol_tables(result: Result) -> list[Table]:
    """The arms as they were written, equality of starts and orders per seed, and what happened."""
    return [table for table in (_arms(result), _hashes(result), _events(result)) if table.rows]


def _arms(result: Result) -> Table:
    numbers = arm_numbers(result)
    return Table(
        "Arms as they were raced",
        ("Arm", "Kind", "Optimizer", "Schedule"),
        tuple(
            (
                Cell(arm.label, arm=numbers[arm.label]),
                Cell(arm.kind),
                Cell(arm.text),
                Cell(arm.schedule or "constant"),
            )
            for arm in result.arms
        ),
        ("left", "left", "left", "left"),
    )


def _hashes(result: Result) -> Table:
    rows = []
    for seed in result.seeds:
        runs = [run for run in final_runs(result) if run.seed == seed]
        starts = [run.start_hash for run in runs if run.start_hash]
        longest = max((run.steps for run in runs), default=0)
        orders = [run.order_hash for run in runs if run.order_hash and run.steps == longest]
        rows.append((Cell(str(seed)), *_equality(starts), *_equality(orders)))
    return Table(
        "Same start, same batches: hashes per seed over the arms",
        ("Seed", "Start weights", "Arms", "Batch order", "Arms"),
        tuple(rows),
        ("right", "left", "left", "left", "left"),
        ("Batch orders are compared among the runs of a seed that went equally far.",),
    )


def _equality(hashes: list[str]) -> tuple[Cell, Cell]:
    if not hashes:
        return Cell("–"), Cell("–", tone="quiet")
    different = list(dict.fromkeys(hashes))
    text = ", ".join(shorten_hash(value) for value in different)
    if len(hashes) == 1:
        return Cell(text), Cell("one run", tone="quiet")
    if len(different) == 1:
        return Cell(text), Cell(f"✓ {len(hashes)} equal", tone="good")
    return Cell(text), Cell(f"✗ {len(different)} different", tone="bad")


def _events(result: Result) -> Table:
    return Table(
        "What happened on the way",
        ("When", "What", "Run", "Text"),
        tuple(
            (
                Cell(moment(event["at"])),
                Cell(str(event["kind"])),
                Cell(event["run_id"] or ""),
                Cell(str(event["text"])),
            )
            for event in result.events
        ),
        ("left", "left", "left", "left"),
    )
