"""Which hyperparameters matter: shares against their known values, claims against chance."""

import math

import numpy as np
import pytest
from scipy.stats import qmc, rankdata

import steepest.stats.importance as module
from steepest.errors import InputError
from steepest.stats import importances, trials_needed

NAMES = ["a", "b", "c"]
RANGES = [None, None, None]


def sobol(n: int, seed: int, d: int = 3) -> np.ndarray:
    return qmc.Sobol(d, seed=np.random.default_rng(seed)).random(n)


def surface(u: np.ndarray) -> np.ndarray:
    """Mostly a, a little b, not c."""
    return -4 * (u[:, 0] - 0.6) ** 2 + 0.3 * u[:, 1]


def of(found, name):
    return next(row for row in found.rows if row.name == name)


def test_with_many_trials_the_shares_are_the_sobol_indices_of_the_ranks():
    # conditional means over bins: no polynomial, no least squares
    u = sobol(2**12, 0)
    y = u[:, 0] + 0.5 * u[:, 1]
    q = rankdata(y)
    expected = []
    for i in range(3):
        cells = np.floor(u[:, i] * 64).astype(int)
        means = np.array([q[cells == cell].mean() for cell in range(64)])
        expected.append(means.var() / q.var())
    found = importances(u, list(y), names=NAMES, levels=RANGES, higher_is_better=True)
    for name, share in zip(NAMES, expected, strict=True):
        row = of(found, name)
        assert row.share == pytest.approx(share, abs=0.01)
        assert row.low <= max(row.share, 0.0) <= row.high
    assert [row.name for row in found.rows[:2]] == ["a", "b"]
    assert found.rest == pytest.approx(1 - sum(expected), abs=0.02)


def test_a_choice_is_measured_by_the_means_of_its_values():
    rng = np.random.default_rng(0)
    values = np.repeat([0, 1, 2], 40)
    y = np.array([0.0, 1.0, 1.5])[values] + rng.normal(0, 0.5, 120)
    q = rankdata(y)
    means = np.array([q[values == v].mean() for v in range(3)])
    noise = sum(((q[values == v] - means[v]) ** 2).sum() for v in range(3)) / 117
    between = means.var() - noise * 2 / 120
    expected = between / (between + noise)
    found = importances(
        ((values + 0.5) / 3)[:, None], list(y), names=["mode"], levels=[3], higher_is_better=True
    )
    assert found.rows[0].share == pytest.approx(expected, rel=1e-9)
    assert found.rows[0].clear


@pytest.mark.parametrize("trials", [16, 32])
def test_nothing_is_claimed_where_nothing_matters_and_what_matters_is_found(trials, monkeypatch):
    monkeypatch.setattr(module, "REPEATS", 399)
    rng = np.random.default_rng(1)
    false, found_a, false_c, covered = 0, 0, 0, []
    truth = 0.643  # of a: its parabola over 2**20 uniform trials (all its shapes: 0.674)
    for seed in range(200):
        u = sobol(trials, seed)
        noise = importances(
            u, list(rng.normal(size=trials)), names=NAMES, levels=RANGES, higher_is_better=True
        )
        false += bool(noise.clear)
        y = surface(u) + rng.normal(0, 0.2, trials)
        real = importances(u, list(-y), names=NAMES, levels=RANGES, higher_is_better=False)
        found_a += of(real, "a").clear
        false_c += of(real, "c").clear
        covered.append(of(real, "a").low <= truth <= of(real, "a").high)
    # 5 % of 200 with three standard errors
    assert false <= 10 + 9
    assert false_c <= 10 + 9
    assert found_a >= 160
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 200)


def test_failed_trials_are_the_worst_on_either_side():
    u = sobol(32, 0, d=1)
    good = [None if x > 0.6 else 0.5 for x in u[:, 0]]
    for higher in (True, False):
        found = importances(u, good, names=["lr"], levels=[None], higher_is_better=higher)
        assert found.clear
        assert found.rows[0].share > 0.5
    swapped = [math.inf if x is None else x for x in good]
    again = importances(u, swapped, names=["lr"], levels=[None], higher_is_better=True)
    assert again == importances(u, good, names=["lr"], levels=[None], higher_is_better=True)


def test_only_the_order_of_the_scores_counts():
    u = sobol(16, 2)
    y = surface(u)
    one = importances(u, list(y), names=NAMES, levels=RANGES, higher_is_better=True)
    two = importances(u, list(np.exp(9 * y)), names=NAMES, levels=RANGES, higher_is_better=True)
    assert one == two


def test_too_few_trials_claim_nothing_and_say_how_many_would_do():
    assert trials_needed(RANGES) == 14
    assert trials_needed([2, None]) == 8
    u = sobol(16, 0)[:13]
    found = importances(u, list(surface(u)), names=NAMES, levels=RANGES, higher_is_better=True)
    assert not found.rows
    assert found.reason.startswith("13 trials are too few")
    assert "14 would be the fewest" in found.reason


@pytest.mark.parametrize(
    ("points", "scores", "reason"),
    [
        (np.linspace(0, 1, 8)[:, None], [1.0] * 8, "same score"),
        (np.linspace(0, 1, 8)[:, None], [None] * 8, "same score"),
        (np.tile(np.linspace(0, 1, 16), (2, 1)).T, list(range(16)), "cannot be told apart"),
    ],
)
def test_degenerate_trials_claim_nothing(points, scores, reason):
    names, levels = ["lr", "eps"][: points.shape[1]], [None, None][: points.shape[1]]
    found = importances(points, scores, names=names, levels=levels, higher_is_better=True)
    assert reason in found.reason
    assert not found.rows
    assert math.isnan(found.rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((3, 2))}, "points of shape"),
        ({"scores": [1.0]}, "1 scores"),
        ({"levels": []}, "0 levels"),
        ({"level": 95}, "did you mean 0.95"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "points": np.zeros((8, 1)),
        "scores": [1.0] * 8,
        "names": ["lr"],
        "levels": [None],
        "higher_is_better": True,
    }
    arguments |= change
    with pytest.raises(InputError, match=message):
        importances(arguments.pop("points"), arguments.pop("scores"), **arguments)


def test_a_grid_of_two_values_is_fitted_by_a_line_and_what_was_not_varied_explains_nothing():
    a, b = np.meshgrid([0.0, 1 / 3, 2 / 3, 1.0], [0.0, 1.0])
    points = np.column_stack([a.ravel(), b.ravel(), np.full(8, 0.5)])
    scores = list(a.ravel() + 0.01 * np.arange(8))
    found = importances(points, scores, names=NAMES, levels=RANGES, higher_is_better=True)
    assert found.clear[0].name == "a"
    assert of(found, "c").share == 0
    assert of(found, "c").p == 1
