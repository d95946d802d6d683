"""The task and the optimizers of a race on their way to workers.

A task that has a name is loaded there by its name. Everything else is a Python object: a `Task`
from somebody's script, a class or a function of an arm. These are pickled once per race, into a
file that has no name: only this process and the processes that it starts can read it, and it is
gone when they are, however they end. Nothing that comes from anywhere else is unpickled. The
tensors in it are mapped into memory, so all workers share one copy of them.

Pickles hold functions and classes as the names of modules, so workers must find these modules. A
module that was loaded from a path is loaded from that path again; so is the script that is run,
under the name ``__mp_main__`` as by `multiprocessing`, if it starts the race where that name keeps
workers out.
"""

from __future__ import annotations

import ast
import pickle
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import IO, Any, Literal

import torch

from steepest.errors import UnsupportedError
from steepest.racing.arm import Arm
from steepest.train.task import Task, part_name

__all__ = ["Handout", "Kit"]

_MAIN = "__main__"
_ELSEWHERE = "which another process cannot find by name"


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What a worker is given before its first run.

    Attributes:
        task: The name of the task; None: it is among the objects.
        train_on: ``train``, or ``all`` where validation data is trained on too.
        objects: The descriptor of the file with the objects; None: there are none.
        path: Where modules are looked for.
        arguments: Of the command line, which the script may read.
        main: The script that is run, as a ``path`` or a module's ``name``, if it is needed.
        modules: Other modules that no name finds: where they lie.
    """

    task: str | None
    train_on: str = "train"
    objects: int | None = None
    path: Sequence[str] = ()
    arguments: Sequence[str] = ()
    main: tuple[Literal["path", "name"], str] | None = None
    modules: Mapping[str, str] = field(default_factory=dict)


class Handout:
    """Makes the kit of a race's workers, once, when the first one is needed.

    Args:
        spec: The name of the task; None for an object from Python.
        task: The task itself.
        arms: The arms of the race.
        train_on: ``train``, or ``all`` where validation data is trained on too.
    """

    def __init__(self, spec: str | None, task: Task, arms: Sequence[Arm], *, train_on: str) -> None:
        self._spec = spec
        self._task = task
        self._arms = [arm for arm in arms if arm.kind != "rule"]
        self._train_on = train_on
        self._kit: Kit | None = None
        self._file: IO[bytes] | None = None

    def kit(self) -> Kit:
        """What every worker is given.

        Raises:
            UnsupportedError: If something of it cannot be had in another process.
        """
        if self._kit is None:
            self._kit = self._packed()
        return self._kit

    def why_not(self) -> str | None:
        """Why other processes cannot train this race's runs; None if nothing is in the way."""
        try:
            self.kit()
        except UnsupportedError as error:
            return str(error)
        return None

    def close(self) -> None:
        """Let go of the file; no worker can be hired any more."""
        if self._file is not None:
            self._file.close()

    def _packed(self) -> Kit:
        found = _Found()
        objects: dict[str, Any] = {"arms": {}}
        for arm in self._arms:
            found.look(f"the arm '{arm.label}'", arm.target)
            found.look(f"a value of the arm '{arm.label}'", arm.values)
            objects["arms"][arm.label] = arm.target
        if self._spec is None:
            found.look("the class of the task", type(self._task))
            parts = {each.name: getattr(self._task, each.name) for each in fields(self._task)}
            for name, value in parts.items():
                if name != "metrics":
                    found.look(part_name(name), value)
            for name, metric in self._task.metrics.items():
                found.look(f"the metric '{name}'", getattr(metric, "fn", metric))
            # Its parts, not the task: the fingerprint that it remembers would come with it.
            objects["task"] = partial(type(self._task), **parts)
        return Kit(
            task=self._spec,
            train_on=self._train_on,
            objects=self._write(objects) if self._spec is None or self._arms else None,
            path=tuple(sys.path),
            arguments=tuple(sys.argv),
            main=found.main,
            modules=found.modules,
        )

    def _write(self, objects: Mapping[str, Any]) -> int:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the race
            torch.save(objects, self._file, pickle_protocol=pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except Exception as error:  # what a stranger's objects raise, or a full disk
            self.close()
            raise UnsupportedError(
                f"the task cannot be written for other processes: {type(error).__name__}: {error}; "
                f"temporary files go to {tempfile.gettempdir()}, TMPDIR names another place"
            ) from error
        return self._file.fileno()


class _Found:
    """Which modules workers need for some objects."""

    def __init__(self) -> None:
        self.main: tuple[Literal["path", "name"], str] | None = None
        self.modules: dict[str, str] = {}
        self._known: set[str] = set()

    def look(self, what: str, thing: Any) -> None:
        """Raise `UnsupportedError` unless another process can have this.

        Args:
            what: How messages call it.
            thing: Anything.
        """
        trial = _Trial(thing)
        try:
            trial.dump(thing)
        except _UnnamedError as error:
            raise UnsupportedError(f"{what} {error}") from None
        except Exception as error:  # whatever a stranger's __reduce__ raises
            raise UnsupportedError(
                f"{what} cannot be pickled for another process ({type(error).__name__}: {error}); "
                "leave out what belongs to this process alone, and open files when they are read"
            ) from error
        for name in sorted(trial.modules - self._known):
            self._add(what, name)
            self._known.add(name)

    def _add(self, what: str, name: str) -> None:
        module = sys.modules.get(name)
        if name == _MAIN:
            self.main = _main(what)
        elif module is not None and not _found_by_name(module):
            origin = getattr(module, "__file__", None)
            if origin is None:
                raise UnsupportedError(
                    f"{what} is defined in '{name}', a module without a file, {_ELSEWHERE}; put it "
                    "into a .py file and import it"
                )
            self.modules[name] = str(Path(origin).resolve())


class _UnnamedError(Exception):
    """A function or a class that no name finds."""


class _Trial(pickle.Pickler):
    """Pickles into nothing, without tensors and arrays, and sees which modules are named.

    Args:
        whole: What is pickled.
    """

    def __init__(self, whole: Any) -> None:
        super().__init__(_Nowhere(), pickle.HIGHEST_PROTOCOL, buffer_callback=lambda _: None)
        self.whole = whole
        self.modules: set[str] = set()

    def persistent_id(self, thing: Any) -> str | None:
        """What is in a tensor is not looked at: `torch.save` can write it."""
        return "storage" if torch.is_storage(thing) else None

    def reducer_override(self, thing: Any) -> Any:
        """Functions and classes go by their names."""
        if isinstance(thing, (FunctionType, type)):
            name = thing.__qualname__
            verb = "is" if thing is self.whole else "holds"
            if "<lambda>" in name:
                raise _UnnamedError(
                    f"{verb} a lambda, {_ELSEWHERE}; write it with def at the top of a module"
                )
            if "<locals>" in name:
                outer, _, inner = name.rpartition(".<locals>.")
                raise _UnnamedError(
                    f"{verb} '{inner}', which is defined inside '{outer}', {_ELSEWHERE}; define it "
                    "at the top of a module, and give it values with functools.partial"
                )
            self.modules.add(str(thing.__module__))
        return NotImplemented


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        """Forget it."""
        return len(data)


def _found_by_name(module: ModuleType) -> bool:
    """Whether another process that looks in the same places finds this module, not another one."""
    spec = getattr(module, "__spec__", None)
    places: Sequence[str] | None = None
    origin: str | None = None
    parts = module.__name__.split(".")
    for depth in range(1, len(parts) + 1):
        found = _spec(".".join(parts[:depth]), places)
        if found is None:  # what a package of compiled code makes when it is imported has no file
            return depth > 1 and getattr(module, "__file__", None) is None
        places, origin = found.submodule_search_locations, found.origin
    return spec is None or origin == spec.origin


def _spec(name: str, places: Sequence[str] | None) -> ModuleSpec | None:
    """As importlib.util.find_spec, which answers from what is imported already."""
    for finder in sys.meta_path:
        found = finder.find_spec(name, places)
        if found is not None:
            return found
    return None


def _main(what: str) -> tuple[Literal["path", "name"], str]:
    """The script that is run, if a worker can load it without starting the race again."""
    main = sys.modules[_MAIN]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if path is None:
        raise UnsupportedError(
            f"{what} is defined at a prompt or in a notebook, {_ELSEWHERE}; put it into a .py file "
            "and import it"
        )
    script = Path(path).resolve()
    if script.name == f"{_MAIN}.py":
        raise UnsupportedError(
            f"{what} is defined in {script}, {_ELSEWHERE}; put it into another module"
        )
    line = _line_of(main, script)
    if line is None or not _guarded(script, line):
        raise UnsupportedError(
            f"{what} is defined in {script.name}, and a process that loads this script would start "
            "the race again; start it under \"if __name__ == '__main__':\", or put the definition "
            "into another module"
        )
    return ("path", str(script)) if spec is None else ("name", spec.name)


def _line_of(main: ModuleType, script: Path) -> int | None:
    """The line at which the script is; None where this thread was not started from there."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno if Path(code.co_filename).resolve() == script else None
        frame = frame.f_back
    return None


def _guarded(script: Path, line: int) -> bool:
    """Whether a line is only reached when the file is the script that is run."""
    tree = ast.parse(script.read_bytes())
    return any(
        isinstance(node, ast.If)
        and _is_guard(node.test)
        and node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0)
        for node in ast.walk(tree)
    )


def _is_guard(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_is_guard, test.values))
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            sides = {ast.unparse(left), ast.unparse(right)}
            return sides == {"__name__", repr(_MAIN)}
    return False
