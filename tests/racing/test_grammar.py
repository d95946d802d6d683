from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steepest.errors import InputError
from steepest.racing.arm import parse
from steepest.racing.grammar import ArmText, read
from steepest.values import Choice, Range, write_value

READ = {
    "adam()": ("adam", {}, None),
    "adam": ("adam", None, None),
    " adam ( ) ": ("adam", {}, None),
    "adam(lr=1e-3)": ("adam", {"lr": 1e-3}, None),
    "adam(lr=1e+3)": ("adam", {"lr": 1e3}, None),
    "sgd(lr=.1, momentum=0.9, nesterov=true,)": (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        None,
    ),
    "sgd(lr=1)": ("sgd", {"lr": 1}, None),
    "sgd(lr=-1)": ("sgd", {"lr": -1}, None),
    "sgd(lr=abc)": ("sgd", {"lr": "abc"}, None),
    "adam(decay=decoupled, amsgrad=False)": (
        "adam",
        {"decay": "decoupled", "amsgrad": False},
        None,
    ),
    "adam() + cosine(warmup=0.05)": ("adam", {}, "cosine(warmup=0.05)"),
    "adam()+linear": ("adam", {}, "linear"),
    "a.b:C(betas=(0.9, 0.99))": ("a.b:C", {"betas": (0.9, 0.99)}, None),
    "my opt.py:Lion(lr=1e-4)": ("my opt.py:Lion", {"lr": 1e-4}, None),
    "../x/opt.py:Lion()": ("../x/opt.py:Lion", {}, None),
    "a:C(name='x, y', n=None, t=(1,), e=())": (
        "a:C",
        {"name": "x, y", "n": None, "t": (1,), "e": ()},
        None,
    ),
    "adam(lr=1e-4..1e-1)": ("adam", {"lr": Range(1e-4, 0.1)}, None),
    "adam(lr=1..2)": ("adam", {"lr": Range(1.0, 2.0)}, None),
    "adam(lr=.1...5)": ("adam", {"lr": Range(0.1, 0.5)}, None),
    "adam(lr=linear(0.1 .. 1), beta1=log(.1...5))": (
        "adam",
        {"lr": Range(0.1, 1.0, "linear"), "beta1": Range(0.1, 0.5, "log")},
        None,
    ),
    "a:C(betas=(0.8..0.99, 0.999))": ("a:C", {"betas": (Range(0.8, 0.99), 0.999)}, None),
    "a:C(name=log)": ("a:C", {"name": "log"}, None),
    "adam(lr={1e-3, 1e-2})": ("adam", {"lr": Choice((1e-3, 1e-2))}, None),
    "sgd(nesterov={true,false})": ("sgd", {"nesterov": Choice((True, False))}, None),
}


@pytest.mark.parametrize("text", READ)
def test_texts_mean_what_the_grammar_says(text: str) -> None:
    assert read(text) == ArmText(*READ[text])


UNREADABLE = {
    "": "expected the name of a rule",
    "(lr=1)": "expected the name of a rule",
    "adam(lr=1e-3": "expected ',' or ')' at its end",
    "adam(1e-3)": "expected name=value before '1e-3)'",
    "adam(lr)": "expected name=value before 'lr)'",
    "adam(lr=)": "expected a value before ')'",
    "adam(lr=1 momentum=2)": "expected ',' or ')' before 'momentum=2)'",
    "adam(lr=1, lr=2)": "'lr' is given twice",
    "adam(lr=1) cosine": "expected '(', '+' or the end before 'cosine'",
    "adam() +": "expected a schedule after '+'",
    "adam(lr=1..x)": "expected a number after '..'",
    "adam(lr={})": "a choice needs at least one value",
    "adam(lr={1, 1})": "has 1 twice",
    "adam(lr=1...5)": "the range 1.0..0.5 is empty; write the smaller end first",
    "adam(lr=1..1)": "is a single value; write 1.0",
    "adam(lr=1..inf)": "both ends must be finite",
    "adam(lr=log(0..1))": "which begins above 0",
    "adam(lr=log(1))": "expected a range, such as log(0.1..0.9)",
    "adam(lr=log(1..2)": "expected ',' or ')' at its end",
    "adam(lr=log(1..2 3))": "expected ')' before '3))'",
    "adam(lr=3x)": "expected a value before '3x)'",
    "adam(lr=__import__('os'))": "expected ',' or ')'",
    "adam)": "expected '(', '+' or the end",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_text_that_makes_no_sense_is_refused_at_the_place(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert UNREADABLE[text] in str(caught.value)
    assert text in str(caught.value)


plain = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[A-Za-z_][\w.-]{0,8}", fullmatch=True).filter(
        lambda s: s.isascii() and s.lower() not in ("true", "false", "none", "inf")
    ),
)


@given(st.one_of(plain, st.tuples(plain, plain), st.tuples(plain)))
def test_a_written_value_reads_back_as_the_same_bits(value: object) -> None:
    assert read(f"a({'x'}={write_value(value)})").arguments == {"x": value}


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("cautious(adamw)(lr=0.1)", "cautious(adamw)"),
        ("clip_norm(cautious(adamw)) (max_norm=0.5) + cosine()", "clip_norm(cautious(adamw))"),
        ("cautious(adamw)", "cautious(adamw)"),
        ("clip_norm(cautious(adamw)) + cosine()", "clip_norm(cautious(adamw))"),
    ],
)
def test_rule_with_modifiers_is_a_head(text, head):
    assert read(text).head == head


def test_arm_with_modifiers_makes_that_optimizer_and_is_read_again_from_its_text():
    arm = parse("clip_norm(cautious(adamw))(lr=0.1, max_norm=0.5)")
    optimizer = arm.factory()([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.rule.name == "clip_norm(cautious(adamw))"
    assert optimizer.param_groups[0]["max_norm"] == 0.5
    assert parse(arm.text) == arm


def test_a_bare_rule_with_a_modifier_is_tuned_over_the_preset_of_the_rule():
    arm, plain = parse("cautious(adamw)"), parse("adamw")
    assert arm.space is not None
    assert plain.space is not None
    assert arm.space.dimensions == plain.space.dimensions
    assert arm.schedule == plain.schedule
    assert parse(arm.text) == arm
