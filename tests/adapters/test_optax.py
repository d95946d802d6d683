"""optax transformations that are generated from the rules."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import steepest
from steepest import rules
from steepest.adapters.optax import RuleState, averaged, transform
from steepest.errors import InputError, UnsupportedError
from steepest.rules._dialects import DIALECTS
from steepest.testing.follow import follow
from steepest.testing.trials import hard_values

STEPS = 100
ROWS = [row for row in DIALECTS if row.library == "optax"]
SHAPES = {"any": [(4, 3), (5,)], "matrix": [(6, 4), (5, 5)], "square": [(6, 6), (5, 5)]}
UNTRACEABLE = {"shampoo", "soap"}


@pytest.fixture
def _in_float64():
    with jax.enable_x64(True):
        yield


def case(kind, *, dtype=np.float64, constant=False, lr=1e-2, steps=STEPS):
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape).astype(dtype) for shape in SHAPES[kind]]
    scale = np.exp(rng.normal(size=steps))
    grads = [
        np.stack([s * rng.normal(size=shape) for s in scale]).astype(dtype)
        for shape in SHAPES[kind]
    ]
    wave = np.zeros(steps) if constant else 0.1 + np.sin(np.arange(steps) / 7)
    return params, grads, (lr * (1 + wave)).astype(dtype)


def paths(runs):
    """By key the parameters after every step, for ``{key: (transformation, params, grads)}``.

    All the way of all of them is one compiled loop: compiling takes longer than running.
    """

    @jax.jit
    def whole(start, grads):
        def step(carry, g):
            moved = {}
            for key, (p, state) in carry.items():
                updates, new = runs[key][0].update(g[key], state, p)
                moved[key] = (optax.apply_updates(p, updates), new)
            return moved, {key: p for key, (p, _) in moved.items()}

        states = {key: (p, runs[key][0].init(p)) for key, p in start.items()}
        return jax.lax.scan(step, states, grads)[1]

    start = {key: [jnp.asarray(p) for p in run[1]] for key, run in runs.items()}
    found = whole(start, {key: list(run[2]) for key, run in runs.items()})
    return {key: [np.asarray(x) for x in path] for key, path in found.items()}


def apart(ours, theirs, params):
    way = max(np.abs(t[-1] - p).max() for t, p in zip(theirs, params, strict=True))
    assert way > 0
    return max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) / way


def rate_of(rates):
    return (lambda count: jnp.asarray(rates)[count]) if (rates != rates[0]).any() else rates[0]


def own_function(row, rate):
    module, name = row.path.split(":")
    return getattr(importlib.import_module(module), name)(rate, **row.stress)


DIALECT = {row.path: row for row in ROWS if row.off < 1e-4}


def dialect_case(row):
    return case(row.shapes, constant=row.constant, lr=1.0 if row.rule == "prodigy" else 1e-2)


@pytest.fixture(scope="module")
def dialect_paths():
    with jax.enable_x64(True):
        runs = {}
        for path, row in DIALECT.items():
            params, grads, rates = dialect_case(row)
            name, rate = path.partition(":")[2], rate_of(rates)
            ours = transform(name, rate, dialect="optax", **row.stressed)
            runs["ours " + path] = (ours, params, grads)
            runs["theirs " + path] = (own_function(row, rate), params, grads)
        return paths(runs)


@pytest.mark.parametrize("path", DIALECT)
def test_its_dialect_is_optax_own_function_over_a_hundred_steps(dialect_paths, path):
    row = DIALECT[path]
    ours, theirs = dialect_paths["ours " + path], dialect_paths["theirs " + path]
    assert apart(ours, theirs, dialect_case(row)[0]) <= max(10 * row.off, 1e-12)


def test_its_dialect_is_optax_own_function_in_float32():
    params, grads, rates = case("any", dtype=np.float32)
    rate = rate_of(rates)
    names = ("adam", "nadamw", "radam", "adadelta", "rmsprop", "lamb")
    runs = {("ours", n): (transform(n, rate, dialect="optax"), params, grads) for n in names}
    runs |= {("theirs", n): (getattr(optax, n)(rate), params, grads) for n in names}
    found = paths({" ".join(key): run for key, run in runs.items()})
    for name in names:
        assert apart(found[f"ours {name}"], found[f"theirs {name}"], params) < 2e-5


FORMULAS = (
    *sorted(set(rules.names()) - UNTRACEABLE),
    "cautious(adamw)",
    "clip_global_norm(sgd)",
    "centralised(sgd)",
)


def formula_case(name):
    rule = rules.get(name)
    params, grads, rates = case("square" if rule.kind == "matrix" else "any", steps=30)
    return params, grads, rates / rates[0] * rule.hyperparameters["lr"]


@pytest.fixture(scope="module")
def formula_paths():
    with jax.enable_x64(True):
        runs = {}
        for name in FORMULAS:
            params, grads, rates = formula_case(name)
            matrix = rules.get(name).kind == "matrix"
            ours = transform(
                name,
                rate_of(rates),
                auxiliary={"lr_ratio": 1.0} if matrix else None,
                **hard_values(rules.get(name)),
                outputs_last=False,
            )
            runs[name] = (ours, params, grads)
        return paths(runs)


@pytest.mark.parametrize("name", FORMULAS)
def test_it_does_what_the_formula_does_in_numpy(formula_paths, name):
    params, grads, rates = formula_case(name)
    expected, _ = follow(
        rules.get(name),
        params,
        [[g[i] for g in grads] for i in range(30)],
        [{**hard_values(rules.get(name)), "lr": float(rate)} for rate in rates],
    )
    stacked = [np.stack([step[i] for step in expected]) for i in range(len(params))]
    assert apart(formula_paths[name], stacked, params) < 1e-12


@pytest.mark.usefixtures("_in_float64")
def test_outputs_may_be_the_last_axis_or_the_first():
    rng = np.random.default_rng(0)
    p, grads = rng.normal(size=(6, 4)), rng.normal(size=(5, 6, 4))
    runs = {}
    for name in ("muon", "centralised(adam)"):
        first = transform(name, 0.1, outputs_last=False)
        runs[name + " last"] = (transform(name, 0.1), [p], [grads])
        runs[name + " first"] = (first, [p.T], [grads.swapaxes(1, 2)])
        runs[name + " other"] = (first, [p], [grads])
    found = {key: path[0] for key, path in paths(runs).items()}
    for name in ("muon", "centralised(adam)"):
        turned = found[name + " first"].swapaxes(1, 2)
        np.testing.assert_allclose(found[name + " last"], turned, rtol=0, atol=1e-14)
        assert np.abs(found[name + " last"] - found[name + " other"]).max() > 1e-3


@pytest.mark.usefixtures("_in_float64")
def test_on_matrices_that_are_not_square_muon_is_optax_own_too():
    params, grads, rates = case("matrix")
    theirs = optax.contrib.muon(rate_of(rates), weight_decay=0.1)
    ours = transform("muon", rate_of(rates), dialect="optax", weight_decay=0.1)
    found = paths({"ours": (ours, params, grads), "theirs": (theirs, params, grads)})
    assert apart(found["ours"], found["theirs"], params) < 1e-7


@pytest.mark.usefixtures("_in_float64")
def test_what_is_no_matrix_follows_the_auxiliary_rule():
    params = {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(4), "embedding": jnp.ones((9, 4))}
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    muon = transform("muon", 0.02, auxiliary={"lr_ratio": 0.5, "b1": 0.8, "weight_decay": 0.0})
    adam = transform("adam", 0.01, b1=0.8, b2=0.95, eps=1e-10)  # steepest.optim.Muon's auxiliary
    ours, state = muon.update(grads, muon.init(params), params)
    theirs, _ = adam.update(grads, adam.init(params), params)
    np.testing.assert_allclose(ours["bias"], theirs["bias"], rtol=1e-12)
    np.testing.assert_allclose(ours["embedding"], theirs["embedding"], rtol=1e-12)
    assert np.abs(ours["kernel"] - theirs["kernel"]).max() > 1e-4
    assert isinstance(state.slots["momentum_buffer"]["bias"], optax.MaskedNode)
    with pytest.raises(InputError, match="lr_ratio"):
        transform("muon", lambda count: 0.02)
    with pytest.raises(InputError, match="lr_ratio"):
        transform("muon", 0.02, auxiliary={"learning_rate": 0.1})


def test_members_of_a_vmap_are_runs_of_their_own():
    rates = jnp.array([1e-2, 1e-3])
    params, grads, _ = case("any", dtype=np.float32, steps=10)

    def run(rate):
        ours = transform("nadam", rate, weight_decay=0.1)

        def step(carry, g):
            updates, state = ours.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        start = [jnp.asarray(p) for p in params]
        return jax.lax.scan(step, (start, ours.init(start)), list(grads))[0][0]

    together, alone = jax.jit(jax.vmap(run))(rates), jax.jit(run)
    for member, rate in enumerate(rates):
        for a, b in zip(together, alone(rate), strict=True):
            np.testing.assert_allclose(a[member], b, rtol=2e-6, atol=2e-6)


def test_parameters_and_gradients_may_be_of_numpy_and_numbers():
    ours = transform("adam", 0.1)
    params = {"w": np.ones((2, 2), np.float32), "scale": 1.0}
    grads = {"w": np.full((2, 2), 0.3, np.float32), "scale": -0.2}
    state = ours.init(params)
    updates, state = jax.jit(lambda s: ours.update(grads, s, params))(state)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["scale"], 0.1, rtol=1e-5)


def test_masked_parameters_do_not_decay():
    params = {"w": jnp.ones(3), "b": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask in ({"w": True, "b": False}, lambda p: {"w": True, "b": False}):
        ours = transform("adamw", 0.5, weight_decay=0.1, mask=mask)
        updates, _ = ours.update(zeros, ours.init(params), params)
        np.testing.assert_allclose(updates["w"], -0.05)
        np.testing.assert_array_equal(updates["b"], 0.0)
    wrong = transform("adamw", 0.5, mask={"w": True})
    with pytest.raises(InputError, match="mask must be a tree"):
        wrong.update(zeros, wrong.init(params), params)


def test_it_works_inside_of_chain_masked_multi_steps_and_inject_hyperparams():
    params = {"w": jnp.ones(3), "fixed": jnp.ones(2)}
    grads = jax.tree.map(lambda p: 2 * p, params)
    sgd = lambda learning_rate: transform("sgd", learning_rate)  # noqa: E731
    inner = optax.inject_hyperparams(sgd)(learning_rate=0.5)
    chained = optax.chain(
        optax.clip(1.0), optax.masked(inner, {"w": True, "fixed": False}), optax.scale(2.0)
    )
    updates, state = jax.jit(chained.update)(grads, chained.init(params), params)
    np.testing.assert_allclose(updates["w"], -1.0)
    rate = optax.tree_utils.tree_get(state, "learning_rate")
    assert float(rate) == 0.5
    every = optax.MultiSteps(transform("adam", 0.1), every_k_schedule=2)
    state = every.init(params)
    updates, state = every.update(grads, state, params)
    np.testing.assert_array_equal(updates["w"], 0.0)
    updates, state = every.update(grads, state, params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-5)


def test_a_state_that_was_taken_apart_and_put_together_goes_on_to_the_bit():
    params, grads, rates = case("any", dtype=np.float32, steps=20)
    ours = transform("nadam", rate_of(rates))
    update = jax.jit(ours.update)
    p, state = [jnp.asarray(p) for p in params], ours.init(params)
    kept = None
    for i in range(20):
        if i == 10:
            flat, tree = jax.tree.flatten((p, state))
            kept = ([np.asarray(x).copy() for x in flat], tree)
        updates, state = update([g[i] for g in grads], state, p)
        p = optax.apply_updates(p, updates)
    q, state = jax.tree.unflatten(kept[1], [jnp.asarray(x) for x in kept[0]])
    assert isinstance(state, RuleState)
    for i in range(10, 20):
        updates, state = update([g[i] for g in grads], state, q)
        q = optax.apply_updates(q, updates)
    for a, b in zip(p, q, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sixteen_bits_are_computed_with_in_32_and_kept():
    p = jnp.asarray([1.0, 2.0], jnp.bfloat16)
    ours = transform("adam", 1e-1)
    updates, state = jax.jit(ours.update)(jnp.asarray([0.3, -0.2], jnp.bfloat16), ours.init(p), p)
    assert updates.dtype == jnp.bfloat16
    assert state.slots["exp_avg"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(updates, np.float32), [-0.1, 0.1], rtol=1e-2)


def test_an_average_is_read_from_the_state():
    params, grads, _ = case("any", dtype=np.float32, steps=10)
    ours = transform("schedulefree_sgd", 0.1)
    state, p = ours.init(params), [jnp.asarray(x) for x in params]
    z = [x.astype(np.float64) for x in params]
    total = [np.zeros_like(x) for x in z]
    for i in range(10):
        updates, state = ours.update([g[i] for g in grads], state, p)
        p = optax.apply_updates(p, updates)
        z = [x - 0.1 * g[i] for x, g in zip(z, grads, strict=True)]
        total = [t + x for t, x in zip(total, z, strict=True)]
    for x, t in zip(averaged("schedulefree_sgd", p, state), total, strict=True):
        np.testing.assert_allclose(x, t / 10, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="keeps no average"):
        averaged("adam", p, state)
    with pytest.raises(InputError, match="expected the RuleState"):
        averaged("schedulefree_sgd", p, (state,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transform("adm"), InputError, "did you mean 'adam'"),
        (lambda: transform("adam", -1.0), InputError, "learning rate|lr must be >= 0"),
        (lambda: transform("adam", b9=0.1), InputError, "unknown hyperparameter of adam 'b9'"),
        (lambda: transform("adam", b1=0.1, beta1=0.2), InputError, "are the same number"),
        (lambda: transform("adam", eps_mode="odd"), InputError, "eps_mode must be one of"),
        (lambda: transform("adam", dialect="jax"), InputError, "unknown dialect 'jax'"),
        (lambda: transform("adam", dialect="optax"), InputError, "no default learning rate"),
        (lambda: transform("rprop", dialect="optax"), InputError, "cannot be made optax:rprop"),
        (lambda: transform("soap", 0.1), UnsupportedError, "jax.jit cannot know"),
        (lambda: transform("adam", auxiliary={"b1": 0.1}), InputError, "leave out auxiliary"),
        (lambda: transform("adam").init([jnp.ones(2, complex)]), UnsupportedError, "complex"),
        (lambda: transform("adam").init([jnp.ones(2, int)]), UnsupportedError, "int32"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_update_says_that_it_needs_the_parameters():
    ours = steepest.optax.transform("adam")
    with pytest.raises(InputError, match="needs the parameters"):
        ours.update(jnp.ones(2), ours.init(jnp.ones(2)))
