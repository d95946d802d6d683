"""Find out by measuring which engine carries out a race the fastest.

Every engine that can do the race does a little of it: the real task, the real arms. What is
compared is the time for all that is left, evaluations, starting and compiling included. The best
one of each kind is measured again, taking turns with `solo`, before one is chosen; `solo` is kept
unless another one saves more than `_MARGIN`.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from steepest.racing.apart import Worker, hire, train_there
from steepest.racing.fit import Fit, calmest_first, try_population
from steepest.racing.herd import RemotePopulation, gather_there
from steepest.racing.record import Place
from steepest.racing.solo import Training, train_here
from steepest.racing.spec import RunPlan
from steepest.racing.together import build
from steepest.train.memory import is_out_of_memory
from steepest.train.population import WARM_UP, why_not

__all__ = ["Found", "Tried", "probe", "using"]

_SMALL = 6.0  # seconds; a race that solo finishes by then is not worth measuring
_MARGIN = 0.05  # what another engine has to save
_SHARE = 0.04  # of solo's time that measuring may take
_BLOCK = 0.3  # seconds of training per measurement
_ROUNDS = 3  # in which the best ones take turns
_EXAMPLES = 256  # that a population is asked about to see what an evaluation takes
_SIZES = (8, 16, 32, 128, 512)
_WORKERS_PAY = 20.0  # seconds of solo; starting processes takes a few
_COMPILING_PAYS = 600.0  # seconds left; compiling takes half a minute to minutes


@dataclass(frozen=True, kw_only=True)
class Tried:
    """An engine, and how fast it was.

    Attributes:
        engine: Its name.
        size: Of a population.
        workers: Processes; 1: this one.
        threads: In each process.
        compiled: Whether a population was compiled.
        step: Seconds per step of one run.
        evaluation: Seconds per evaluation of one run.
        start: Seconds before the first step, once.
        total: Seconds for all that is left.
    """

    engine: str
    size: int = 1
    workers: int = 1
    threads: int = 1
    compiled: bool = False
    step: float = math.nan
    evaluation: float = 0.0
    start: float = 0.0
    total: float = math.nan

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        elsewhere = f"{self.workers} processes with {threads} each"
        if self.engine == "population":
            place = f"in {elsewhere}" if self.workers > 1 else f"with {threads}"
            return f"populations of {self.size} {place}{compiled}"
        return {"solo": f"solo with {threads}", "processes": elsewhere}[self.engine]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was chosen.

    Attributes:
        best: The engine.
        reason: Why, in a sentence.
        together: The runs that train in populations.
        events: Kind and text of what a reader should know: timings, and what could not be.
    """

    best: Tried
    reason: str
    together: tuple[RunPlan, ...] = ()
    events: tuple[tuple[str, str], ...] = ()

    @classmethod
    def asked(
        cls,
        name: str,
        *,
        together: Sequence[RunPlan] = (),
        events: Sequence[tuple[str, str]] = (),
        **settings: Any,
    ) -> Found:
        """An engine that somebody asked for."""
        best = Tried(engine=name, **settings)
        return cls(
            best=best,
            reason=f"engine: {best}, as asked for",
            together=tuple(together),
            events=tuple(events),
        )


