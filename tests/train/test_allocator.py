"""Freed memory stays with the process, unless the environment says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def said(**environment):
    code = "from steepest.train.allocator import keep_freed_memory as f; print(f())"
    clean = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@glibc
def test_the_thresholds_are_raised():
    assert said() == "raised to 256 MiB and 1 GiB"


@glibc
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STEEPEST_MALLOC": "system"}, "STEEPEST_MALLOC=system"),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, "the environment sets them"),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, "the environment sets them"),
    ],
)
def test_the_environment_has_the_last_word(environment, words):
    assert words in said(**environment)


def test_elsewhere_nothing_is_done(monkeypatch):
    from steepest.train import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory.__wrapped__() == "left alone: thresholds are glibc's"
