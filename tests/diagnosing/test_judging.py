"""Every finding is made where it is true by construction, and nothing is said where all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from made_curves import constant, cosine, healthy, made

from steepest.diagnosing import Curves, Series, judge
from steepest.diagnosing.findings import KINDS

Shape = Callable[[np.ndarray], np.ndarray]
GENERATE = (Phase.explicit, Phase.reuse, Phase.generate)  # there is no smaller seed to shrink to


def sag(share: np.ndarray) -> np.ndarray:
    """Flat for a fifth of the run, then down."""
    return 0.1 + 2.2 / (1 + np.exp((share - 0.3) * 40))


def overfitted(share: np.ndarray) -> np.ndarray:
    return 0.5 + 1.8 * np.exp(-share * 20) + 0.6 * np.maximum(0, share - 0.2)


def early(share: np.ndarray) -> np.ndarray:
    """A power law that stops where the rate is lowered, at a tenth."""
    falling = 2.3 - 0.45 * np.log(1 + 1000 * np.minimum(share, 0.1))
    return np.maximum(falling, 0.05)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "blows up to NaN": ("exploding", {"train": lambda s: np.where(s > 0.4, np.nan, 2.3 - s)}),
    "blows up, stays finite": (
        "exploding", {"train": lambda s: np.where(s > 0.02, 40.0, 2.3)},
    ),
    "climbs back late": (
        "exploding", {"train": lambda s: np.where(s > 0.7, 2.0, healthy(s)), "lr": constant},
    ),
    "flat from first to last": ("never_learning", {"train": lambda s: np.full_like(s, 2.3)}),
    "gains a hundredth": ("never_learning", {"train": lambda s: 2.3 - 0.02 * s}),
    "flat, then falling": ("slow_start", {"train": sag, "lr": cosine, "val": sag}),
    "plateau at a constant rate": (
        "plateau", {"train": lambda s: 0.4 + 1.9 * np.exp(-s * 30), "lr": constant},
    ),
    "lowered at a tenth": (
        "decayed_too_early", {"train": early, "val": early,
                              "lr": lambda s: np.where(s < 0.1, 1.0, 0.01)},
    ),
    "a power law at a constant rate": (
        "still_improving",
        {"train": lambda s: 2.3 * (1 + 50 * s) ** -0.6, "val": lambda s: 2.3 * (1 + 50 * s) ** -0.6,
         "lr": constant},
    ),
    "validation loss rises": (
        "overfitting", {"train": lambda s: 2.3 * np.exp(-s * 10), "val": overfitted, "lr": cosine},
    ),
    "no gap at a third of the start": (
        "underfitting",
        {"train": lambda s: 0.8 + 1.5 * np.exp(-s * 20),
         "val": lambda s: 0.81 + 1.5 * np.exp(-s * 20), "lr": cosine},
    ),
    "batches that disagree": (
        "noise", {"train": healthy, "val": healthy, "lr": cosine, "noise": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_finding_is_made_where_it_is_true(case: str) -> None:
    kind, shape = CASES[case]
    for seed in range(10):
        found = judge(made(seed=seed, **shape)).kinds
        assert found == (kind,), seed


@pytest.mark.parametrize("schedule", [cosine, lambda s: 1.0 - s, None])
@pytest.mark.parametrize("gap", [0.0, 0.03])
def test_nothing_is_reported_of_a_healthy_run(schedule: Shape | None, gap: float) -> None:
    for seed in range(20):
        curves = made(healthy, val=lambda s: healthy(s) + gap, lr=schedule, seed=seed)
        assert judge(curves).kinds == (), seed


@settings(max_examples=60, deadline=None, phases=GENERATE)
@given(seed=st.integers(0, 10**6), noise=st.floats(0.0, 0.2), spikes=st.integers(0, 3))
def test_noise_and_single_spikes_make_no_finding(seed: int, noise: float, spikes: int) -> None:
    """Up to a tenth of the descent as deviation of single batches, and some batches far off."""
    rng = np.random.default_rng(seed)
    curves = made(healthy, val=healthy, lr=cosine, noise=noise, seed=seed)
    assert curves.train_loss is not None
    values = curves.train_loss.values.copy()
    values[rng.integers(0, len(values), spikes)] += 5.0
    spiked = Curves(
        name="spiked", train_loss=Series(curves.train_loss.at, values),
        val_loss=curves.val_loss, lr=curves.lr,
    )  # fmt: skip
    assert judge(spiked).kinds == ()


@settings(max_examples=60, deadline=None, phases=GENERATE)
@given(seed=st.integers(0, 10**6), scale=st.integers(-20, 20), stretch=st.integers(-6, 10))
def test_units_of_loss_and_steps_do_not_matter(seed: int, scale: int, stretch: int) -> None:
    """Powers of two, so that no rounding carries a measure over its threshold."""
    _, shape = CASES[list(CASES)[seed % len(CASES)]]
    curves = made(seed=seed, **shape)

    def other(series: Series | None, factor: float) -> Series | None:
        return None if series is None else Series(series.at * 2.0**stretch, series.values * factor)

    moved = Curves(
        name="moved", train_loss=other(curves.train_loss, 2.0**scale),
        val_loss=other(curves.val_loss, 2.0**scale), lr=other(curves.lr, 4.0),
    )  # fmt: skip
    assert judge(moved).kinds == judge(curves).kinds


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=32), min_size=2, max_size=60),
    val=st.lists(st.floats(-10, 10), max_size=6),
    diverged=st.booleans(),
)  # fmt: skip
def test_no_curve_makes_it_fail(values: list[float], val: list[float], diverged: bool) -> None:
    curves = Curves(
        name="any",
        train_loss=Series(range(len(values)), values),
        val_loss=Series(range(len(val)), val) if val else None,
        diverged=diverged,
    )
    found = judge(curves)
    assert set(found.kinds) <= set(KINDS)
    broken = not np.isfinite(values).all() or diverged
    assert not broken or found.kinds == ("exploding",)
    for finding in found.findings:
        assert finding.evidence
        assert "nan" not in finding.evidence.lower().split()
        assert finding.advice


def test_a_warmup_is_not_called_a_bad_initialisation() -> None:
    shape = CASES["flat, then falling"][1]
    warm = made(**{**shape, "lr": lambda s: np.minimum(1.0, s / 0.5)})
    assert "slow_start" not in judge(warm).kinds


def test_the_start_of_the_fall_comes_with_an_interval_that_holds_it() -> None:
    """The sag passes a fifth of its descent at 0.3 - log(4)/40 of the run."""
    truth = 1000 * (0.3 - np.log(4) / 40)
    held = 0
    for seed in range(40):
        (finding,) = judge(made(seed=seed, noise=0.2, **CASES["flat, then falling"][1])).findings
        span = finding.spans[0]
        assert span.high == pytest.approx(truth, abs=40)
        low, high = (
            float(t.strip("().,")) for t in finding.evidence.split("between ")[1].split()[:3:2]
        )
        held += low <= truth <= high
    assert held >= 36


def test_what_cannot_be_looked_for_is_named_with_its_reason() -> None:
    found = judge(made(healthy))
    for kind in ("plateau", "decayed_too_early", "still_improving"):
        assert found.unchecked[kind].startswith("the learning rate is not in the record")
    assert found.unchecked["overfitting"] == "there is no validation loss"
    short = judge(Curves(name="short", train_loss=Series([1, 2, 3], [3.0, 2.0, 1.0])))
    assert short.findings == ()
    assert "the curve has 3 values; 10 are needed" in short.unchecked.values()


def test_a_baseline_makes_epochs_comparable() -> None:
    """After one epoch most is learned: without a baseline, nobody knows where it came from."""
    at = np.arange(1, 31)
    loss = Series(at, 0.8 + 0.02 * np.exp(-at / 3))
    rate = Series(at, np.ones(30))
    known = Curves(name="k", unit="epoch", train_loss=loss, val_loss=loss, lr=rate, baseline=2.303)
    assert judge(known).kinds == ("plateau",)
    assert judge(Curves(name="u", unit="epoch", train_loss=loss)).kinds == ("never_learning",)


def test_a_rising_loss_beside_a_rising_accuracy_is_called_overconfidence() -> None:
    curves = made(lambda s: 2.3 * np.exp(-s * 10), val=overfitted, lr=cosine)
    assert curves.val_loss is not None
    accuracy = Series(curves.val_loss.at, np.linspace(0.7, 0.9, len(curves.val_loss)))
    with_metric = Curves(**{**vars(curves), "metrics": {"val_accuracy": accuracy}})
    (finding,) = judge(with_metric).findings
    assert "overconfident" in finding.advice


def test_spans_lie_inside_the_run() -> None:
    for kind, shape in CASES.values():
        curves = made(**shape)
        for finding in judge(curves).findings:
            assert finding.kind == kind
            assert finding.spans
            for span in finding.spans:
                assert 0 <= span.low <= span.high <= curves.end
