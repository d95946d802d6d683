"""Every schedule at every step: against its formula, torch's schedulers and Hugging Face's."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

from steepest import schedules
from steepest.errors import InputError
from steepest.schedules import Schedule, parse

T = 97  # a prime: no fraction of the run is a whole number of steps by luck

ONE_OF_EACH = [
    "constant(warmup=0.1)",
    "step(every=20, gamma=0.5, warmup=5)",
    "step(milestones=[0.3, 0.6])",
    "step(milestones=[30, 60], gamma=0.2, warmup=3)",
    "linear(final=0.1, warmup=0.1)",
    "cosine(warmup=0.05)",
    "inverse_sqrt(warmup=10)",
    "inverse_sqrt(timescale=7)",
    "exponential(final=0.02, warmup=7)",
    "exponential(gamma=0.95)",
    "polynomial(power=2.0, final=0.05, warmup=0.2)",
    "one_cycle(pct_start=0.4)",
    "one_cycle(anneal=linear, warmup=4)",
    "cyclic(period=11, low=0.2, warmup=2)",
    "cyclic(period=0.2, rise=0.3, mode=triangular2)",
    "cosine_restarts(period=12, mult=2.0, final=0.1)",
    "cosine_restarts(period=0.2, warmup=0.1)",
    "wsd(decay=0.3, shape=sqrt, warmup=0.05)",
    "wsd(decay=20, shape=cosine)",
]


def curve(text, total=T):
    schedule = parse(text)
    return [schedule(s, total) for s in range(total)]


def torch_curve(make, total=T, lr=1.0):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"] / lr)
        optimizer.step()
        scheduler.step()
    return rates


def same(ours, theirs):
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


# --- the formulas, written out once more -------------------------------------------------------


def test_constant_is_one_after_its_warmup():
    same(curve("constant(warmup=10)"), [min(s / 10, 1) for s in range(T)])


def test_linear_is_hugging_faces():
    W = math.ceil(0.1 * T)
    expected = [s / W if s < W else (T - s) / (T - W) for s in range(T)]
    same(curve("linear(warmup=0.1)"), expected)


def test_cosine_is_hugging_faces():
    W = 8
    expected = [
        s / W if s < W else max(0.0, 0.5 * (1 + math.cos(math.pi * 0.5 * 2 * (s - W) / (T - W))))
        for s in range(T)
    ]
    same(curve("cosine(warmup=8)"), expected)


@pytest.mark.parametrize("cycles", [1, 3, 4])
def test_cosine_with_hard_restarts_is_hugging_faces(cycles):
    W = 5
    expected = [
        s / W if s < W else 0.5 * (1 + math.cos(math.pi * ((cycles * (s - W) / (T - W)) % 1.0)))
        for s in range(T)
    ]
    same(curve(f"cosine_restarts(period={1 / cycles}, warmup=5)"), expected)


def test_inverse_sqrt_is_hugging_faces_and_vaswanis():
    W = 12
    expected = [s / W if s < W else 1 / math.sqrt((s + W - W) / W) for s in range(T)]
    same(curve("inverse_sqrt(warmup=12)"), expected)
    # Vaswani et al., eq. 3, scaled to 1 at its top; there the first step is step 1
    attention = [min(s**-0.5, s * W**-1.5) * W**0.5 for s in range(1, T)]
    same(curve("inverse_sqrt(warmup=12)")[1:], attention)
    plain = [1 / math.sqrt((s + 10_000) / 10_000) for s in range(T)]
    same(curve("inverse_sqrt()"), plain)


def test_polynomial_is_hugging_faces():
    W, power, end = 6, 1.7, 0.1
    expected = [
        s / W if s < W else (1 - end) * (1 - (s - W) / (T - W)) ** power + end for s in range(T)
    ]
    same(curve("polynomial(power=1.7, final=0.1, warmup=6)"), expected)


def test_exponential_by_its_end_or_by_its_factor():
    same(curve("exponential(final=0.03)"), [0.03 ** (s / T) for s in range(T)])
    same(curve("exponential(gamma=0.9, warmup=5)")[5:], [0.9**u for u in range(T - 5)])
    assert parse("exponential(final=0.03)")(T, T) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("shape", "h"),
    [
        ("linear", lambda x: 1 - x),
        ("cosine", lambda x: 0.5 * (1 + math.cos(math.pi * x))),
        ("sqrt", lambda x: 1 - math.sqrt(x)),
    ],
)
def test_warmup_stable_decay(shape, h):
    W, D = 10, 30
    expected = [
        s / W if s < W else 1.0 if s <= T - D else 0.2 + 0.8 * h((s - T + D) / D) for s in range(T)
    ]
    same(curve(f"wsd(decay=30, final=0.2, shape={shape}, warmup=10)"), expected)


def test_step_counts_milestones_from_the_start_of_the_run():
    expected = [0.1 ** sum(m <= s for m in (30, 60)) for s in range(100)]
    same(curve("step(milestones=[60, 30])", 100), expected)
    same(curve("step(milestones=[0.3, 0.6])", 100), expected)
    with_warmup = curve("step(milestones=[30, 60], warmup=10)", 100)
    same(with_warmup[10:], expected[10:])


# --- torch's schedulers ------------------------------------------------------------------------


def test_step_is_torchs():
    same(curve("step(every=20, gamma=0.3)"), torch_curve(lambda o: torch_lr.StepLR(o, 20, 0.3)))
    milestones = torch_curve(lambda o: torch_lr.MultiStepLR(o, [31, 62], 0.5))
    same(curve("step(milestones=[31, 62], gamma=0.5)"), milestones)


def test_linear_and_polynomial_are_torchs():
    theirs = torch_curve(lambda o: torch_lr.LinearLR(o, 1.0, 0.25, total_iters=T))
    same(curve("linear(final=0.25)"), theirs)
    theirs = torch_curve(lambda o: torch_lr.PolynomialLR(o, total_iters=T, power=2.5))
    same(curve("polynomial(power=2.5)"), theirs)


def test_cosine_is_torchs():
    theirs = torch_curve(lambda o: torch_lr.CosineAnnealingLR(o, T, eta_min=0.1))
    same(curve("cosine(final=0.1)"), theirs)


def test_exponential_is_torchs():
    same(curve("exponential(gamma=0.97)"), torch_curve(lambda o: torch_lr.ExponentialLR(o, 0.97)))


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.77])
def test_one_cycle_is_torchs(anneal, pct_start):
    def make(optimizer):
        return torch_lr.OneCycleLR(
            optimizer,
            1.0,
            total_steps=T,
            pct_start=pct_start,
            anneal_strategy=anneal,
            cycle_momentum=False,
        )

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, theirs = make(optimizer), []
    for s in range(T):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if s < T - 1:
            scheduler.step()
    same(curve(f"one_cycle(pct_start={pct_start}, anneal={anneal})"), theirs)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_is_torchs(mode):
    theirs = torch_curve(
        lambda o: torch_lr.CyclicLR(
            o,
            0.2,
            1.0,
            step_size_up=6,
            step_size_down=9,
            mode=mode,
            gamma=0.99,
            cycle_momentum=False,
        )
    )
    same(curve(f"cyclic(period=15, low=0.2, rise=0.4, mode={mode}, gamma=0.99)"), theirs)


@pytest.mark.parametrize("mult", [1, 2, 3])
def test_cosine_restarts_are_torchs(mult):
    theirs = torch_curve(
        lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 10, T_mult=mult, eta_min=0.05)
    )
    same(curve(f"cosine_restarts(period=10, mult={mult}, final=0.05)"), theirs)


# --- what holds for all ------------------------------------------------------------------------


def test_the_list_above_has_every_schedule():
    assert {parse(text).name for text in ONE_OF_EACH} == set(schedules.names())
    assert set(schedules.names()) <= set(schedules.__all__)


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_text_and_schedule_are_the_same_thing(text):
    schedule = parse(text)
    assert parse(schedule.spec()) == schedule
    assert schedule.spec() == text
    assert hash(parse(text)) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule == copy.deepcopy(schedule)
    with pytest.raises(AttributeError):
        schedule.name = "other"


@pytest.mark.parametrize("text", ONE_OF_EACH)
@pytest.mark.parametrize("total", [20, 97, 1000])
def test_multipliers_lie_between_zero_and_one_and_last_beyond_the_end(text, total):
    if total == 20 and "[30" in text:
        pytest.skip("its milestones lie past the end of so short a run")
    values = [parse(text)(s, total) for s in range(total + 1)]
    assert all(0 <= v <= 1 + 1e-12 for v in values)
    assert parse(text)(total + 5, total) == values[-1]


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_warmup_is_a_straight_line_from_zero(text):
    schedule = parse(text)
    W = dict(schedule.arguments)["warmup"]
    W = W if isinstance(W, int) else math.ceil(W * T)
    top = schedule(W, T)
    same([schedule(s, T) for s in range(W)], [top * s / W for s in range(W)])


def test_one_step_and_the_whole_run_are_not_confused():
    assert parse("cosine_restarts(period=1)")(1, 10) == 1.0
    assert parse("cosine_restarts(period=1.0)")(5, 10) == pytest.approx(0.5)
    assert parse("cosine_restarts(period=1)") != parse("cosine_restarts(period=1.0)")


@given(st.integers(1, 60), st.integers(1, 12))
def test_fractions_of_cycles_start_again_exactly(per_cycle, cycles):
    total = per_cycle * cycles
    schedule = schedules.cosine_restarts(period=1 / cycles)
    expected = [0.5 * (1 + math.cos(math.pi * (s % per_cycle) / per_cycle)) for s in range(total)]
    assert [schedule(s, total) for s in range(total)] == pytest.approx(expected, abs=1e-9)


def test_bare_names_spaces_and_quotes_are_read():
    assert parse(" cosine ") == parse("cosine()") == schedules.cosine()
    assert parse("wsd(shape='sqrt', decay = 0.1)") == parse("wsd(decay=.1,shape=sqrt)")
    assert parse("step(milestones=(0.7, 0.2))").spec() == "step(milestones=[0.2, 0.7])"
    assert isinstance(parse("linear"), Schedule)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin(warmup=0.1)", "did you mean 'cosine'"),
        ("cosine(warmpu=0.1)", "did you mean 'warmup'"),
        ("cosine(warmup=-0.1)", "warmup must be"),
        ("cosine(warmup=-5)", "warmup must be"),
        ("cosine(warmup=1.5)", "warmup must be"),
        ("cosine(warmup=500.0)", "whole number of steps"),
        ("cosine(warmup=True)", "warmup must be"),
        ("cosine(warmup=fast)", "warmup must be"),
        ("cosine(final=2)", "between 0 and 1"),
        ("cosine(0.1)", "cannot read"),
        ("cosine(**x)", "cannot read"),
        ("cosine(final=1+x)", "cannot read"),
        ("cosine(warmup=0.1", "cannot read"),
        ("", "cannot read"),
        ("a.b()", "cannot read"),
        ("step(every=10, milestones=[20])", "not both"),
        ("step(milestones=20)", "must be a list"),
        ("step(milestones=[])", "must be a list"),
        ("step(milestones=[-1])", "milestones must be"),
        ("step(gamma=0)", "gamma must be"),
        ("exponential(final=0)", "final must be > 0"),
        ("exponential(final=0.1, gamma=0.9)", "not both"),
        ("polynomial(power=-1)", "power must be"),
        ("cyclic(mode=triangle)", "did you mean 'triangular'"),
        ("wsd(shape=cosin)", "did you mean 'cosine'"),
        ("cosine_restarts(mult=0.5)", "mult must be"),
        ("cosine_restarts(period=0)", "period must be"),
        ("inverse_sqrt(timescale=0.5)", "timescale must be"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_written(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "total", "message"),
    [
        ("cosine_restarts(period=200)", 100, "longer than"),
        ("cosine_restarts(period=95, warmup=10)", 100, "longer than"),
        ("cyclic(period=101)", 100, "longer than"),
        ("cyclic(period=0.001)", 100, "less than one"),
        ("step(milestones=[50, 150])", 100, "longer than"),
        ("cosine(warmup=100)", 100, "leaves nothing"),
        ("wsd(decay=0.9, warmup=0.2)", 100, "does not fit"),
        ("one_cycle()", 2, "train longer"),
        ("cosine()", 0, "at least one step"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_it_starts(text, total, message):
    with pytest.raises(InputError, match=message):
        parse(text).check(total)
    with pytest.raises(InputError, match=message):
        parse(text)(0, total)


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match="counted from 0"):
        schedules.linear()(-1, 10)
