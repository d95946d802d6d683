"""Many tensors at once: matrices in a stack, and members of a population under vmap."""

import numpy as np
import pytest
import torch

from steepest import rules


@pytest.mark.parametrize("name", ["muon", "shampoo", "soap"])
def test_a_stack_of_matrices_goes_the_way_of_each_matrix(name):
    rule = rules.get(name)
    values = {**rule.hyperparameters, **rule.options}
    rng = np.random.default_rng(0)
    count, shape = 3, (5, 5)
    p = rng.normal(size=(count, *shape))
    active = rule.active_slots({}, ndim=2)
    stacked = {n: np.zeros((count, *s.shape(shape))) for n, s in rule.slots.items() if n in active}
    alone = [{n: x[i] for n, x in stacked.items()} for i in range(count)]
    each = list(p)
    for t in range(1, 13):
        g = rng.normal(size=p.shape)
        step, *new = rule.formula(p, g, *(stacked.get(n) for n in rule.slots), t, **values)
        p = p + step
        stacked = {n: x for n, x in zip(rule.slots, new, strict=True) if x is not None}
        for i in range(count):
            step, *new = rule(each[i], g[i], *(alone[i].get(n) for n in rule.slots), t)
            each[i] = each[i] + step
            alone[i] = dict(zip(rule.slots, new, strict=True))
    np.testing.assert_allclose(p, each, rtol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["lamb", "lars", "adafactor", "prodigy", "muon", "soap", "shampoo"]
    + [f"{modifier}(adamw)" for modifier in rules.MODIFIERS],
)
def test_members_under_vmap_are_runs_of_their_own(name):
    rule = rules.get(name)
    rng = np.random.default_rng(1)
    p, g = (torch.tensor(x) for x in rng.normal(size=(2, 4, 6, 6)))
    active = rule.active_slots({}, ndim=2)
    known = {**rule.hyperparameters}

    def first(p):
        slots = {}
        for slot_name in active:
            slot = rule.slots[slot_name]
            init = known.get(slot.init, slot.init)
            start = p if init == "p" else torch.full(slot.shape((6, 6)), float(init)).double()
            slots[slot_name] = start
        return slots

    def two_steps(p, g, lr):
        slots = first(p)
        for t in (1, 2):
            arguments = (p, g, *(slots.get(n) for n in rule.slots), t)
            totals = {}
            if rule.has_totals:
                totals = {"totals": rule.partial_sums(*arguments, lr=lr)}
            step, *new = rule(*arguments, lr=lr, **totals)
            p = p + step
            slots = dict(zip(rule.slots, new, strict=True))
        return p

    lr = torch.tensor([0.1, 0.01, 1.0, 0.3], dtype=torch.float64)
    together = torch.func.vmap(two_steps)(p, g, lr)
    # SOAP's first real step divides by what it has just measured: it is a sign in a basis whose
    # last digits depend on how many matrices are factorised at once
    close = {"rtol": 1e-6, "atol": 1e-7} if name == "soap" else {"rtol": 1e-9, "atol": 1e-12}
    for i in range(4):
        torch.testing.assert_close(together[i], two_steps(p[i], g[i], lr[i]), **close)
