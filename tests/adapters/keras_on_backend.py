"""What is promised of the Keras optimizers, on the backend of this process.

Run by test_keras.py, once per backend, since a process has one backend:
``KERAS_BACKEND=jax JAX_ENABLE_X64=1 pytest tests/adapters/keras_on_backend.py``.
"""

import keras
import numpy as np
import pytest
import torch

import steepest
from steepest import rules
from steepest.adapters.keras import optimizer
from steepest.errors import InputError, UnsupportedError
from steepest.rules._dialects import DIALECTS
from steepest.testing.follow import follow
from steepest.testing.trials import hard_values

pytestmark = pytest.mark.filterwarnings("default:__array__:DeprecationWarning")  # Keras's own

BACKEND = keras.backend.backend()
STEPS = 100
ROWS = [row for row in DIALECTS if row.library == "keras"]
SHAPES = {"any": [(4, 3), (5,)], "matrix": [(6, 4), (5, 5)], "square": [(5, 5), (6, 6)]}


def case(kind="any", *, steps=STEPS, lr=1e-2, dtype="float64"):
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape).astype(dtype) for shape in SHAPES[kind]]
    grads = [
        [(np.exp(rng.normal()) * rng.normal(size=p.shape)).astype(dtype) for p in params]
        for _ in range(steps)
    ]
    return params, grads, lr * (1.1 + np.sin(np.arange(steps) / 7))


def paths(runs, *, dtype="float64"):
    """By key the variables after every step, for ``{key: (optimizer, params, grads, rates)}``."""
    variables = {}
    for key, (made, params, _, _) in runs.items():
        variables[key] = [
            keras.Variable(p, dtype=dtype, name=f"v{i}") for i, p in enumerate(params)
        ]
        made.build(variables[key])
    return (compiled if BACKEND == "jax" else looped)(runs, variables)


def looped(runs, variables):
    found = {}
    for key, (made, _, grads, rates) in runs.items():
        found[key] = []
        for step_grads, rate in zip(grads, rates, strict=True):
            made.learning_rate.assign(rate)
            made.apply([keras.ops.convert_to_tensor(g) for g in step_grads])
            found[key].append([v.value.detach().double().numpy().copy() for v in variables[key]])
    return found


def compiled(runs, variables):
    """All of them in one loop: compiling takes longer than running."""
    import jax

    def step(carry, given):
        moved = {}
        for key, (weights, state) in carry.items():
            rate, grads = given[key]
            iteration, before, *slots = state
            now = [iteration, rate.astype(before.dtype), *slots]
            moved[key] = runs[key][0].stateless_apply(now, grads, weights)
        return moved, {key: weights for key, (weights, _) in moved.items()}

    start = {
        key: ([v.value for v in variables[key]], [v.value for v in made.variables])
        for key, (made, *_) in runs.items()
    }
    given = {
        key: (np.asarray(rates), [np.stack(column) for column in zip(*grads, strict=True)])
        for key, (_, _, grads, rates) in runs.items()
    }
    _, found = jax.jit(lambda start, given: jax.lax.scan(step, start, given))(start, given)
    return {
        key: [[np.asarray(x[i], "float64") for x in path] for i in range(len(path[0]))]
        for key, path in found.items()
    }


def apart(ours, theirs, params):
    way = max(np.abs(b - p).max() for b, p in zip(theirs[-1], params, strict=True))
    assert way > 0
    pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a, b, strict=True)]
    return max(np.abs(a - b).max() for a, b in pairs) / way


DIALECT = {row.path.partition(":")[2]: row for row in ROWS}
if BACKEND == "torch":  # Keras 3.15 reads the momentum there after it was changed in place
    del DIALECT["ScheduleFreeAdamW"]


@pytest.fixture(scope="module")
def dialect_paths():
    keras.config.set_floatx("float64")
    runs = {}
    for name, row in DIALECT.items():
        arguments = {**row.stress, "weight_decay": 0.1}
        own = {"adam_weight_decay": 0.1} if name == "Muon" else {}
        theirs = getattr(keras.optimizers, name)(**arguments, **own)
        runs["theirs " + name] = (theirs, *case(row.shapes))
        runs["ours " + name] = (optimizer(name, dialect="keras", **arguments), *case(row.shapes))
    found = paths(runs)
    keras.config.set_floatx("float32")
    return found


@pytest.mark.parametrize("name", DIALECT)
def test_its_dialect_is_keras_own_class_over_a_hundred_steps(dialect_paths, name):
    params, _, _ = case(DIALECT[name].shapes)
    # some of Keras's numbers are float32 whatever the variables are
    assert apart(dialect_paths["ours " + name], dialect_paths["theirs " + name], params) < 5e-6
    assert float(optimizer(name, dialect="keras").learning_rate) == pytest.approx(
        float(getattr(keras.optimizers, name)().learning_rate)
    )


