"""The eager engine: a rule run with plain torch operations, for every dtype and every device.

It is the reference for every other engine, and what they fall back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from steepest.kernels import Block
from steepest.rules import Rule

__all__ = ["EAGER", "Eager", "apply"]

_CHUNK = 65_536
"""Elements worked on at a time on a CPU: the temporaries of a formula then stay in the cache.

Adam on 300,000 float32 elements, two cores: 0.6 ms in chunks of 64 Ki, 3 ms in one piece.
"""

_SMALL = 8_192
"""Tensors up to this size go together: starting an operation costs more than doing it.

The eight tensors of a small ConvNet: 0.55 ms together, 0.72 ms one by one.
"""


def apply(
    rule: Rule, p: Tensor, g: Tensor, slots: Sequence[Any], *, t: Any, values: Mapping[str, Any]
) -> tuple[Any, ...]:
    """``(step, *new_slots)`` of one tensor; nothing is written.

    Complex tensors are taken as pairs of real ones, and 16-bit floats are computed with in 32
    bits, so that a result is rounded once.

    Args:
        rule: The rule.
        p: The parameter.
        g: Its gradient.
        slots: What the rule remembers: tensors like ``p``, numbers or 0-d tensors for slots that
            are kept per tensor, None where inactive.
        t: The number of this step, from 1: a number or a 0-d tensor.
        values: Hyperparameters and options of the rule.

    >>> import torch
    >>> from steepest import rules
    >>> p, g = torch.tensor([1.0]), torch.tensor([0.5])
    >>> apply(rules.get("sgd"), p, g, [None], t=1, values={"lr": 0.5})
    (tensor([-0.2500]), None)
    """
    working = [_working(x) if isinstance(x, Tensor) else x for x in (p, g, *slots)]
    step, *new = rule(*working, t, **values)
    if not p.is_complex():
        return step, *new
    own = [isinstance(s, Tensor) and s.is_complex() for s in slots]
    return _paired(step), *(_paired(s) if c else s for s, c in zip(new, own, strict=True))


def _working(x: Tensor) -> Tensor:
    """What a formula computes with in place of ``x``."""
    if x.is_complex():
        return torch.view_as_real(x.resolve_conj())
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _paired(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous())


@dataclass
class _Job:
    """A block with everything read that must be read before anything is written."""

    block: Block
    grads: list[Tensor]
    times: list[Any]
    columns: list[Any]
    values: Mapping[str, Any]

    @property
    def one_by_one(self) -> bool:
        """Tensors cannot be joined or cut: something about them is unusual."""
        return (
            self.block.rule.kind != "elementwise"
            or self.block.differentiable
            or bool(self.block.sparse)
            or isinstance(self.times[0], Tensor)
            or any(type(p) not in (Tensor, torch.nn.Parameter) for p in self.block.params)
        )

    def slots(self, i: int) -> list[Any]:
        """The slots of one parameter, None where inactive."""
        return [column and column[i] for column in self.columns]

    def sums(self) -> list[tuple[Any, ...]]:
        """What each parameter contributes to the totals."""
        return [
            self.block.rule.partial_sums(
                *(
                    _working(x) if isinstance(x, Tensor) else x
                    for x in (p, self.grads[i], *self.slots(i))
                ),
                self.times[i],
                **self.values,
            )
            for i, p in enumerate(self.block.params)
        ]


class Eager:
    """Runs the blocks one after the other; takes whatever torch can compute and round with."""

    name = "eager"

    def refuse(self, block: Block) -> str | None:
        """Why torch's operations cannot do it: only where they would round otherwise."""
        if block.noise is not None:
            return "stochastic rounding needs a kernel: torch's operations round to nearest"
        return None

    def step(
        self,
        blocks: Sequence[Block],
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> None:
        """Do one optimization step for all parameters of all blocks."""
        if found_inf is not None and found_inf.device.type == "cpu":
            if found_inf.item():
                return
            found_inf = None
        present = [active for block in blocks if (active := block.active()).params]
        jobs = [_job(block, grad_scale) for block in present]
        _share_totals(jobs)
        for job in jobs:
            if job.block.sparse == "rows":
                _rows(job)
            elif job.one_by_one or found_inf is not None:
                _one_by_one(job, found_inf)
            else:
                _together(job)
            steps = job.block.steps
            if not isinstance(steps, int):
                done = 1 if found_inf is None else _fine(found_inf, steps[0])
                torch._foreach_add_(steps, done)

    def prepare(self, blocks: Sequence[Block], groups: list[dict[str, Any]]) -> None:
        """Nothing: what is looked up in Python is cheap beside these steps."""


EAGER = Eager()


def _job(block: Block, grad_scale: Tensor | None) -> _Job:
    grads = [g for g in block.grads if g is not None]
    if grad_scale is not None:
        grads = [g / grad_scale.to(g.device, g.dtype) for g in grads]
    if block.maximize:
        grads = [-g for g in grads]
    times = _times(block)
    on_host = not (block.differentiable or isinstance(times[0], Tensor))
    # Numbers on a device are not read, but widened: 1 - beta2**t has lost four of its digits in
    # single precision.
    columns = [
        column
        if column is None or slot.per not in ("tensor", "all")
        else [x.item() if on_host else x.to(torch.float64, copy=True) for x in column]
        for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
    ]
    return _Job(block, grads, times, columns, block.values)


def _times(block: Block) -> list[Any]:
    """``t`` of each parameter: a number, or a tensor where it may not be read on the host."""
    if isinstance(block.steps, int):
        return [block.steps] * len(block.params)
    if block.steps[0].device.type == "cpu":
        return [step.item() + 1 for step in block.steps]
    return [step.detach().double() + 1 for step in block.steps]


def _share_totals(jobs: list[_Job]) -> None:
    """Hand every job whose rule asks for them the sums over all parameters."""
    asking = [job for job in jobs if job.block.rule.has_totals]
    if not asking:
        return
    home = asking[0].block.params[0].device
    parts = [
        [x.to(home) if isinstance(x, Tensor) else x for x in part]
        for job in asking
        for part in job.sums()
    ]
    totals = [sum(column[1:], start=column[0]) for column in zip(*parts, strict=True)]
    for job in asking:
        device = job.block.params[0].device
        here = tuple(x.to(device) if isinstance(x, Tensor) else x for x in totals)
        job.values = {**job.values, "totals": here}


def _fine(found_inf: Tensor, like: Tensor) -> Tensor:
    """1 if the gradients are finite, else 0."""
    return (found_inf == 0).to(like.device, like.dtype).reshape(())


def _together(job: _Job) -> None:
    """Large tensors a part at a time; small ones that are at the same step end to end."""
    alike: dict[tuple[float, ...], list[int]] = {}
    for i, p in enumerate(job.block.params):
        slots = job.slots(i)
        if p.numel() <= _SMALL:
            numbers = [s for s in slots if isinstance(s, float)]
            alike.setdefault((job.times[i], *numbers), []).append(i)
            continue
        for part in _parts(p, job.grads[i], slots):
            new = _run(job, *part, t=job.times[i])
        _keep_numbers(job.block, [i], new)
    for members in alike.values():
        for bundle in _portions(members, job.block.params):
            _keep_numbers(job.block, bundle, _run_bundle(job, bundle))


def _parts(p: Tensor, g: Tensor, slots: list[Any]) -> Iterator[tuple[Tensor, Tensor, list[Any]]]:
    """Views of a parameter, its gradient and its slots, small enough for a CPU's cache."""
    if p.device.type != "cpu" or p.numel() <= _CHUNK:
        yield p, g, slots
        return
    whole = [p, g, *slots]
    if all(x.is_contiguous() for x in whole if isinstance(x, Tensor)):
        split = [
            torch.split(x.view(-1), _CHUNK) if isinstance(x, Tensor) else repeat(x) for x in whole
        ]
    else:
        rows = max(1, _CHUNK * p.shape[0] // p.numel())
        split = [torch.split(x, rows) if isinstance(x, Tensor) else repeat(x) for x in whole]
    for p_part, g_part, *slot_parts in zip(*split, strict=False):  # repeat() has no end
        yield p_part, g_part, slot_parts


def _portions(members: list[int], params: list[Tensor]) -> Iterator[list[int]]:
    """The members in lists of at most a chunk's elements in all."""
    portion: list[int] = []
    size = 0
    for i in members:
        if portion and size + params[i].numel() > _CHUNK:
            yield portion
            portion, size = [], 0
        portion.append(i)
        size += params[i].numel()
    yield portion


def _run(job: _Job, p: Tensor, g: Tensor, slots: list[Any], *, t: Any) -> list[Any]:
    """Apply the rule to one tensor and write what changes; returns the new slots."""
    step, *new = apply(job.block.rule, p, g, slots, t=t, values=job.values)
    _add(p, step)
    for old, value in zip(slots, new, strict=True):
        if isinstance(old, Tensor) and old is not value:
            old.copy_(value)
    return new


def _add(p: Tensor, step: Tensor) -> None:
    """Once, and rounded once: a 16-bit parameter takes a 32-bit step."""
    if step.dtype == p.dtype:
        p.add_(step)
    else:
        p.copy_(p + step)


def _run_bundle(job: _Job, bundle: list[int]) -> list[Any]:
    """Apply the rule to several tensors end to end."""
    first, params, t = bundle[0], job.block.params, job.times[bundle[0]]
    if len(bundle) == 1:
        return _run(job, params[first], job.grads[first], job.slots(first), t=t)

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensors[i].reshape(-1) for i in bundle])

    shapes = [params[i].shape for i in bundle]
    sizes = [shape.numel() for shape in shapes]

    def parted(x: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(torch.split(x, sizes), shapes, strict=True)]

    slots = [
        joined(column) if isinstance(slot, Tensor) else slot
        for column, slot in zip(job.columns, job.slots(first), strict=True)
    ]
    p = joined(params)
    new = _run(job, p, joined(job.grads), slots, t=t)
    torch._foreach_copy_([params[i] for i in bundle], parted(p))
    for column, slot in zip(job.columns, slots, strict=True):
        if isinstance(slot, Tensor):
            torch._foreach_copy_([column[i] for i in bundle], parted(slot))
    return new


