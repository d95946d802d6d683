"""Splits: every class its share, equal contents together, the same for whoever asks."""

import random
from collections import Counter

import pytest

from steepest.errors import DataError, InputError
from steepest.tasks.splitting import split

KEYS = [f"text {i}" for i in range(1000)]
LABELS = [0] * 700 + [1] * 300
MORE = {"names": ("zero", "one"), "val": 0.1, "test": 0.2, "seed": 0}


def test_every_class_has_its_share_in_every_part():
    parts = split(KEYS, LABELS, **MORE)
    assert sorted(parts.train + parts.val + parts.test) == list(range(1000))
    for part, zero, one in ((parts.train, 490, 210), (parts.val, 70, 30), (parts.test, 140, 60)):
        assert Counter(LABELS[i] for i in part) == {0: zero, 1: one}


def test_equal_contents_are_never_apart_and_are_counted():
    keys = [f"text {i % 400}" for i in range(1000)]
    labels = [i % 400 % 2 for i in range(1000)]
    labels[400] = 1  # text 0 is of class 0 elsewhere
    parts = split(keys, labels, **MORE)
    held = [{keys[i] for i in part} for part in (parts.train, parts.val, parts.test)]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    assert (parts.repeated, parts.contradicting) == (600, 1)
    assert abs(len(parts.test) - 200) <= 6


def test_who_is_tested_depends_on_contents_and_seed_and_not_on_the_order_of_rows():
    order = random.Random(1).sample(range(1000), 1000)
    again = split([KEYS[i] for i in order], [LABELS[i] for i in order], **MORE)
    first = split(KEYS, LABELS, **MORE)
    assert {order[i] for i in again.test} == set(first.test)
    other = split(KEYS, LABELS, **{**MORE, "seed": 1})
    assert set(other.test) != set(first.test)


def test_a_small_class_is_in_every_part():
    parts = split(KEYS[:103], [0] * 100 + [1] * 3, **MORE)
    for part in (parts.train, parts.val, parts.test):
        assert sum(i >= 100 for i in part) == 1


def test_a_class_of_one_content_is_refused():
    with pytest.raises(DataError, match=r"class 'one' has 1 different examples; a class needs 3"):
        split([*KEYS[:100], "x", "x", "x"], [0] * 100 + [1] * 3, **MORE)


@pytest.mark.parametrize(("val", "test"), [(0, 0.2), (0.1, 1.0), (-1, 0.2), (0.5, 0.5)])
def test_shares_must_leave_something_to_train_on(val, test):
    with pytest.raises(InputError, match=r"must be a share|leave too little"):
        split(KEYS, LABELS, names=("zero", "one"), val=val, test=test, seed=0)
