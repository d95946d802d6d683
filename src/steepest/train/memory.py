"""How much memory there is, and how much a member of a population takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from steepest.train.population import Member, Population
from steepest.train.precision import FLOAT32
from steepest.train.task import Task

__all__ = ["available_bytes", "fitting", "is_out_of_memory", "member_bytes"]

_SHARE = 0.5  # of what is available; the rest is for evaluations, checkpoints and other programs


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory could not be had."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can be allocated; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:  # a container may be given less than the machine has
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def member_bytes(
    task: Task, member: Member, *, batch_size: int, device: str, precision: str = FLOAT32
) -> int:
    """Bytes that one member takes in a step: what it keeps, and what its backward pass needs.

    Counted, not guessed: one member trains one step, and what autograd saves is added up.
    """
    saved: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    plain = replace(member, schedule=None)  # no schedule is made for a run of one step
    alone = Population(
        task, [plain], steps=1, batch_size=batch_size, device=device, precision=precision
    )
    kept = [*alone.stacks.params.values(), *alone.stacks.buffers.values()]
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        alone.advance(1)
    for stack in kept:
        saved.pop(stack.untyped_storage().data_ptr(), None)
    weights = sum(stack.numel() * stack.element_size() for stack in kept)
    state = sum(
        x.numel() * x.element_size()
        for optimizer in alone.steppers.launches
        for slots in optimizer.state.values()
        for x in slots.values()
        if isinstance(x, Tensor)
    )
    # The gradients are as large as the weights, those of the activations as the activations. When
    # two ways of a pass are compared (steepest.train.recorded), there are three sets of gradients.
    return 4 * weights + state + 2 * sum(saved.values())


def fitting(bytes_each: int, device: torch.device) -> int | None:
    """How many members fit into memory; None where the system does not say how much there is."""
    available = available_bytes(device)
    return None if available is None else max(1, int(_SHARE * available) // max(1, bytes_each))
