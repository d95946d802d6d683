"""Nothing optional is imported before it is used, and what is missing says how to get it."""

import json
import subprocess
import sys

import pytest

OPTIONAL = ("accelerate", "jax", "keras", "lightning", "optax", "transformers")


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_steepest_and_its_adapters_imports_no_optional_library():
    script = (
        "import json, sys, steepest\n"
        "steepest.hf.task, steepest.lightning, steepest.keras.optimizer, steepest.optax.transform\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    assert set(OPTIONAL).isdisjoint(json.loads(run(script)))


CALLS = {
    "hf": "steepest.hf.optimizer_cls_and_kwargs('adam')",
    "keras": "steepest.keras.optimizer('adam')",
    "lightning": "steepest.lightning.LedgerCallback('ledger')",
    "optax": "steepest.optax.transform('adam')",
}


@pytest.mark.parametrize("extra", CALLS)
def test_a_missing_library_is_an_error_with_the_line_that_installs_it(extra):
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # None: as if not installed
        "import steepest\n"
        "try:\n"
        f"    {CALLS[extra]}\n"
        "except steepest.SteepestError as error:\n"
        "    print(error)\n"
    )
    assert f'pip install "steepest[{extra}]"' in run(script)
