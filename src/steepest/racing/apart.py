"""Carry out planned runs in several processes, singly or some of them together.

A thread per process does for its runs what `steepest.racing.solo` does, only that the training is
elsewhere; so all that is written is written by this process. A process that dies takes nothing
with it but what its run did since its last commit: the run is tried once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Pipe
from typing import Any, Literal

from torch import Tensor

from steepest import errors
from steepest.errors import UnsupportedError
from steepest.racing.arm import Arm
from steepest.racing.objects import Kit
from steepest.racing.observer import Observer, StoppedError
from steepest.racing.parcels import pack_state, unpack_state, unpack_weights
from steepest.racing.record import Place, name_of, unfinished
from steepest.racing.solo import carry_out, fail
from steepest.racing.spec import Conditions, Plan, RunPlan
from steepest.train.checkpoint import RunState
from steepest.train.solo import Chunk
from steepest.train.task import part_name

__all__ = [
    "RemoteRun",
    "Worker",
    "WorkerLostError",
    "carry_out_apart",
    "hire",
    "sent",
    "train_there",
]


class WorkerLostError(errors.SteepestError):
    """A process that trained a run is gone."""


class Worker:
    """A process that trains runs.

    Args:
        kit: What it needs to know.
        threads: That torch may use there.

    Attributes:
        process: The process.
        fingerprint: Of the task, as the process has found it.
        sources: Hashes of the source code behind the arms, as it has found them.
    """

    def __init__(self, kit: Kit, *, threads: int) -> None:
        self._connection, there = Pipe()
        fd = there.fileno()
        with there:
            self.process = subprocess.Popen(  # noqa: S603  this interpreter, our own module
                [sys.executable, "-m", "steepest.racing.worker", str(fd)],
                pass_fds=[fd] if kit.objects is None else [fd, kit.objects],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        try:
            self.fingerprint, self.sources = self.ask("open", kit, threads)
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have something done there.

        Raises:
            WorkerLostError: If the process is gone.
        """
        try:
            self._connection.send((name, arguments))
            kind, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            code = self.process.wait()
            how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise WorkerLostError(f"the process that trained it was {how}") from error
        if kind == "raised":
            raise _error(*answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self.process.kill()
        self.process.wait()


def _error(name: str, text: str) -> Exception:
    """The error as it would have been raised here; a stranger's one by its name and words."""
    ours = getattr(errors, name, None)
    if isinstance(ours, type) and issubclass(ours, errors.SteepestError):
        return ours(text)
    return errors.SteepestError(f"{name}: {text}")


class RemoteRun:
    """A `SoloRun` in a worker.

    Args:
        worker: Which one.
        arm: The arm, with a setting.
        seed: The run's seed.
        under: The conditions.
    """

    def __init__(self, worker: Worker, arm: Arm, *, seed: int, under: Conditions) -> None:
        self._worker = worker
        self.position = 0
        self.order_hash = bytes(16).hex()
        self.start_hash: str = worker.ask("begin", sent(arm), seed, under)

    def advance(self, n: int) -> Chunk:
        """Train some steps."""
        chunk: Chunk
        chunk, self.position, self.order_hash = self._worker.ask("advance", n)
        return chunk

    def evaluate(
        self, split: Literal["train", "val", "test"], *, remember: bool = False
    ) -> dict[str, float]:
        """Measure on a split."""
        return self._worker.ask("evaluate", split, remember)  # type: ignore[no-any-return]

    def keep_best(self) -> None:
        """Keep the weights that the last evaluation remembered."""
        self._worker.ask("keep_best")

    def end_with_best(self) -> None:
        """End here, with those weights."""
        self._worker.ask("end_with_best")

    def weights(self) -> dict[str, Tensor]:
        """The parameters."""
        return unpack_weights(self._worker.ask("weights"))

    def state(self) -> RunState:
        """What `restore` needs."""
        return unpack_state(self._worker.ask("state"))

    def restore(self, state: RunState) -> None:
        """Go to where a state was taken."""
        self.position, self.order_hash = self._worker.ask("restore", pack_state(state))


def sent(arm: Arm) -> Arm:
    """An arm as workers are told it: they know its class or function already."""
    return replace(arm, target=None)


def hire(place: Place, *, threads: int) -> Worker:
    """A worker for a race's runs.

    Raises:
        UnsupportedError: If it cannot have the task, or has found another one.
    """
    worker = Worker(place.handout.kit(), threads=threads)
    changed = [
        part_name(part)
        for part, ours in place.plan.fingerprint.items()
        if worker.fingerprint.get(part) != ours
    ]
    sources = {arm.label: arm.source for arm in place.plan.spec.arms}
    changed += [
        f"the arm '{label}'" for label, theirs in worker.sources.items() if theirs != sources[label]
    ]
    if changed:
        worker.close()
        raise UnsupportedError(
            f"another process finds something else than this one: {', '.join(changed)}. What a "
            "module makes must be the same whenever it is loaded, and its file must not change "
            "during a race; else use engine='solo'"
        )
    return worker


def train_there(worker: Worker, plan: Plan, planned: RunPlan) -> RemoteRun:
    """A planned run, at its start, in a worker."""
    under = plan.spec.conditions(planned.steps)
    return RemoteRun(worker, planned.arm, seed=planned.seed, under=under)


class _OneAtATime:
    """An observer that several threads may call."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._turn = threading.Lock()

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        """Pass it on."""
        with self._turn:
            self._observer.started(plan, done)

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        """Pass it on."""
        with self._turn:
            self._observer.advanced(run_id, step, total, loss)

    def added(self, plan: Plan) -> None:
        """Pass it on."""
        with self._turn:
            self._observer.added(plan)

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        """Pass it on."""
        with self._turn:
            self._observer.run_finished(run_id, status, metrics)

    def note(self, text: str) -> None:
        """Pass it on."""
        with self._turn:
            self._observer.note(text)


Job = Callable[[Place, Worker], Sequence[RunPlan]]
"""Carries out some runs in a worker, or to a commit; returns those to be carried out singly."""


def carry_out_apart(
    place: Place,
    planned: Sequence[RunPlan],
    *,
    workers: int,
    threads: int,
    jobs: Sequence[tuple[Sequence[RunPlan], Job]] = (),
) -> None:
    """Bring runs to their ends, or to a commit if the race was asked to stop.

    Args:
        place: The race.
        planned: The runs that are carried out singly.
        workers: How many processes.
        threads: That torch may use in each.
        jobs: Runs that are carried out together, and what does it; they come first.
    """
    place.handout.kit()  # in this thread, whose stack says where the script is
    crew = _Crew(replace(place, observer=_OneAtATime(place.observer)), planned, jobs, threads)
    crew.work(min(workers, len(planned) + len(jobs)))


class _Crew:
    """Threads that take jobs from a list, each with a worker of its own."""

    def __init__(
        self,
        place: Place,
        planned: Sequence[RunPlan],
        jobs: Sequence[tuple[Sequence[RunPlan], Job]],
        threads: int,
    ) -> None:
        self.place = place
        self.threads = threads
        self._waiting = [*jobs, *(([run], _singly(run)) for run in planned)][::-1]
        self._turn = threading.Lock()
        self._workers: list[Worker] = []
        self._trouble: list[BaseException] = []
        self._over = False

    def work(self, workers: int) -> None:
        crew = [threading.Thread(target=self._shift, daemon=True) for _ in range(workers)]
        for thread in crew:
            thread.start()
        try:
            for thread in crew:
                while thread.is_alive():
                    thread.join(0.2)  # so that requests to stop are heard meanwhile
        finally:
            with self._turn:
                self._over = True
                for worker in self._workers:
                    worker.close()
        for error in self._trouble:
            raise error

    def _next(self) -> tuple[Sequence[RunPlan], Job] | None:
        with self._turn:
            if self._trouble or self._over or self.place.stop.requested or not self._waiting:
                return None
            return self._waiting.pop()

    def _hire(self) -> Worker:
        if self._over:
            raise StoppedError("the race was stopped")
        worker = hire(self.place, threads=self.threads)
        with self._turn:
            self._workers.append(worker)
        return worker

    def _dismiss(self, worker: Worker) -> None:
        with self._turn:
            self._workers.remove(worker)
        worker.close()

    def _shift(self) -> None:
        """A thread's work: one job after the other, a lost worker replaced once per job."""
        worker: Worker | None = None
        try:
            while (found := self._next()) is not None:
                runs, job = found
                for last in (False, True):
                    try:
                        worker = worker or self._hire()
                        self._leave(job(self.place, worker))
                        break
                    except WorkerLostError as error:
                        if worker is not None:
                            self._dismiss(worker)
                            worker = None
                        self._lost(runs, error, last=last)
        except StoppedError:
            pass  # the thread that was asked says so
        except BaseException as error:  # noqa: BLE001  raised again by the thread that waits
            self._trouble.append(error)
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _leave(self, runs: Sequence[RunPlan]) -> None:
        """To whoever has time, one by one."""
        with self._turn:
            self._waiting += [([run], _singly(run)) for run in runs]

    def _lost(self, runs: Sequence[RunPlan], error: WorkerLostError, *, last: bool) -> None:
        if last and len(runs) == 1:
            fail(self.place, runs[0], f"{error}, twice")
            return
        if last:
            self._leave(unfinished(self.place, runs))
        named = name_of(runs[0]) if len(runs) == 1 else f"a population of {len(runs)} runs"
        how = "goes on one by one" if last else "is tried once more"
        text = f"{named} {how} from its last commit: {error}"
        run_id = runs[0].run_id if len(runs) == 1 else None
        self.place.ledger.put_event("worker_lost", text, run_id=run_id)
        self.place.observer.note(text)


def _singly(planned: RunPlan) -> Job:
    def carry_out_there(place: Place, worker: Worker) -> Sequence[RunPlan]:
        def at_start(place: Place, planned: RunPlan) -> RemoteRun:
            return train_there(worker, place.plan, planned)

        carry_out(place, planned, at_start=at_start, passing=(WorkerLostError,))
        return ()

    return carry_out_there
