"""How far every library in `steepest.rules._dialects` is from the rule that is said to be it.

    pip install keras jax optax timm pytorch_optimizer schedulefree prodigyopt lion-pytorch \
        torch-optimi transformers
    python benchmarks/dialects.py               # all that is installed
    python benchmarks/dialects.py optax keras   # these

Prints, per row of the table: the distance that the table states, the distance found at the
library's defaults and under the row's stress, and the first step at which they are apart.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from steepest import rules
from steepest.rules._dialects import DIALECTS, VERSIONS, Dialect
from steepest.testing.follow import Trajectory, follow

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
STEPS = 120
SHAPES = {"any": ((4, 3), (5,)), "matrix": ((6, 4), (5, 5)), "square": ((6, 6), (5, 5))}
Run = tuple[list[Any], list[list[Any]], Any]


def make(dialect: Dialect) -> Run:
    """Parameters, gradients of changing size, and a rate that changes every step."""
    rng = np.random.default_rng(0)
    shapes = SHAPES[dialect.shapes]
    params = [rng.normal(size=shape) for shape in shapes]
    grads = [
        [np.exp(rng.normal()) * rng.normal(size=shape) for shape in shapes] for _ in range(STEPS)
    ]
    lr = 1.0 if dialect.rule == "prodigy" else 1e-2
    wave = np.zeros(STEPS) if dialect.constant else 0.1 + np.sin(np.arange(STEPS) / 7)
    return params, grads, lr * (1 + wave)


def run_torch(make_it: Callable[..., Any], arguments: Mapping[str, Any], run: Run) -> Trajectory:
    """A `torch.optim.Optimizer` class."""
    import torch

    torch.set_default_dtype(torch.float64)
    starts, grads, rates = run
    given = dict(arguments)
    if "lr" in inspect.signature(make_it).parameters:
        given["lr"] = float(rates[0])
    if make_it.__module__.startswith("optimi"):
        given.update(kahan_sum=False, foreach=False)
    params = [torch.nn.Parameter(torch.tensor(p)) for p in starts]
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = make_it(params, **given)
    if hasattr(optimizer, "train"):
        optimizer.train()
    path = []
    for step_grads, rate in zip(grads, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        for p, g in zip(params, step_grads, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        path.append([p.detach().numpy().copy() for p in params])
    return path


def run_optax(make_it: Callable[..., Any], arguments: Mapping[str, Any], run: Run) -> Trajectory:
    """A function that takes a learning rate and returns an optax transformation."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    params, grads, rates = [jnp.asarray(p) for p in run[0]], run[1], jnp.asarray(run[2])
    constant = bool((run[2] == run[2][0]).all())
    rate = float(run[2][0]) if constant else (lambda count: rates[count])
    transformation = make_it(rate, **arguments)
    state, update = transformation.init(params), jax.jit(transformation.update)
    path = []
    for step_grads in grads:
        updates, state = update([jnp.asarray(g) for g in step_grads], state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.asarray(p) for p in params])
    return path


def run_keras(make_it: Callable[..., Any], arguments: Mapping[str, Any], run: Run) -> Trajectory:
    """A Keras optimizer class."""
    import jax
    import keras

    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    starts, grads, rates = run
    variables = [keras.Variable(p, dtype="float64") for p in starts]
    optimizer = make_it(learning_rate=float(rates[0]), **arguments)
    optimizer.build(variables)
    path = []
    for step_grads, rate in zip(grads, rates, strict=True):
        optimizer.learning_rate.assign(rate)
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step_grads])
        path.append([np.asarray(v.value) for v in variables])
    return path


def measure(dialect: Dialect, *, stressed: bool) -> tuple[float, int | None]:
    """The largest distance, as a part of the distance travelled, and the first step with one."""
    module, name = dialect.path.split(":")
    make_it = getattr(importlib.import_module(module), name)
    runner = {"keras": run_keras, "optax": run_optax}.get(dialect.library, run_torch)
    run = make(dialect)
    theirs = runner(make_it, dialect.stress if stressed else {}, run)
    values = {**dialect.values, **(dialect.stressed if stressed else {})}
    per_step = [{**values, "lr": float(rate)} for rate in run[2]]
    ours, _ = follow(rules.get(dialect.rule), run[0], run[1], per_step)
    travelled = max(np.abs(b - a).max() for a, b in zip(run[0], theirs[-1], strict=True))
    apart = [
        float(max(np.abs(x - y).max() for x, y in zip(a, b, strict=True)) / travelled)
        for a, b in zip(ours, theirs, strict=True)
    ]
    if not all(map(math.isfinite, apart)):
        return math.inf, None
    first = next((step for step, distance in enumerate(apart, 1) if distance > 1e-9), None)
    return max(apart), first


def main() -> None:
    """Print one line per row of the table."""
    wanted = sys.argv[1:] or list(VERSIONS)
    for library in wanted:
        try:
            print(f"# {library} {importlib.metadata.version(library)}, table: {VERSIONS[library]}")
        except importlib.metadata.PackageNotFoundError:
            print(f"# {library} is not installed")
            continue
        for dialect in DIALECTS:
            if dialect.library != library:
                continue
            cells = []
            for stressed in (False, True):
                if (stressed and not dialect.stress) or (not stressed and not dialect.at_defaults):
                    cells.append(f"{'-':>14}")
                    continue
                off, first = measure(dialect, stressed=stressed)
                cells.append(f"{off:8.1e} {first or '':>5}")
            print(f"{dialect.rule:24} {dialect.path:42} {dialect.off:8.1e} | {' | '.join(cells)}")


if __name__ == "__main__":
    main()
