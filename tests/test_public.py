"""The public surface: explicit, complete, light to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import steepest


def test_every_public_name_exists_and_dir_lists_it() -> None:
    for name in steepest.__all__:
        assert getattr(steepest, name) is not None
        assert name in dir(steepest)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steepest.nothing


def test_the_verb_survives_the_import_of_every_module() -> None:
    script = (
        "import pkgutil, importlib, steepest\n"
        "for m in pkgutil.walk_packages(steepest.__path__, 'steepest.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "verbs = ('audit', 'race', 'resume', 'load', 'search')\n"
        "assert all(callable(getattr(steepest, v)) for v in verbs)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_pulls_in_nothing_heavy() -> None:
    script = (
        "import sys, json, time, torch\n"
        "before = set(sys.modules); t = time.perf_counter()\n"
        "import steepest\n"
        "steepest.optim.Adam; steepest.Task\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(json.dumps([time.perf_counter() - t, sorted(new)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    seconds, new = json.loads(done.stdout)
    heavy = {"pandas", "plotly", "jinja2", "matplotlib", "typer", "transformers", "keras", "jax"}
    assert heavy.isdisjoint(new)
    assert seconds < 3.0  # 0.3 s on a quiet machine; this bound only catches a heavy import