FORMULAS = ["adamw", "prodigy", "muon", "schedulefree_adamw", "clip_global_norm(sgd)", "rprop"]
if BACKEND == "torch":  # on JAX the others are compiled in test_optax.py
    FORMULAS += ["sgd", "nadam", "radam", "adafactor", "lars", "asgd", "cautious(adamw)"]
    FORMULAS += ["soap", "shampoo"]


ADAM = {"weight_decay": 0.1, "epsilon": 1e-3, "beta_1": 0.8, "beta_2": 0.99}


def formula_case(name):
    rule = rules.get(name)
    # of a matrix that is not square, the first gradient leaves some of SOAP's eigenvectors open
    kind = {"soap": "square"}.get(name, "matrix" if rule.kind == "matrix" else "any")
    return case(kind, steps=20, lr=rule.hyperparameters["lr"])


@pytest.fixture(scope="module")
def formula_paths():
    keras.config.set_floatx("float64")
    runs = {}
    for name in FORMULAS:
        rule, given = rules.get(name), formula_case(name)
        auxiliary = {"lr_ratio": 1.0} if rule.kind == "matrix" else None
        made = optimizer(name, float(given[2][0]), auxiliary=auxiliary, **hard_values(rule))
        runs[name] = (made, *given)
    case_of = case(steps=20)
    runs["ours adam"] = (optimizer("adam", **ADAM), *case_of)
    runs["keras adam"] = (keras.optimizers.Adam(**ADAM), *case_of)
    found = paths(runs)
    keras.config.set_floatx("float32")
    return found


@pytest.mark.parametrize("name", FORMULAS)
def test_its_default_meaning_is_the_formula_in_numpy(formula_paths, name):
    rule, (params, grads, rates) = rules.get(name), formula_case(name)
    # Keras has a layer's outputs in the columns, the rules have them in the rows
    way = np.transpose if rule.kind == "matrix" else np.asarray
    expected, _ = follow(
        rule,
        [way(p) for p in params],
        [[way(g) for g in step] for step in grads],
        [{**hard_values(rule), "lr": float(rate)} for rate in rates],
    )
    expected = [[way(p) for p in step] for step in expected]
    assert apart(formula_paths[name], expected, params) < 1e-9


def test_adam_is_torch_optim_adam_by_default_and_not_that_of_keras(formula_paths):
    params, grads, rates = case(steps=20)
    weights = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    theirs = torch.optim.Adam(weights, weight_decay=0.1, eps=1e-3, betas=(0.8, 0.99))
    expected = []
    for step_grads, rate in zip(grads, rates, strict=True):
        theirs.param_groups[0]["lr"] = float(rate)
        for p, g in zip(weights, step_grads, strict=True):
            p.grad = torch.tensor(g)
        theirs.step()
        expected.append([p.detach().numpy().copy() for p in weights])
    assert apart(formula_paths["ours adam"], expected, params) < 1e-10
    assert apart(formula_paths["keras adam"], expected, params) > 1e-2


BASE = {
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "use_ema": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "loss_scale_factor": {"loss_scale_factor": 4.0},
}


@pytest.fixture(scope="module")
def base_paths():
    runs = {}
    for name, base in BASE.items():
        given = {"momentum": 0.9, "weight_decay": 0.1, **base}
        run = case(steps=8, dtype="float32")
        runs["theirs " + name] = (keras.optimizers.SGD(**given), *run)
        runs["ours " + name] = (optimizer("sgd", dialect="keras", **given), *run)
    runs["plain"] = (optimizer("sgd", dialect="keras", momentum=0.9, weight_decay=0.1), *run)
    return paths(runs, dtype="float32")


@pytest.mark.parametrize("name", BASE)
def test_what_the_base_class_does_it_does_for_ours_too(base_paths, name):
    params, _, _ = case(steps=8, dtype="float32")
    ours = base_paths["ours " + name]
    assert apart(ours, base_paths["theirs " + name], params) < 1e-5
    assert apart(ours, base_paths["plain"], params) > 1e-3


def test_what_is_excluded_does_not_decay_in_any_meaning():
    for dialect in (None, "keras"):
        made = optimizer("adamw", 0.5, weight_decay=0.1, dialect=dialect)
        made.exclude_from_weight_decay(var_names=["bias"])
        w = keras.Variable(np.ones(2), name="kernel")
        b = keras.Variable(np.ones(2), name="bias")
        made.build([w, b])
        made.apply([keras.ops.zeros(2), keras.ops.zeros(2)])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(w), 0.95, rtol=1e-6)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(b), 1.0)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    return x, (x @ np.array([1.0, -2.0, 3.0, 0.5], "float32"))[:, None]


