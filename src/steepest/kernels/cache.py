"""The folder of what is kept: the user's own, private, safe under many processes at once.

Compiled kernels lie in there and are loaded into the process as machine code. So the folder is
created for its owner alone (0700), and one that somebody else owns or may write to is refused.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["check_private", "folder", "place"]


def folder(purpose: str = "kernels") -> Path:
    """The cache folder for a purpose, created if need be.

    ``$XDG_CACHE_HOME/steepest/<purpose>``; without that variable ``~/Library/Caches`` on macOS and
    ``~/.cache`` elsewhere.

    Raises:
        KernelUnavailable: If it cannot be created, or others could have put code into it.
    """
    if not hasattr(os, "getuid"):
        raise KernelUnavailable(f"a private folder for {purpose} needs a POSIX system")
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    try:
        root = Path(base) if base.startswith("/") else home.expanduser()
        path = root / "steepest" / purpose
        root.mkdir(parents=True, exist_ok=True)
        for part in (path.parent, path):
            part.mkdir(mode=0o700, exist_ok=True)
            check_private(part)
    except (OSError, RuntimeError) as error:
        raise KernelUnavailable(f"no cache folder for {purpose}: {error}") from error
    return path


def check_private(path: Path) -> None:
    """Refuse a file or folder that another user owns or may write to.

    Raises:
        KernelUnavailable: If so; the message says what to do.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise KernelUnavailable(
            f"{path} is a symbolic link; remove it, or set XDG_CACHE_HOME to a folder of your own"
        )
    if found.st_uid != os.getuid():
        raise KernelUnavailable(
            f"{path} belongs to user {found.st_uid}, not to you ({os.getuid()}); "
            "remove it, or set XDG_CACHE_HOME to a folder of your own"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KernelUnavailable(
            f"other users may write to {path} (mode {stat.S_IMODE(found.st_mode):o}); "
            f"run: chmod go-w '{path}'"
        )


@contextmanager
def place(target: Path) -> Iterator[Path]:
    """A path to write to that becomes ``target`` at once, or never.

    Two processes that make the same file both succeed; readers see one of the two, whole.
    """
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        yield made
        made.chmod(0o600)
        made.replace(target)
