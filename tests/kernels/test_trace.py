"""What a rule is split into, before any kernel is generated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from steepest import rules
from steepest.errors import InputError
from steepest.kernels.scalars import scalar_function
from steepest.kernels.symbols import SCALAR, Node, ordered
from steepest.kernels.trace import specialise, trace
from steepest.rules._ops import (
    centred,
    column_mean,
    maximum,
    row_mean,
    sign,
    sqrt,
    total,
    where,
)

ELEMENTWISE = [name for name in rules.names() if rules.get(name).kind == "elementwise"]


def program_of(name, **values):
    rule = rules.get(name)
    return trace(rule, specialise(rule, values))


def evaluate(node: Node, inputs):
    """A node's value in float64, straight from its definition."""
    if node.op == "const":
        return node.value
    if node.op in ("element", "scalar"):
        return inputs[node.name]
    return SCALAR[node.op](*(evaluate(a, inputs) for a in node.args))


def element_operations(program):
    return [n.op for n in ordered(program.element_roots) if n.per_element and n.args]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_traced_rule_computes_what_the_formula_computes_on_floats(name):
    rule = rules.get(name)
    values = {**rule.hyperparameters, "lr": 0.3}
    if "weight_decay" in values:
        values["weight_decay"] = 0.2
    if "momentum" in values:
        values["momentum"] = 0.6
    program = program_of(name, **values)
    slots = {s: 0.1 + 0.05 * i for i, s in enumerate(rule.slots) if s in program.fixed.slots}
    for t, g in ((1, -0.7), (2, 0.4), (7, 0.01)):
        inputs = {**values, **slots, "p": 1.3, "g": g, "t": float(t)}
        step, *new = rule(1.3, g, *(slots.get(s) for s in rule.slots), float(t), **values)
        assert evaluate(program.step, inputs) == pytest.approx(step, rel=1e-13)
        for slot, value in zip(rule.slots, new, strict=True):
            if slot in program.new_slots:
                assert evaluate(program.new_slots[slot], inputs) == pytest.approx(value, rel=1e-13)
            elif slot in slots:
                assert value == slots[slot]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nothing_that_depends_on_the_step_alone_is_left_to_the_elements(name):
    assert not {"pow", "exp", "log"} & set(element_operations(program_of(name, momentum=0.9)))


def test_adam_costs_an_element_one_root_and_one_division():
    operations = element_operations(program_of("adam"))
    assert operations.count("sqrt") == 1
    assert operations.count("div") == 1


def test_equal_expressions_are_computed_once():
    program = program_of("adadelta")
    assert element_operations(program).count("sqrt") == 2


def test_slots_that_are_one_number_per_tensor_are_computed_outside_of_the_elements():
    program = program_of("nadam")
    assert program.tensor_slots == ("mu_product",)
    assert program.element_slots == ("exp_avg", "exp_avg_sq")
    assert not program.new_slots["mu_product"].per_element


def test_a_zero_decay_leaves_no_trace_and_another_value_needs_no_other_kernel():
    rule = rules.get("adamw")
    without = specialise(rule, {"weight_decay": 0.0})
    assert without.zeros == ("weight_decay",)
    names = {n.name for n in ordered(trace(rule, without).element_roots)}
    assert "p" not in names
    with_decay = specialise(rule, {"weight_decay": 0.1})
    assert with_decay == specialise(rule, {"weight_decay": 0.2, "lr": 5.0})
    assert "p" in {n.name for n in ordered(trace(rule, with_decay).element_roots)}


def test_what_another_group_uses_stays_in_the_kernel():
    assert specialise(rules.get("adamw"), {"weight_decay": 0.0}, keep=["weight_decay"]).zeros == ()


def test_inactive_slots_are_not_there():
    assert program_of("sgd").element_slots == ()
    assert program_of("sgd", momentum=0.9).element_slots == ("momentum_buffer",)


def test_the_scalar_program_follows_ieee_754_where_python_raises():
    program = program_of("radam", beta2=0.6)  # rho_inf = 4: the rectification divides by zero
    values = {**rules.get("radam").hyperparameters, "beta2": 0.6}
    for t in (1.0, 2.0, 400.0):
        row = scalar_function(program)(t, values, ())
        expected = [evaluate(root, {**values, "t": t}) for root in program.scalar_roots]
        assert row == pytest.approx(expected, rel=1e-15, nan_ok=True)
    assert SCALAR["div"](1.0, 0.0) == math.inf
    assert SCALAR["div"](-1.0, 0.0) == -math.inf
    assert math.isnan(SCALAR["div"](0.0, 0.0))
    assert math.isnan(SCALAR["maximum"](1.0, math.nan))
    assert math.isnan(SCALAR["sqrt"](-1.0))
    assert SCALAR["exp"](1e9) == math.inf
    assert SCALAR["log"](0.0) == -math.inf
    assert SCALAR["pow"](0.0, -1.0) == math.inf


def traced(formula, per="element"):
    made = replace(
        rules.get("signum"),
        name="made_up",
        formula=formula,
        slots={"s": rules.Slot(per=per)},
        hyperparameters={"lr": 1.0},
        options={},
    )
    return trace(made, specialise(made, {}))


def test_a_shape_is_nothing_that_a_kernel_can_ask_for():
    def asks(p, g, s, t, *, lr):
        return -lr * g / p.shape[0], s

    with pytest.raises(InputError, match="shape"):
        traced(asks)


def test_numbers_of_rows_go_into_no_sum_over_the_tensor_and_into_no_other_slot():
    def sums_rows(p, g, s, t, *, lr):
        return -lr * total(row_mean(g)) * g, s

    with pytest.raises(InputError, match="not over every row"):
        traced(sums_rows)

    def keeps_columns(p, g, s, t, *, lr):
        return -lr * g, column_mean(g)

    with pytest.raises(InputError, match="one number per row, but its new value is one per column"):
        traced(keeps_columns, per="row")


def test_rows_are_of_one_kind():
    def mixes(p, g, s, t, *, lr):
        return -lr * centred(g) * row_mean(g), s

    with pytest.raises(InputError, match="of two kinds"):
        traced(mixes)


def test_a_rule_that_asks_if_about_a_value_is_told_what_to_do():
    def branching(p, g, s, t, *, lr):
        return (-lr * g if g > 0 else g), s

    with pytest.raises(InputError, match="use where"):
        traced(branching)


def test_a_rule_that_brings_a_tensor_of_its_own_is_told_what_may_be_used():
    def foreign(p, g, s, t, *, lr):
        return g * "x", s

    with pytest.raises(InputError, match="may use its arguments, numbers"):
        traced(foreign)


def test_every_function_of_a_rule_works_on_symbols():
    def all_of_them(p, g, s, t, *, lr):
        direction = where(g > s, sqrt(maximum(g, 0.5)), sign(-s) ** 2) + abs(1 - g) / (2 + t)
        return -lr * direction, s

    program = traced(all_of_them)
    inputs = {"p": 0.0, "g": 3.0, "s": -1.0, "t": 1.0, "lr": 2.0}
    assert evaluate(program.step, inputs) == pytest.approx(-2 * (math.sqrt(3) + 2 / 3))
    assert "s" not in program.new_slots


def test_a_number_per_tensor_may_not_depend_on_an_element():
    def wrong(p, g, s, t, *, lr):
        return -lr * g, s + g

    with pytest.raises(InputError, match='declare it per="element"'):
        traced(wrong, per="tensor")
