"""``steepest bench step``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from steepest.optim import bench

SMALL = bench.Layout("small", ((300,), (20, 10)))
FAST = ("--layout", "small", "--rounds", "2", "--threads", "1")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(bench.LAYOUTS, "small", SMALL)
    measured = bench.bandwidth
    monkeypatch.setattr(bench, "bandwidth", lambda **kw: measured(elements=100_000, **kw))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_way_stands_beside_the_machines_own_bandwidth(steepest: Any) -> None:
    ended = steepest("bench", "step", "adam", "lamb", *FAST)
    assert ended.code == 0, ended.err
    assert "memory: copy" in ended.out
    assert "small: 2 tensors, 500 elements" in ended.out
    for way in ("kernel", "eager", "torch for-loop", "torch foreach", "torch fused"):
        assert way in ended.out


def test_json_has_the_machine_and_all_timings(steepest: Any) -> None:
    ended = steepest("bench", "step", "lion", *FAST, "--way", "eager", "--json")
    body = json.loads(ended.out)
    assert [row["way"] for row in body["timings"]] == ["kernel", "eager"]
    assert body["timings"][0]["ratio"] == 1.0
    assert body["machine"]["threads"] == 1
    assert body["machine"]["bandwidth"]["triad"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("adm", "--layout", "ConvNet"), "did you mean 'adam'"),
        (("adam", "--layout", "convnet"), "did you mean 'ConvNet'"),
        (("adam", "--layout", "small", "--way", "fused"), "unknown way"),
    ],
)
def test_unknown_names_are_refused(steepest: Any, arguments: tuple[str, ...], said: str) -> None:
    ended = steepest("bench", "step", *arguments)
    assert ended.code == 2
    assert said in ended.err