class _Race:
    """What is left of a race, and what an engine would take for it."""

    def __init__(self, place: Place, waiting: Sequence[RunPlan], times: int) -> None:
        spec = place.plan.spec
        self.place = place
        self.runs = len(waiting) * times
        self.steps = waiting[0].steps
        self.evaluations = -(-self.steps // spec.eval_every) if spec.watch else 0
        if waiting[0].stage == "final" and spec.decides.split != spec.watch:
            self.evaluations += 1
        self.split: Any = spec.watch or spec.decides.split

    def total(self, tried: Tried) -> Tried:
        each = self.steps * tried.step + self.evaluations * tried.evaluation
        return replace(tried, total=tried.start + self.runs * each)


def probe(place: Place, waiting: Sequence[RunPlan], *, times: int = 1) -> Found:
    """Measure the engines that can do what is left, and choose.

    Args:
        place: The race.
        waiting: Runs of one length.
        times: How often as many runs are still to come, these included.
    """
    race = _Race(place, waiting, times)
    threads = torch.get_num_threads()
    solo = _measure_solo(race, waiting, threads)
    if not math.isfinite(solo.tried.total):
        return Found(best=solo.tried, reason="engine: solo; every arm diverges or fails at once")
    if solo.tried.total < _SMALL:
        return Found(
            best=solo.tried,
            reason=f"engine: solo; it needs about {solo.tried.total:.1f} s, too little to measure "
            "others",
        )
    events: list[tuple[str, str]] = []
    rivals: list[_Rival] = []
    if threads > 1:  # small matrices, or a busy machine: threads may wait more than they work
        rivals.append(_measure_solo(race, waiting, 1))
    best = min(r.tried.threads for r in (solo, *rivals) if r.beats(solo))
    least = min(r.tried.total for r in (solo, *rivals))
    until = time.monotonic() + max(4.0, _SHARE * least)
    fit = try_population(place, waiting)  # of one run, too: its passes may be carried out in C++
    together = _measure_populations(race, fit, solo.tried, best, until=until)
    if best != threads and any(r.tried.total < 1.5 * least for r in together):
        together += _measure_populations(race, fit, solo.tried, threads, until=until)
    rivals += together
    events += fit.events
    crew: list[Worker] = []
    try:
        single = next((r.tried for r in rivals if r.tried.engine == "solo"), solo.tried)
        apart = _measure_processes(race, waiting, single, threads, crew=crew, events=events)
        batched = [r.tried for r in rivals if r.tried.engine == "population"]
        if apart and batched:
            quickest = min(batched, key=lambda tried: tried.total)
            apart += _measure_herds(race, fit, quickest, apart[0].tried.start, crew=crew)
        rivals += apart
        chosen, plain = _take_turns(race, [solo, *rivals], events)
    finally:
        for worker in crew:
            worker.close()
        rivals.clear()
        gc.collect()
    saved = 1 - chosen.total / plain.total
    why = f"{saved:.0%} less than the {plain.total:.0f} s of {plain}" if saved else "the fastest"
    return Found(
        best=chosen,
        reason=f"engine: {chosen}; about {chosen.total:.0f} s for what is left, {why}",
        together=tuple(fit.together) if chosen.engine == "population" else (),
        events=tuple(events),
    )


@dataclass
class _Rival:
    """An engine that can do the race, and what measures its step again."""

    tried: Tried
    measure: Callable[[], float]

    def again(self) -> float:
        """Seconds per step of one run; NaN if it cannot go on."""
        with using(self.tried.threads if self.tried.workers == 1 else None):
            try:
                return self.measure()
            except Exception:  # noqa: BLE001  a stranger's code; the race itself writes it down
                return math.nan

    def beats(self, other: _Rival) -> bool:
        """Whether it was at least as fast."""
        return self.tried.total <= other.tried.total


@contextmanager
def using(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads meanwhile; None: as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure_solo(race: _Race, waiting: Sequence[RunPlan], threads: int) -> _Rival:
    """A plain run of up to four arms."""
    calmest: dict[str, RunPlan] = {}
    for run in calmest_first(waiting):
        calmest.setdefault(run.arm.label, run)
    by_arm = [calmest[label] for label in dict.fromkeys(run.arm.label for run in waiting)][:4]
    runs = [train_here(race.place, replace(run, steps=10**9)) for run in by_arm]

    def measure() -> float:
        return _mean([_seconds_per_step(run, _BLOCK / len(runs)) for run in runs])

    rival = _Rival(Tried(engine="solo", threads=threads), measure)
    with using(threads):
        rival.again()
        rival.tried = race.total(replace(rival.tried, step=rival.again()))
        if rival.tried.total >= _SMALL / 4:
            begin = time.perf_counter()
            runs[0].evaluate(race.split)
            evaluation = time.perf_counter() - begin
            rival.tried = race.total(replace(rival.tried, evaluation=evaluation))
    return rival


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if all(map(math.isfinite, values)) else math.nan


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN without any."""
    numbers = [value for value in values if math.isfinite(value)]
    return statistics.fmean(numbers) if numbers else math.nan


def _seconds_per_step(run: Training, seconds: float) -> float:
    """Of a run, or NaN if it diverges at once."""
    chunk = run.advance(2)
    if len(chunk.loss) < 2:
        return math.nan
    n = max(2, min(10_000, int(seconds * len(chunk.loss) / max(chunk.seconds, 1e-9))))
    chunk = run.advance(n)
    return chunk.seconds / len(chunk.loss) if len(chunk.loss) else math.nan


def _measure_populations(
    race: _Race, fit: Fit, solo: Tried, threads: int, *, until: float
) -> list[_Rival]:
    """Larger and larger populations, as long as that pays and time and memory allow."""
    if fit.size is None:
        return []
    sizes = [size for size in _SIZES if size < fit.size]
    if not sizes or len(fit.together) <= 2 * fit.size:
        sizes.append(fit.size)
    found: list[_Rival] = []
    for size in sizes:
        rival = _measure_population(race, fit, size, threads, solo, compiled=False)
        if rival is None:
            break
        found.append(rival)
        best = min(r.tried.total for r in found)
        slower = [r.tried.total > 1.1 * best for r in found[-2:]]
        hopeless = len(found) > 1 and best > 1.5 * solo.total
        if (len(slower) == 2 and all(slower)) or hopeless or time.monotonic() > until:
            break
    if not found:
        return []
    quickest = min(found, key=lambda r: r.tried.total)
    left = min(quickest.tried.total, solo.total)
    if left > _COMPILING_PAYS:
        rival = _measure_population(race, fit, quickest.tried.size, threads, solo, compiled=True)
        return [quickest] + ([rival] if rival else [])
    return [quickest]


def _measure_population(
    race: _Race, fit: Fit, size: int, threads: int, solo: Tried, *, compiled: bool
) -> _Rival | None:
    """None if it does not fit into memory, or if all members diverge at once."""
    begin = time.perf_counter()
    endless = [replace(run, steps=10**9) for run in fit.together[:size]]
    with using(threads):
        try:
            population = build(race.place, endless, compiled=compiled)
            population.advance(WARM_UP)
            if not population.alive:
                return None
            start = time.perf_counter() - begin if compiled else 0.0

            def measure() -> float:
                begin = time.perf_counter()
                population.advance(1)
                once = time.perf_counter() - begin
                n = max(1, min(1000, int(_BLOCK / once)))
                begin = time.perf_counter()
                population.advance(n)
                return (time.perf_counter() - begin) / n / len(population)

            step = measure()
            begin = time.perf_counter()
            examples = population.try_evaluation(min(_EXAMPLES, race.place.task.eval_batch_size))
            share = (time.perf_counter() - begin) / len(population) / examples
        except Exception as error:  # noqa: BLE001  a stranger's code; alone it may well work
            what = "does not fit into memory" if is_out_of_memory(error) else "cannot go on"
            fit.events.append(
                ("not_batched", f"a population of {size} runs {what}: {why_not(error)}")
            )
            return None
    total = population.examples(race.split)
    tried = Tried(
        engine="population",
        size=size,
        threads=threads,
        compiled=compiled,
        step=step,
        start=start,
        evaluation=share * total if total else solo.evaluation,
    )
    return _Rival(race.total(tried), measure)


def _measure_processes(
    race: _Race,
    waiting: Sequence[RunPlan],
    solo: Tried,
    threads: int,
    *,
    crew: list[Worker],
    events: list[tuple[str, str]],
) -> list[_Rival]:
    """As many processes as torch has threads here, one thread each."""
    plan = race.place.plan
    reason: str | None = None
    workers = min(threads, len(waiting))
    if plan.spec.device != "cpu":
        reason = "they would share one device"
    elif workers < 2:
        reason = "there is one thread, or one run"
    elif solo.total < _WORKERS_PAY:
        reason = f"starting them does not pay in a race of {solo.total:.0f} s"
    else:
        reason = race.place.handout.why_not()
    if reason is not None:
        events.append(("no_processes", f"processes were not tried: {reason}"))
        return []
    begin = time.perf_counter()
    try:
        crew += [hire(race.place, threads=1) for _ in range(workers)]
        runs = [
            train_there(worker, plan, replace(waiting[i % len(waiting)], steps=10**9))
            for i, worker in enumerate(crew)
        ]
    except Exception as error:  # noqa: BLE001  the task may not load there
        events.append(("no_processes", f"processes cannot be used: {why_not(error)}"))
        return []
    start = time.perf_counter() - begin

    def measure() -> float:
        with ThreadPoolExecutor(len(runs)) as pool:
            steps = list(pool.map(lambda run: _seconds_per_step(run, _BLOCK), runs))
        return _mean(steps) / len(runs)

    rival = _Rival(Tried(engine="processes", workers=workers, threads=1, start=start), measure)
    rival.again()
    step = rival.again()
    evaluation = solo.evaluation * step / solo.step
    rival.tried = race.total(replace(rival.tried, step=step, evaluation=evaluation))
    return [rival]


def _measure_herds(
    race: _Race, fit: Fit, alone: Tried, start: float, *, crew: list[Worker]
) -> list[_Rival]:
    """A population in each of the processes, as large as is the fastest here."""
    workers = len(crew)
    size = min(alone.size, (fit.size or 0) // workers)  # all of them are in memory at once
    if size < 2:
        return []
    endless = [replace(run, steps=10**9) for run in fit.together]
    begin = time.perf_counter()
    try:
        herds = [
            gather_there(worker, race.place.plan, endless[i * size : (i + 1) * size])
            for i, worker in enumerate(crew)
        ]
        for herd in herds:
            herd.advance(WARM_UP)
    except Exception as error:  # noqa: BLE001  a stranger's code; alone it may well work
        fit.events.append(
            ("no_processes", f"populations of {size} cannot train in processes: {why_not(error)}")
        )
        return []
    start += time.perf_counter() - begin

    def advance(herd: RemotePopulation) -> float:
        herd.advance(1)
        once = max(1e-6, max(chunk.seconds for chunk in herd.advance(1)) * size)
        n = max(1, min(1000, int(_BLOCK / once)))
        begin = time.perf_counter()
        herd.advance(n)
        return (time.perf_counter() - begin) / n / size

    def measure() -> float:
        if not all(herd.alive for herd in herds):
            return math.nan
        with ThreadPoolExecutor(len(herds)) as pool:
            return _mean(list(pool.map(advance, herds))) / len(herds)

    tried = Tried(engine="population", size=size, workers=workers, threads=1, start=start)
    rival = _Rival(tried, measure)
    step = rival.again()
    evaluation = alone.evaluation * step / alone.step
    rival.tried = race.total(replace(tried, step=step, evaluation=evaluation))
    return [rival]


def _take_turns(
    race: _Race, everybody: Sequence[_Rival], events: list[tuple[str, str]]
) -> tuple[Tried, Tried]:
    """Measure all again, one after the other, several times; the one to take, and solo."""
    steps: list[list[float]] = [[] for _ in everybody]
    for _ in range(_ROUNDS if len(everybody) > 1 else 1):
        for rival, found in zip(everybody, steps, strict=True):
            found.append(rival.again())
    final = [
        race.total(replace(rival.tried, step=_median(found)))
        for rival, found in zip(everybody, steps, strict=True)
    ]
    for tried in final:
        ahead = f", {tried.start:.1f} s to start" if tried.start else ""
        events.append(
            (
                "engine_timing",
                f"{tried}: {1e3 * tried.step:.3g} ms per step of a run, "
                f"{1e3 * tried.evaluation:.3g} ms per evaluation{ahead}; "
                f"about {tried.total:.0f} s for what is left",
            )
        )
    plain = final[0]
    best = min(final, key=lambda t: t.total if math.isfinite(t.total) else math.inf)
    pays = not math.isfinite(plain.total) or best.total < (1 - _MARGIN) * plain.total
    return (best if pays else plain), plain
