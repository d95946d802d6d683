"""The Keras optimizers, on each backend in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_everything_that_is_promised_holds_on_the_backend(backend):
    promises = Path(__file__).with_name("keras_on_backend.py")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(promises)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


def test_a_backend_that_the_rules_do_not_run_on_is_refused():
    script = (
        "import steepest\n"
        "try:\n"
        "    steepest.keras.optimizer('adam')\n"
        "except steepest.SteepestError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
    )
    assert "Keras runs on numpy here; set KERAS_BACKEND=torch" in done.stdout
