"""Find a stranger's optimizer class by the name that was written in an arm."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from steepest.errors import InputError, unknown_name

__all__ = ["absolute", "function", "load_file", "optimizer_class", "source_hash"]

_OURS = Path(__file__).parents[1]


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class behind ``package.module:Class`` or ``path/to/file.py:Class``.

    Raises:
        InputError: If the module cannot be imported, has no such name, or it is no optimizer.

    >>> optimizer_class("torch.optim:Adam").__name__
    'Adam'
    """
    found = _find(name)
    if not _is_optimizer(found):
        raise InputError(
            f"{name} is {found!r}, which is no torch.optim.Optimizer class; derive it from "
            "torch.optim.Optimizer"
        )
    return found  # type: ignore[no-any-return]


def absolute(name: str) -> str:
    """The name with the full path of its file, so that it is found from any folder.

    >>> absolute("torch.optim:Adam")
    'torch.optim:Adam'
    """
    place, colon, attribute = name.rpartition(":")
    return f"{Path(place).resolve()}{colon}{attribute}" if place.endswith(".py") else name


def function(name: str) -> Any:
    """The function behind ``package.module:function``, as an arm's text names it.

    >>> function("math:sqrt")(9.0)
    3.0
    """
    return _find(name)


def source_hash(value: Any) -> str:
    """A hash of the source code of a class or function that the user may edit.

    Empty where there is no source to read, and for installed packages, whose version is in the
    protocol of the race.
    """
    try:
        file = inspect.getsourcefile(value) or ""
        if "site-packages" in Path(file).parts or Path(file).is_relative_to(_OURS):
            return ""
        source = inspect.getsource(value)
    except (OSError, TypeError):  # built in, or typed at a prompt
        return ""
    return sha256(source.encode()).hexdigest()


def _find(name: str) -> Any:
    place, _, attribute = name.rpartition(":")
    found: Any = _from_file(Path(place)) if place.endswith(".py") else _from_package(place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            classes = [k for k, v in vars(found).items() if _is_optimizer(v)]
            raise unknown_name(f"class in {place}", part, classes)
        found = getattr(found, part)
    return found


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def _from_package(name: str) -> ModuleType:
    with _first_on_path(Path.cwd()), _explained(f"module '{name}'"):
        return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of a Python file before the ':'")
    path = path.resolve()
    return load_file(
        path, f"_steepest_arm_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    )


def load_file(path: Path, name: str) -> ModuleType:
    """A module of a file, under a name by which its classes are found again.

    Raises:
        InputError: If it cannot be imported.
    """
    loader = SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)  # where inspect.getsource looks
    with _first_on_path(path.parent), _explained(str(path)):
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported, as they could be by a script that lies there."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # an import runs a stranger's code
        raise InputError(
            f"cannot import {what}: {type(error).__name__}: {error}; "
            "check the name, and that it is installed here"
        ) from error
