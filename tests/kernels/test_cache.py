"""The folder of compiled kernels: private, whole, and shared by processes that start at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steepest.kernels import cache, compiler
from steepest.kernels.unavailable import KernelUnavailable

SOURCE = 'extern "C" int answer() { return 42; }\n'

STEP = """
import torch, steepest.optim as optim
p = torch.nn.Parameter(torch.ones(5)); p.grad = torch.ones(5)
optimizer = optim.Adam([p], lr=0.25, engine="kernel")
for _ in range(3): optimizer.step()
print([round(x, 4) for x in p.tolist()])
"""


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "_LOADED", {})
    return tmp_path / "cache"


def test_the_folder_is_created_for_its_owner_alone(empty_cache):
    old = os.umask(0)
    try:
        path = cache.folder()
    finally:
        os.umask(old)
    assert path == empty_cache / "steepest" / "kernels"
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_without_the_variable_it_lies_where_the_platform_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    place = "Library/Caches" if sys.platform == "darwin" else ".cache"
    assert cache.folder() == tmp_path / place / "steepest" / "kernels"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("part", ["steepest", "steepest/kernels"])
def test_a_folder_that_others_may_write_to_is_refused(empty_cache, mode, part):
    cache.folder()
    (empty_cache / part).chmod(mode)
    with pytest.raises(KernelUnavailable, match=r"other users may write to .* run: chmod go-w"):
        compiler.load(SOURCE)


def test_a_folder_of_somebody_else_is_refused(empty_cache, monkeypatch):
    path = cache.folder()
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(KernelUnavailable, match=f"belongs to user {owner}, not to you"):
        compiler.load(SOURCE)


def test_a_link_to_elsewhere_is_refused(empty_cache, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (empty_cache / "steepest").mkdir(parents=True, mode=0o700)
    (empty_cache / "steepest" / "kernels").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KernelUnavailable, match="symbolic link"):
        compiler.load(SOURCE)


def test_a_compiled_file_that_others_may_write_to_is_not_loaded(empty_cache, monkeypatch):
    compiler.load(SOURCE)
    (made,) = cache.folder().glob("*.so")
    made.chmod(0o666)
    monkeypatch.setattr(compiler, "_LOADED", {})
    with pytest.raises(KernelUnavailable, match="other users may write to"):
        compiler.load(SOURCE)


def test_a_folder_that_cannot_be_made_is_a_reason_not_a_crash(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(KernelUnavailable, match="no cache folder"):
        cache.folder()


def test_a_kernel_is_compiled_once_and_then_read_from_disk(empty_cache, monkeypatch):
    assert compiler.load(SOURCE).answer() == 42
    (made,) = cache.folder().iterdir()
    assert made.suffix == ".so"
    assert made.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(compiler, "_LOADED", {})
    monkeypatch.setattr(compiler.Compiler, "compile", None)
    assert compiler.load(SOURCE).answer() == 42


def test_a_damaged_file_is_made_anew(empty_cache, monkeypatch):
    source = SOURCE + "// damaged\n"
    path = cache.folder() / f"{compiler.find().key(source)}.so"
    path.write_bytes(b"\x7fELF not really")
    path.chmod(0o600)
    assert compiler.load(source).answer() == 42


def test_the_name_of_a_kernel_depends_on_all_that_its_code_depends_on(monkeypatch):
    found = compiler.find()
    names = {
        found.key(SOURCE),
        found.key(SOURCE + " "),
        compiler.Compiler(found.command, "another version", found.flags).key(SOURCE),
        compiler.Compiler(found.command, found.version, ("-O1",)).key(SOURCE),
    }
    monkeypatch.setattr(compiler, "_processor", lambda: "another processor")
    assert len(names | {found.key(SOURCE)}) == 5


def test_the_compilers_first_complaint_is_passed_on(empty_cache):
    with pytest.raises(KernelUnavailable, match=r"could not compile a kernel: .*error: .*nonsense"):
        compiler.load("nonsense;")
    assert list(cache.folder().iterdir()) == []


def test_without_any_compiler_it_says_what_was_tried(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    compiler._probe.cache_clear()
    message = r"no-such-compiler -O2: not found; c\+\+: not found.*set CXX to its path"
    try:
        with pytest.raises(KernelUnavailable, match=message):
            compiler.find()
    finally:
        compiler._probe.cache_clear()


def test_cxx_chooses_the_compiler(monkeypatch):
    default = compiler.find()
    monkeypatch.setenv("CXX", f"{default.command[0]} -DCHOSEN")
    assert compiler.find().command == (*default.command, "-DCHOSEN")


def test_a_kernel_uses_the_threads_that_torch_has():
    """A second OpenMP runtime would mean a second pool of threads on the same cores."""
    compiler.load("#include <omp.h>\n" + SOURCE.replace("42", "omp_get_max_threads()"))
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc to see which libraries are loaded")
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = {line.split()[-1] for line in lines if "libgomp" in line or "libiomp" in line}
    assert len(loaded) == 1


@pytest.mark.slow
def test_eight_processes_with_an_empty_cache_all_succeed(empty_cache):
    environment = {**os.environ, "XDG_CACHE_HOME": str(empty_cache), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", STEP],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    answers = [process.communicate(timeout=300) for process in running]
    assert [error for _, error in answers] == [""] * 8
    assert {out for out, _ in answers} == {"[0.25, 0.25, 0.25, 0.25, 0.25]\n"}
    left = sorted(p.suffix for p in (empty_cache / "steepest" / "kernels").iterdir())
    assert left == [".so", ".so"]  # the kernel and the walker, nothing half made
