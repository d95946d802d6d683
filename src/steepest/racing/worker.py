"""A process that trains runs for a race: ``python -m steepest.racing.worker FD``.

It is started by `steepest.racing.apart`, is asked over a socket, and knows nothing of the ledger.
It ends when the socket is closed, so that nothing is left behind when the race itself is killed.
"""

from __future__ import annotations

import multiprocessing.spawn
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch

from steepest import tasks
from steepest.errors import SteepestError, UnsupportedError
from steepest.racing import database, lookup
from steepest.racing.arm import Arm
from steepest.racing.objects import Kit
from steepest.racing.parcels import StateParcel, pack_state, pack_weights, unpack_state
from steepest.racing.spec import Conditions
from steepest.train.population import Member, Population
from steepest.train.solo import SoloRun
from steepest.train.task import Task

__all__ = ["main"]


class _Desk:
    """What can be asked for, by name."""

    def __init__(self) -> None:
        self.task: Task | None = None
        self.optimizers: Mapping[str, Any] = {}
        self.run: Any = None
        self.population: Any = None

    def open(self, kit: Kit, threads: int) -> Any:
        """Say what was found: the task's fingerprint, the source code behind each arm."""
        objects = _unpacked(kit)
        self.optimizers = objects.get("arms", {})
        self.task = (
            objects["task"]()
            if kit.task is None
            else tasks.load(kit.task, train_on=cast("Any", kit.train_on))
        )
        torch.set_num_threads(threads)  # whatever the modules have set that were loaded
        sources = {label: lookup.source_hash(made) for label, made in self.optimizers.items()}
        return self.task.fingerprint(), sources

    def _bound(self, arm: Arm) -> Arm:
        return arm if arm.kind == "rule" else replace(arm, target=self.optimizers[arm.label])

    def begin(self, arm: Arm, seed: int, under: Conditions) -> Any:
        found = self._bound(arm)
        self.run = None  # before the next one takes memory
        self.run = SoloRun(
            self.task,  # type: ignore[arg-type]  # always told first
            optimizer=found.factory(),
            schedule=found.schedule,
            seed=seed,
            **vars(under),
        )
        return self.run.start_hash

    def advance(self, n: int) -> Any:
        chunk = self.run.advance(n)
        return chunk, self.run.position, self.run.order_hash

    def evaluate(self, split: Any, remember: bool) -> dict[str, float]:
        return self.run.evaluate(split, remember=remember)  # type: ignore[no-any-return]

    def keep_best(self) -> None:
        self.run.keep_best()

    def end_with_best(self) -> None:
        self.run.end_with_best()

    def weights(self) -> Any:
        return pack_weights(self.run.weights())

    def state(self) -> Any:
        return pack_state(self.run.state())

    def restore(self, parcel: StateParcel) -> Any:
        self.run.restore(unpack_state(parcel))
        return self.run.position, self.run.order_hash

    def gather(self, members: Sequence[tuple[Arm, int]], under: Conditions) -> Any:
        arms = [(self._bound(arm), seed) for arm, seed in members]
        self.population = None  # before the next one takes memory
        self.population = Population(
            self.task,  # type: ignore[arg-type]  # always told first
            [Member(arm.factory(), arm.schedule, seed, under.guard) for arm, seed in arms],
            steps=under.steps,
            batch_size=under.batch_size,
            device=under.device,
            precision=under.precision,
        )
        return self.population.start_hashes, self._where()

    def _where(self) -> Any:
        them = self.population
        return them.position, them.diverged_at, them.alive, them.left(), them.how

    def together(self, name: str, *arguments: Any) -> Any:
        """Ask the population; what comes out and goes in as tensors is packed."""
        them = self.population
        if name == "evaluate":
            split, remember = arguments
            found = them.evaluate(split, remember=remember)
        elif name == "weights":
            found = pack_weights(them.weights(*arguments))
        elif name == "state":
            found = pack_state(them.state(*arguments))
        elif name == "restore":
            packed, frozen = arguments
            states = [None if parcel is None else unpack_state(parcel) for parcel in packed]
            found = them.restore(states, frozen=frozen)
        elif name == "compacted":
            self.population, found = them.compacted()
        else:
            found = getattr(them, name)(*arguments)
        return found, self._where()


def _unpacked(kit: Kit) -> dict[str, Any]:
    """The objects of a kit, after the modules that they are named by."""
    sys.path[:] = dict.fromkeys([*kit.path, *sys.path])
    if kit.objects is None:
        return {}
    try:
        prepared: dict[str, Any] = {"sys_argv": list(kit.arguments)}
        if kit.main is not None:
            kind, name = kit.main
            prepared[f"init_main_from_{kind}"] = name
        multiprocessing.spawn.prepare(prepared)
        for name, path in kit.modules.items():
            lookup.load_file(Path(path), name)
        found = torch.load(f"/dev/fd/{kit.objects}", mmap=True, weights_only=False)
    except SteepestError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's modules
        raise UnsupportedError(
            f"another process cannot load the task or an arm: {type(error).__name__}: {error}"
        ) from error
    return cast("dict[str, Any]", found)


def main(fd: int) -> None:
    """Answer until nobody asks any more."""
    database.leave_writing_to("the race that it trains for")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the race's business
    desk = _Desk()
    with Connection(fd) as connection:
        while True:
            try:
                name, arguments = connection.recv()
            except (EOFError, ConnectionError):
                return
            ask: Callable[..., Any] = getattr(desk, name)
            try:
                answer = "done", ask(*arguments)
            except Exception as error:  # noqa: BLE001  a stranger's code; the race writes it down
                answer = "raised", (type(error).__name__, str(error).strip())
            try:
                connection.send(answer)
            except ConnectionError:  # the race was killed while this was being computed
                return


if __name__ == "__main__":
    main(int(sys.argv[1]))
