"""The measuring code measures what it says."""

from __future__ import annotations

import pytest

from steepest.errors import InputError
from steepest.optim.bench import LAYOUTS, Layout, bandwidth, measure_steps

SMALL = Layout("small", ((300,), (20, 10)))


def test_layouts_are_the_models_that_they_are_named_after():
    assert {name: len(layout.shapes) for name, layout in LAYOUTS.items()} == {
        "one tensor of 32M": 1,
        "GPT-2 small": 148,
        "ConvNet": 8,
        "2000 tensors of 300": 2000,
    }
    assert LAYOUTS["GPT-2 small"].elements == 124_439_808  # as Hugging Face counts them
    assert LAYOUTS["one tensor of 32M"].ideal_bytes(2) == 32_000_000 * 28


def test_a_measurement_has_every_way_and_is_consistent():
    timings = measure_steps("adam", SMALL, repeats=3)
    ways = {timing.way: timing for timing in timings}
    assert list(ways) == ["kernel", "eager", "torch for-loop", "torch foreach", "torch fused"]
    assert ways["kernel"].ratio == 1.0
    for timing in timings:
        assert 0 < timing.fastest <= timing.milliseconds
        moved = timing.gigabytes_per_second * timing.milliseconds / 1e3
        assert moved == pytest.approx(500 * 28 / 1e9)


def test_only_some_ways_always_beside_the_kernel():
    timings = measure_steps("lion", SMALL, repeats=2, ways=["eager"])
    assert [timing.way for timing in timings] == ["kernel", "eager"]
    timings = measure_steps("lion", SMALL, repeats=2, ways=["torch fused"])  # torch has no Lion
    assert [timing.way for timing in timings] == ["kernel"]
    with pytest.raises(InputError, match=r"unknown way to do a step 'fused'.*'torch fused'"):
        measure_steps("lion", SMALL, ways=["fused"])


def test_bandwidth_is_that_of_a_machine():
    measured = bandwidth(elements=100_000, repeats=3)
    assert 0.1 < measured.copy < 10_000
    assert 0.1 < measured.triad < 10_000
