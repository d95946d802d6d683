"""Who watches a race, how often it looks up, and how whatever takes long is asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from steepest.errors import SteepestError
from steepest.racing.spec import Plan

__all__ = ["Observer", "Pace", "Silent", "Stop", "StoppedError", "stop_requests", "stopped"]


class StoppedError(SteepestError):
    """It was stopped; what was done is in its folder, and it can go on from there."""

    exit_code = 130


class Observer(Protocol):
    """Who wants to see how far a race is, such as a progress bar."""

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        """The race begins; ``done`` has the steps that each run has done already."""

    def added(self, plan: Plan) -> None:
        """The plan has grown: the next runs of the tuning stage, or those of the final stage."""

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        """A run has done ``step`` of ``total`` steps; the last batch's loss."""

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        """A run came to its end: ``done``, ``diverged`` or ``failed``."""

    def note(self, text: str) -> None:
        """Something that a person should know now."""


class Silent:
    """The observer that looks away."""

    def started(self, plan: Plan, done: Mapping[str, int]) -> None:
        """Nothing."""

    def added(self, plan: Plan) -> None:
        """Nothing."""

    def advanced(self, run_id: str, step: int, total: int, loss: float) -> None:
        """Nothing."""

    def run_finished(self, run_id: str, status: str, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the loop looks up; none of it changes a result.

    Attributes:
        look: Seconds of training between two looks at the progress and at requests to stop.
        commit: Least seconds between two commits.
        share: Commits may take this share of the time; a slow checkpoint is written less often.
        timing: Seconds for the timing pass; 0 leaves it out.
    """

    look: float = 0.4
    commit: float = 2.0
    share: float = 0.05
    timing: float = 6.0


class Stop:
    """Whether somebody asked for an end; it comes where nothing is lost that need not be."""

    def __init__(self, last_words: StoppedError) -> None:
        self.requested = False
        self._last_words = last_words

    def obey(self) -> None:
        """Raise `StoppedError` if it was asked for; call it after a commit."""
        if self.requested:
            raise self._last_words

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # the second time at once; the last commit stands
            raise KeyboardInterrupt
        self.requested = True


def stopped(folder: Path) -> StoppedError:
    """What is said when a race was stopped: how it goes on."""
    return StoppedError(
        f"stopped; everything that was done is kept. Go on with: steepest resume {folder}"
    )


@contextmanager
def stop_requests(last_words: StoppedError) -> Iterator[Stop]:
    """Ctrl-C and a request to terminate wait for the next commit meanwhile.

    Only the main thread of a process can be asked; elsewhere nothing can be stopped but by
    ending the process, which loses at most what was done since the last commit.

    Args:
        last_words: What is raised then; it says what is kept and how it goes on.
    """
    stop = Stop(last_words)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, stop._ask) for number in numbers}
    try:
        yield stop
    except KeyboardInterrupt:
        stop.requested = True
        stop.obey()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