def _keep_numbers(block: Block, members: list[int], new: list[Any]) -> None:
    """Write the slots that are one number per tensor."""
    for slot, column, value in zip(block.rule.slots.values(), block.slots, new, strict=True):
        if column is not None and slot.per in ("tensor", "all"):
            for i in members:
                column[i].fill_(value)


def _one_by_one(job: _Job, found_inf: Tensor | None) -> None:
    """The way for everything unusual: each tensor by itself, and nothing read on the host."""
    block = job.block
    for i, p in enumerate(block.params):
        slots = job.slots(i)
        # a formula may keep p for its gradient, and p is about to change
        at = p.clone() if block.differentiable else p
        step, *new = apply(block.rule, at, job.grads[i], slots, t=job.times[i], values=job.values)
        if found_inf is not None:
            fine = _fine(found_inf, p) != 0
            step = torch.where(fine, step, 0.0)
            new = [
                None if old is None else torch.where(fine, value, old)
                for old, value in zip(slots, new, strict=True)
            ]
        _add(p, step)
        for name, column, value in zip(block.rule.slots, block.slots, new, strict=True):
            if column is None:
                continue
            slot = column[i]
            if block.differentiable or block.sparse:  # autograd or a sparse buffer: not in place
                kept = torch.as_tensor(value, device=slot.device, dtype=slot.dtype)
                column[i] = block.states[i][name] = kept
            elif isinstance(value, Tensor):
                slot.copy_(value)
            else:
                slot.fill_(value)


def _rows(job: _Job) -> None:
    """Sparse gradients: the formula runs on the elements that have one."""
    for i, p in enumerate(job.block.params):
        rows = job.grads[i].coalesce()  # a formula is not linear: each element must come once
        where = tuple(rows.indices())
        slots = [s if s is None else s[where] for s in job.slots(i)]
        step, *new = apply(
            job.block.rule, p[where], rows.values(), slots, t=job.times[i], values=job.values
        )
        p.index_put_(where, step.to(p.dtype), accumulate=True)
        for slot, value in zip(job.slots(i), new, strict=True):
            if slot is not None:
                slot.index_put_(where, value.to(slot.dtype))
