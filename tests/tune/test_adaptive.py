"""Optuna's samplers behind ask and tell."""

import math
import random
import sys

import numpy as np
import pytest

from steepest.errors import InputError, UnsupportedError
from steepest.stats import importance, importances
from steepest.tune import Choice, Proposer, Range, Space, propose, sampler_names

SPACE = Space(
    {"lr": Range(1e-5, 1e-1), "beta1": Range(0.5, 0.98), "mode": Choice(("a", "b", "c"))},
    {"eps": 1e-8},
)


def loss(setting):
    """Best at lr = 1e-3 in mode b; beta1 does nothing."""
    return (math.log10(setting["lr"]) + 3) ** 2 + (setting.get("mode", "b") != "b")


def search(proposer, *, trials=24, batch=4, order=None):
    settings = []
    while len(settings) < trials:
        asked = proposer.ask(batch)
        numbers = list(range(len(settings), len(settings) + batch))
        for number in sorted(numbers, key=order):
            proposer.tell(number, loss(asked[number - len(settings)]))
        settings += asked
    return settings


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "gp"])
def test_the_same_scores_lead_to_the_same_settings_whatever_order_they_come_in(sampler):
    first = search(Proposer(SPACE, sampler=sampler, seed=1), trials=12)
    shuffled = random.Random(0)
    again = search(
        Proposer(SPACE, sampler=sampler, seed=1), trials=12, order=lambda _: shuffled.random()
    )
    assert first == again
    for setting in first:
        assert set(setting) == {"lr", "beta1", "mode", "eps"}
        SPACE.position(setting)
    assert search(Proposer(SPACE, sampler=sampler, seed=2), trials=12) != first


def test_a_replay_goes_on_as_if_it_had_not_been_interrupted():
    whole = search(Proposer(SPACE, seed=0), trials=24)
    resumed = Proposer(SPACE, seed=0)
    search(resumed, trials=16)
    tail = resumed.ask(4)
    assert tail == whole[16:20]


def test_tpe_learns_from_scores_and_random_does_not():
    def best(sampler: str, seed: int) -> float:
        return min(map(loss, search(Proposer(SPACE, sampler=sampler, seed=seed), trials=40)))

    tpe = [best("tpe", seed) for seed in range(5)]
    chance = [best("random", seed) for seed in range(5)]
    assert sum(tpe) / 5 < 0.5 * sum(chance) / 5


def test_higher_is_better_is_told_to_the_sampler():
    def mean_distance(higher: bool) -> float:
        space = Space({"lr": Range(1e-5, 1e-1)})
        proposer = Proposer(space, seed=0, higher_is_better=higher)
        late = []
        for number in range(40):
            setting = proposer.ask(1)[0]
            place = float(space.position(setting)[0])
            proposer.tell(number, place if higher else 1 - place)
            late.append(1 - place)
        return sum(late[20:]) / 20

    assert mean_distance(True) < 0.25  # both look for the upper end
    assert mean_distance(False) < 0.25


def test_tpe_keeps_away_from_where_runs_fail():
    space = Space({"lr": Range(1e-5, 1e-1)})
    proposer = Proposer(space, seed=0)
    places = []
    for number in range(40):
        setting = proposer.ask(1)[0]
        places.append(float(space.position(setting)[0]))
        proposer.tell(number, math.inf if places[-1] > 0.6 else 1.0 + places[-1])
    assert sum(place > 0.6 for place in places[20:]) <= 4


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p: p.ask(2), "trials 0 have no score yet"),
        (lambda p: p.tell(1, 0.0), "trial 1 is none of the last batch"),
        (lambda p: (p.tell(0, 1.0), p.tell(0, 1.0)), "trial 0 was told already"),
        (lambda p: (p.tell(0, 1.0), p.ask(0)), "number of trials must be"),
    ],
)
def test_what_is_out_of_turn_is_refused(act, message):
    proposer = Proposer(SPACE)
    proposer.ask(1)
    with pytest.raises(InputError, match=message):
        act(proposer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "tpee"}, "unknown Optuna sampler 'tpee'; did you mean 'tpe'"),
        ({"sampler": "grid"}, "unknown Optuna sampler 'grid'"),  # which needs its own space
        ({"seed": -1}, "seed of a search"),
        ({"space": Space({}, {"lr": 1.0})}, "nothing to search"),
    ],
)
def test_what_cannot_be_proposed_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Proposer(arguments.pop("space", SPACE), **arguments)


def test_without_optuna_the_install_line_is_said_and_all_else_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for ask in (sampler_names, lambda: Proposer(SPACE)):
        with pytest.raises(UnsupportedError, match=r'pip install "steepest\[optuna\]"'):
            ask()
    assert len(propose(SPACE, method="sobol", trials=4, seed=0)) == 4


def test_a_sampler_that_lacks_its_package_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)  # importing it now fails

    def begin() -> None:
        search(Proposer(Space({"lr": Range(1e-4, 1), "eps": Range(1e-9, 1)}), sampler="cmaes"))

    with pytest.raises(UnsupportedError, match="sampler cmaes needs a package"):
        begin()


@pytest.mark.slow
def test_trials_that_follow_scores_do_not_make_noise_matter(monkeypatch):
    # permuting residuals supposes trials that do not depend on each other; TPE's do
    monkeypatch.setattr(importance, "REPEATS", 399)
    space = Space({"lr": Range(1e-5, 1e-1), "eps": Range(1e-9, 1e-3), "d": Range(1, 3)})
    rng = np.random.default_rng(0)
    false = 0
    for seed in range(100):
        proposer = Proposer(space, seed=seed)
        points, scores = [], []
        while len(scores) < 32:
            for setting in proposer.ask(4):
                points.append(space.position(setting))
                scores.append(float(rng.normal()))
                proposer.tell(len(scores) - 1, scores[-1])
        found = importances(
            np.array(points),
            scores,
            names=list(space.dimensions),
            levels=[None, None, None],
            higher_is_better=False,
        )
        false += bool(found.clear)
    assert false <= 5 + 3 * math.sqrt(100 * 0.05 * 0.95)  # the nominal 5 %, three standard errors
