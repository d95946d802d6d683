"""From what a user types to a `Task`: a ready-made name, a file, or a module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from steepest.errors import InputError, SteepestError, TaskError, unknown_name
from steepest.tasks import options
from steepest.tasks.images.make import images
from steepest.tasks.mnist import mnist, mnist_logreg, mnist_mlp
from steepest.tasks.text.make import text
from steepest.train.task import Task

__all__ = ["absolute", "describe", "load", "names", "options_by_task", "with_options"]

_READY_MADE: Mapping[str, Callable[..., Task]] = {
    "images": images,
    "mnist": mnist,
    "mnist-mlp": mnist_mlp,
    "mnist-logreg": mnist_logreg,
    "text": text,
}
_HERE = Path(__file__).name


def names() -> tuple[str, ...]:
    """The names of the ready-made tasks.

    >>> names()
    ('images', 'mnist', 'mnist-logreg', 'mnist-mlp', 'text')
    """
    return tuple(sorted(_READY_MADE))


def describe(name: str) -> str:
    """One line about a ready-made task.

    >>> describe("mnist-mlp")
    'MNIST with a perceptron 784-128-10: 101,770 parameters.'
    """
    if name not in _READY_MADE:
        raise unknown_name("task", name, _READY_MADE)
    return (inspect.getdoc(_READY_MADE[name]) or "").split("\n")[0]


def options_by_task() -> dict[str, dict[str, options.Option]]:
    """The options of every ready-made task."""
    return {name: options.options_of(_READY_MADE[name]) for name in names()}


def absolute(spec: str) -> str:
    """The text by which the same task is found from any folder.

    Args:
        spec: See `load`.
    """
    return options.absolute(spec, _READY_MADE)


def with_options(spec: str, given: Mapping[str, Any], *, flags: Mapping[str, str]) -> str:
    """The text of a task, with options from the command line written into it.

    Args:
        spec: See `load`.
        given: Options by name.
        flags: How messages call them, by name.

    Raises:
        InputError: If the task does not have an option, or has it in its text already.
    """
    if not given:
        return spec
    found = options.read(spec, _READY_MADE)
    name, written = found if found is not None else (spec, {})
    own = options_by_task().get(name, {})
    for key in given:
        if key not in own:
            others = [task for task, has in options_by_task().items() if key in has]
            takes = ", ".join(flags[k] for k in own if k in flags) or "no options"
            raise InputError(
                f"{flags[key]} is an option of the task {' and of '.join(others)}; "
                f"'{name}' takes {takes}"
            )
        if key in written:
            raise InputError(
                f"{flags[key]} is given, and {key} in '{spec}' too; leave one of them out"
            )
    return options.write(name, options.settle(name, _READY_MADE[name], {**written, **given}))


def load(spec: str | Task, *, train_on: Literal["train", "all"] = "train") -> Task:
    """The task that ``spec`` names.

    Args:
        spec: A ready-made name, with options where it takes some
            (``text(data=ads.xlsx, max_length=64)``); ``path/to/file.py:name``;
            ``package.module:name``; or a `Task`. ``name`` is a `Task` or a
            function without arguments that returns one, and may be left out when it is ``task``.
        train_on: ``"train"`` holds validation data out; ``"all"`` trains on them too (a
            ready-made task decides how; of a user's task with tensors, train and val are joined).

    Raises:
        TaskError: If the file or the function raises (with file and line), or what it names is
            missing or no task.
        InputError: For a name that is not known.
    """
    if train_on not in ("train", "all"):
        raise InputError(f"train_on must be 'train' or 'all', got {train_on!r}")
    if isinstance(spec, Task):
        return _train_on(spec, train_on)
    ready = options.read(spec, _READY_MADE)
    if ready is not None:
        return _make(*ready, train_on=train_on)
    if ":" not in spec and not spec.endswith(".py"):
        raise _unknown(spec)
    return _train_on(_from_python(spec), train_on)


def _make(name: str, settled: Mapping[str, Any], *, train_on: str) -> Task:
    for option in options.options_of(_READY_MADE[name]).values():
        if option.required and option.name not in settled:
            raise InputError(
                f"task '{name}' needs {option.name}: {name}({option.name}=...), or "
                f"--{option.name.replace('_', '-')} ... on the command line. {option.help}"
            )
    return _READY_MADE[name](**settled, train_on=train_on)


def _unknown(spec: str) -> InputError:
    if Path(spec).with_suffix(".py").exists():
        return InputError(f"unknown task '{spec}'; did you mean '{spec}.py:task'?")
    error = unknown_name("task", spec, _READY_MADE)
    return InputError(f"{error}; or your own: my_task.py:task")


def _train_on(task: Task, train_on: str) -> Task:
    if train_on == "train" or task.val is None:
        return task
    import dataclasses

    from steepest.train.data import join

    both = join(task.train, task.val, where=f"task '{task.name}'")
    return dataclasses.replace(task, train=both, val=None)


def _from_python(spec: str) -> Task:
    place, _, name = spec.rpartition(":") if ":" in spec else (spec, ":", "task")
    if not place or not name:
        raise InputError(f"a task is named file.py:name or package.module:name, got {spec!r}")
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    if not hasattr(module, name):
        raise _missing(module, place, name)
    found = getattr(module, name)
    if not isinstance(found, Task) and callable(found):
        try:
            found = found()
        except SteepestError:
            raise
        except Exception as error:
            raise _raised(error, place, f"{name}() raised") from error
    if not isinstance(found, Task):
        raise TaskError(
            f"{spec} must be a steepest.Task or a function without arguments that returns one, "
            f"got {type(found).__name__}"
        )
    return found


def _file(path: Path) -> ModuleType:
    path = path.expanduser()
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = f" Python files there: {', '.join(sorted(near)[:8])}" if near else ""
        raise InputError(f"there is no file {path}.{hint}")
    path = path.resolve()
    # A name of its own per path: two files called task.py do not replace each other, classes
    # can be found again by worker processes of a DataLoader, and inspect finds the source.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_steepest_task_{digest}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be read as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # the file may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except SteepestError as error:
        del sys.modules[spec.name]
        raise type(error)(f"{_where(error, str(path))}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise _raised(error, str(path), "raised") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _raised(error, name, "raised") from error
        raise InputError(
            f"there is no module '{name}' here; a file is named with its ending: {name}.py:task"
        ) from error
    except Exception as error:
        raise _raised(error, name, "raised") from error


def _missing(module: ModuleType, place: str, name: str) -> TaskError:
    here: dict[str, Any] = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, ModuleType)
    }
    tasks = sorted(key for key, value in here.items() if isinstance(value, Task))
    own = sorted(
        key
        for key, value in here.items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    )
    if tasks:
        there = f"tasks there: {', '.join(tasks)}"
    elif own:
        there = f"there is no Task either; functions there: {', '.join(own)}"
    else:
        there = f"names there: {', '.join(sorted(here)) or 'none'}"
    return TaskError(f"{place} has no '{name}'; {there}")


def _where(error: BaseException, place: str) -> str:
    """The deepest line in the user's own file, else the deepest line at all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == place or Path(f.filename).name == Path(place).name]
    frame = (own or [f for f in frames if Path(f.filename).name != _HERE] or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _raised(error: BaseException, place: str, verb: str) -> TaskError:
    path = str(Path(place).expanduser().resolve()) if place.endswith(".py") else place
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return TaskError(f"{_where(error, path)} {verb} {type(error).__name__}: {text}")