def model_with(made):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(optimizer=made, loss="mse")
    return model


def fit(model, epochs):
    x, y = data()
    history = model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("nadam", {"weight_decay": 0.01, "clipnorm": 1.0}),
        ("prodigy", {}),
        *[("muon", {"auxiliary": {"lr_ratio": 0.5}, "weight_decay": 0.0})] * (BACKEND == "torch"),
    ],
)
def test_a_model_that_was_saved_and_loaded_goes_on_as_if_nothing_had_happened(
    tmp_path, name, given
):
    schedule = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=24)
    whole = model_with(optimizer(name, schedule, **given))
    losses = fit(whole, 4)
    half = model_with(optimizer(name, schedule, **given))
    first = fit(half, 2)
    half.save(tmp_path / "half.keras")
    steepest.keras.register()
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert loaded.optimizer.get_config() == half.optimizer.get_config()
    assert isinstance(loaded.optimizer, keras.optimizers.Optimizer)
    np.testing.assert_array_equal(first + fit(loaded, 2), losses)
    for a, b in zip(whole.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_schedule_is_asked_for_the_rate_of_every_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.5, 0.25, 0.125])
    ours = optimizer("sgd", schedule)
    v = keras.Variable(np.zeros(1), name="v")
    ours.build([v])
    for _ in range(4):
        ours.apply([keras.ops.ones(1)])
    assert float(keras.ops.convert_to_numpy(v)[0]) == -(0.5 + 0.5 + 0.25 + 0.125)


def test_copies_of_the_weights_are_those_of_before_the_first_step():
    ours = optimizer("schedulefree_sgd", 1.0, momentum=0.5)
    v = keras.Variable(np.zeros(1), name="v")
    ours.build([v])
    v.assign([5.0])  # weights are loaded after the optimizer was built
    for _ in range(2):
        ours.apply([keras.ops.ones(1)])
    # z: 5, 4, 3; x: 4, 3.5; y = (z + x) / 2
    np.testing.assert_allclose(keras.ops.convert_to_numpy(v), [3.25], rtol=1e-6)


def test_what_is_no_matrix_follows_the_auxiliary_rule():
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(6, 4)), "bias": rng.normal(size=4)}
    found = {}
    for name, made in {
        "muon": optimizer("muon", 0.02, auxiliary={"lr_ratio": 0.5, "weight_decay": 0.0}),
        "adam": optimizer("adam", 0.01, beta_1=0.9, beta_2=0.95, epsilon=1e-10),
    }.items():
        variables = {k: keras.Variable(p, name=k) for k, p in start.items()}
        made.build(list(variables.values()))
        made.apply([keras.ops.ones(v.shape) for v in variables.values()])
        found[name] = {k: keras.ops.convert_to_numpy(v) for k, v in variables.items()}
    np.testing.assert_allclose(found["muon"]["bias"], found["adam"]["bias"], rtol=1e-6)
    assert np.abs(found["muon"]["kernel"] - found["adam"]["kernel"]).max() > 1e-3


def test_variables_of_sixteen_bits_are_computed_with_in_32():
    v = keras.Variable(np.ones(2), dtype="bfloat16", name="v")
    ours = optimizer("adam", 0.1)
    ours.build([v])
    ours.apply([keras.ops.convert_to_tensor([0.3, -0.2], dtype="bfloat16")])
    assert keras.backend.standardize_dtype(v.dtype) == "bfloat16"
    now = keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))
    np.testing.assert_allclose(now, [0.9, 1.1], rtol=5e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizer("adm"), "did you mean 'adam'"),
        (lambda: optimizer("adam", -1.0), "lr must be >= 0"),
        (lambda: optimizer("adam", beta_9=0.1), "unknown hyperparameter of adam 'beta_9'"),
        (lambda: optimizer("adam", epsilon=1, eps=2), "are the same number"),
        (lambda: optimizer("adan", dialect="keras"), "unknown rule that keras has 'adan'"),
        (lambda: optimizer("adam", weight_decay=-0.1), "weight_decay must be >= 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.skipif(BACKEND != "jax", reason="torch needs no tracing")
def test_on_jax_a_formula_that_looks_at_the_step_is_refused():
    with pytest.raises(UnsupportedError, match="on the torch backend"):
        optimizer("soap", 0.1, auxiliary={"lr_ratio": 1.0})
