"""C++ source in, loaded function library out: the system's compiler behind a cache on disk."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from steepest.kernels import cache
from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["Compiler", "find", "load"]

_CANDIDATES = ("c++", "clang++", "g++")
_TIMEOUT = 120  # seconds; a kernel takes 0.1 to 0.5

# IEEE semantics are kept: no -ffast-math. errno and trapping comparisons are given up, since with
# them neither sqrt nor a conditional becomes a vector instruction. No contraction: then a result
# depends neither on the machine's vector unit nor on an element's place in a chunk.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-w",
)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that answers.

    Attributes:
        command: How it is called.
        version: The first line of its ``--version``.
        flags: What a kernel is compiled with.
    """

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    def key(self, source: str) -> str:
        """The file name of what comes out for that source, on a processor like this one."""
        parts = (source, *self.command, self.version, *self.flags, _processor())
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def compile(self, source: str, target: Path) -> None:
        """Compile to a shared library.

        Raises:
            KernelUnavailable: If the compiler fails; with its first complaint.
        """
        with cache.place(target) as made:
            text = made.with_suffix(".cpp")
            text.write_text(source)
            command = [*self.command, *self.flags, str(text), *_openmp_library(), "-o", str(made)]
            try:
                done = subprocess.run(  # noqa: S603
                    command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise KernelUnavailable(f"{self.command[0]} did not compile: {error}") from error
            if done.returncode != 0:
                complaint = next((s for s in done.stderr.splitlines() if "error" in s), done.stderr)
                raise KernelUnavailable(
                    f"{' '.join(self.command)} ({self.version}) could not compile a kernel: "
                    f"{complaint.strip() or f'exit status {done.returncode}'}"
                )


@lru_cache(maxsize=1)
def _processor() -> str:
    """What -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        wanted = ("flags", "Features", "model", "cpu family", "CPU part", "vendor_id", "isa")
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    return f"{platform.machine()} {platform.processor()}"


@lru_cache(maxsize=1)
def _openmp_library() -> tuple[str, ...]:
    """The OpenMP runtime that torch has loaded: a second pool of threads would fight the first."""
    lib = Path(torch.__file__).parent / "lib"
    if sys.platform == "darwin":
        return tuple(str(p) for p in lib.glob("libomp*.dylib"))
    maps = Path("/proc/self/maps")
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if ".so" in line}
    for name in ("libgomp", "libiomp5", "libomp"):
        for path in sorted(paths):
            if Path(path).name.startswith(name):
                return ("-Wl,--as-needed", path)
    return ()


@lru_cache(maxsize=8)
def _probe(candidates: tuple[str, ...]) -> Compiler:
    tried = []
    for candidate in candidates:
        command = tuple(candidate.split())
        if not command or shutil.which(command[0]) is None:
            tried.append(f"{candidate}: not found")
            continue
        try:
            answer = subprocess.run(  # noqa: S603
                [*command, "--version"], capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{candidate}: {error}")
            continue
        if answer.returncode == 0:
            openmp = ("-Xpreprocessor", "-fopenmp") if sys.platform == "darwin" else ("-fopenmp",)
            return Compiler(command, answer.stdout.partition("\n")[0], (*_FLAGS, *openmp))
        tried.append(f"{candidate}: exit status {answer.returncode}")
    raise KernelUnavailable(
        f"no C++ compiler ({'; '.join(tried)}); install one, or set CXX to its path"
    )


def find() -> Compiler:
    """The first compiler that answers: ``$CXX``, ``c++``, ``clang++``, ``g++``.

    Raises:
        KernelUnavailable: If none does.
    """
    chosen = os.environ.get("CXX")
    return _probe((chosen, *_CANDIDATES) if chosen else _CANDIDATES)


_LOADED: dict[tuple[str, tuple[str, ...]], ctypes.CDLL] = {}


def load(source: str, *, holding_gil: bool = False, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library compiled from that source: from this process, from disk, or made now.

    Args:
        source: C++ with ``extern "C"`` functions.
        holding_gil: Its functions use Python objects.
        flags: Of the compiler, after those that all kernels have.

    Raises:
        KernelUnavailable: If there is no compiler, it fails, or the cache folder is not private.
    """
    if (source, flags) in _LOADED:
        return _LOADED[source, flags]
    compiler = find()
    compiler = replace(compiler, flags=(*compiler.flags, *flags))
    target = cache.folder() / f"{compiler.key(source)}.so"
    kind = ctypes.PyDLL if holding_gil else ctypes.CDLL
    library = None
    if target.exists():
        cache.check_private(target)
        try:
            library = kind(str(target))
        except OSError:  # damaged, or linked against a library that is gone: made anew below
            library = None
    if library is None:
        compiler.compile(source, target)
        try:
            library = kind(str(target))
        except OSError as error:
            raise KernelUnavailable(f"a compiled kernel could not be loaded: {error}") from error
    _LOADED[source, flags] = library
    return library
