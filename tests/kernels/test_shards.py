"""Parameters spread over processes are done shard by shard, in place."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh

from steepest import optim
from steepest.errors import UnsupportedError

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")


@pytest.fixture(scope="module")
def mesh():
    """One process; its store lies in memory, so that no port is opened."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def spread(x, mesh, *placements):
    return DTensor.from_local(x, mesh, placements, run_check=False)


def models(mesh):
    torch.manual_seed(0)
    plain = [torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(5))]
    placed = zip(plain, (Shard(0), Replicate()), strict=True)
    return [torch.nn.Parameter(spread(p.detach().clone(), mesh, x)) for p, x in placed], plain


def give(step, shards, plain, mesh):
    for at, (p, q) in enumerate(zip(shards, plain, strict=True)):
        torch.manual_seed(10 * step + at)
        q.grad = torch.randn(q.shape) if at != step % 3 else None
        p.grad = None if q.grad is None else spread(q.grad.clone(), mesh, *p.placements)


@pytest.mark.parametrize("rule", ["adamw", "nadam", "sgd"])
def test_shards_equal_plain_parameters_and_stay_where_they_are(rule, mesh):
    extra = {"momentum": 0.9} if rule == "sgd" else {}
    ours, theirs = models(mesh)
    places = [p.to_local().data_ptr() for p in ours]
    a = optim.build(rule, ours, engine="kernel", **extra)
    b = optim.build(rule, theirs, engine="kernel", **extra)
    for step in range(7):
        give(step, ours, theirs, mesh)
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p.to_local(), q)
        for name, slot in b.state[q].items():
            mine = a.state[p][name]
            assert torch.equal(mine.to_local() if isinstance(mine, DTensor) else mine, slot)
    assert [p.to_local().data_ptr() for p in ours] == places


def test_what_needs_more_than_a_shard_goes_to_eager_with_a_reason(mesh):
    ours, theirs = models(mesh)
    give(2, ours[:1], theirs[:1], mesh)
    optimizer = optim.LAMB(ours[:1])
    optimizer.step()
    assert any("more than its own shard" in reason for reason in optimizer.refusals)


def test_a_gradient_that_is_spread_otherwise_is_refused(mesh):
    (p, _), _ = models(mesh)
    p.grad = spread(torch.ones(6, 4), mesh, Replicate())
    with pytest.raises(UnsupportedError, match="spread as"):
        optim.Adam([p], engine="kernel").step()
