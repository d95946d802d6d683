"""Every way of writing into an optimizer's state is noticed."""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict

import pytest

from steepest.optim._state import State

OUTER = {
    "set": lambda s: s.__setitem__("q", {}),
    "missing": lambda s: s["q"],
    "delete": lambda s: s.__delitem__("p"),
    "clear": lambda s: s.clear(),
    "pop": lambda s: s.pop("p"),
    "popitem": lambda s: s.popitem(),
    "update": lambda s: s.update({"p": {}}),
    "setdefault": lambda s: s.setdefault("q", {}),
    "or": lambda s: s.__ior__({"q": {}}),
}
INNER = {
    "set": lambda d: d.__setitem__("m", 2),
    "delete": lambda d: d.__delitem__("m"),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("m"),
    "popitem": lambda d: d.popitem(),
    "update": lambda d: d.update(m=2),
    "setdefault": lambda d: d.setdefault("n", 1),
    "or": lambda d: d.__ior__({"n": 1}),
}


@pytest.mark.parametrize("write", OUTER)
def test_write_into_the_state_is_counted_and_done(write):
    state, plain = State({"p": {"m": 1}}), defaultdict(dict, {"p": {"m": 1}})
    before = state.writes.count
    OUTER[write](state)
    OUTER[write](plain)
    assert state.writes.count > before
    assert state == plain


@pytest.mark.parametrize("write", INNER)
def test_write_into_the_state_of_a_parameter_is_counted_and_done(write):
    state, plain = State({"p": {"m": 1}}), {"m": 1}
    before = state.writes.count
    INNER[write](state["p"])
    INNER[write](plain)
    assert state.writes.count > before
    assert state["p"] == plain


def test_reading_is_not_counted():
    state = State({"p": {"m": 1}})
    before = state.writes.count
    assert (state["p"]["m"], state.get("q"), "p" in state, list(state.items())) is not None
    assert state.writes.count == before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_ordinary_dicts(copied):
    other = copied(State({"p": {"m": [1]}}))
    assert type(other) is defaultdict
    assert type(other["p"]) is dict
    assert other == {"p": {"m": [1]}}
