"""The eager engine: a rule run with plain torch operations, for every dtype and every device.

It is the reference for every other engine, and what they fall back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    per_element = [slot.per == "element" for slot in rule.slots.values()]
    if p.is_complex():
        p, g = torch.view_as_real(p.resolve_conj()), torch.view_as_real(g.resolve_conj())
        slots = [
            torch.view_as_real(s) if own and s is not None else s
            for s, own in zip(slots, per_element, strict=True)
        ]
        step, *new = rule(p, g, *slots, t, **values)
        return torch.view_as_complex(step.contiguous()), *(
            torch.view_as_complex(s.contiguous()) if own and s is not None else s
            for s, own in zip(new, per_element, strict=True)
        )
    if p.dtype in (torch.bfloat16, torch.float16):
        p, g = p.float(), g.float()
        slots = [
            s.float() if own and s is not None else s
            for s, own in zip(slots, per_element, strict=True)
        ]
    return rule(p, g, *slots, t, **values)


class Eager:
    """Runs the blocks one after the other; takes whatever torch can compute with."""

    name = "eager"

    def refuse(self, block: Block) -> str | None:
        """Never: it is what the others fall back to."""
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
        for block in blocks:
            grads = block.grads
            if grad_scale is not None:
                grads = [g / grad_scale.to(g.device, g.dtype) for g in grads]
            if block.maximize:
                grads = [-g for g in grads]
            times = _times(block)
            if block.sparse == "rows":
                _rows(block, grads, times)
            elif (
                block.rule.kind != "elementwise"
                or block.differentiable
                or block.sparse
                or found_inf is not None
                or isinstance(times[0], Tensor)
                or any(type(p) not in _PLAIN for p in block.params)
            ):
                _one_by_one(block, grads, times, found_inf)
            else:
                _together(block, grads, times)
            if not isinstance(block.steps, int):
                done = 1 if found_inf is None else _fine(found_inf, block.steps[0])
                torch._foreach_add_(block.steps, done)


EAGER = Eager()

_PLAIN = (Tensor, torch.nn.Parameter)


def _times(block: Block) -> list[Any]:
    """``t`` of each parameter: a number, or a tensor where it may not be read on the host."""
    if isinstance(block.steps, int):
        return [block.steps] * len(block.params)
    if block.steps[0].device.type == "cpu":
        return [step.item() + 1 for step in block.steps]
    # in double precision, since 1 - beta2**t has lost four of its digits in single
    return [step.detach().double() + 1 for step in block.steps]


def _fine(found_inf: Tensor, like: Tensor) -> Tensor:
    """1 if the gradients are finite, else 0."""
    return (found_inf == 0).to(like.device, like.dtype).reshape(())


def _together(block: Block, grads: list[Tensor], times: list[float]) -> None:
    """Large tensors a part at a time; small ones that are at the same step end to end."""
    columns = [
        column if column is None or slot.per == "element" else [x.item() for x in column]
        for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
    ]
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, p in enumerate(block.params):
        slots = [column and column[i] for column in columns]
        if p.numel() <= _SMALL:
            numbers = [s for s in slots if isinstance(s, float)]
            alike.setdefault((times[i], *numbers), []).append(i)
            continue
        for part in _parts(p, grads[i], slots):
            new = _run(block, *part, t=times[i])
        _keep_numbers(block, [i], new)
    for members in alike.values():
        for bundle in _portions(members, block.params):
            first = bundle[0]
            slots = [column and column[first] for column in columns]
            if len(bundle) == 1:
                new = _run(block, block.params[first], grads[first], slots, t=times[first])
            else:
                new = _run_bundle(block, bundle, grads, columns, t=times[first])
            _keep_numbers(block, bundle, new)


def _parts(p: Tensor, g: Tensor, slots: list[Any]) -> Iterator[tuple[Tensor, Tensor, list[Any]]]:
    """Views of a parameter, its gradient and its slots, small enough for a CPU's cache."""
    if p.device.type != "cpu" or p.numel() <= _CHUNK:
        yield p, g, slots
        return
    whole = [p, g, *slots]
    if all(x.is_contiguous() for x in whole if isinstance(x, Tensor)):
        split = [x.view(-1).split(_CHUNK) if isinstance(x, Tensor) else repeat(x) for x in whole]
    else:
        rows = max(1, _CHUNK * p.shape[0] // p.numel())
        split = [x.split(rows) if isinstance(x, Tensor) else repeat(x) for x in whole]
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


def _run(block: Block, p: Tensor, g: Tensor, slots: list[Any], *, t: Any) -> list[Any]:
    """Apply the rule to one tensor and write what changes; returns the new slots."""
    step, *new = apply(block.rule, p, g, slots, t=t, values=block.values)
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


def _run_bundle(
    block: Block, bundle: list[int], grads: list[Tensor], columns: list[Any], *, t: float
) -> list[Any]:
    """Apply the rule to several tensors end to end."""

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensors[i].reshape(-1) for i in bundle])

    shapes = [block.params[i].shape for i in bundle]
    sizes = [shape.numel() for shape in shapes]

    def parted(x: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(x.split(sizes), shapes, strict=True)]

    slots = [
        column
        if column is None
        else joined(column)
        if isinstance(column[0], Tensor)
        else column[bundle[0]]
        for column in columns
    ]
    p = joined(block.params)
    new = _run(block, p, joined(grads), slots, t=t)
    torch._foreach_copy_([block.params[i] for i in bundle], parted(p))
    for column, slot in zip(columns, slots, strict=True):
        if isinstance(slot, Tensor):
            torch._foreach_copy_([column[i] for i in bundle], parted(slot))
    return new


def _keep_numbers(block: Block, members: list[int], new: list[Any]) -> None:
    """Write the slots that are one number per tensor."""
    for slot, column, value in zip(block.rule.slots.values(), block.slots, new, strict=True):
        if column is not None and slot.per == "tensor":
            for i in members:
                column[i].fill_(value)


def _one_by_one(
    block: Block, grads: list[Tensor], times: list[Any], found_inf: Tensor | None
) -> None:
    """The way for everything unusual: each tensor by itself, slots in tensors, no host reads."""
    names = list(block.rule.slots)
    for i, p in enumerate(block.params):
        old = [column and column[i] for column in block.slots]
        slots = [
            s.double() if s is not None and slot.per == "tensor" else s
            for s, slot in zip(old, block.rule.slots.values(), strict=True)
        ]
        # a formula may save p for its gradient, and p is about to change
        at = p.clone() if block.differentiable else p
        step, *new = apply(block.rule, at, grads[i], slots, t=times[i], values=block.values)
        if found_inf is not None:
            fine = _fine(found_inf, p) != 0
            step = torch.where(fine, step, 0.0)
            new = [
                n if n is None else torch.where(fine, n, s) for n, s in zip(new, slots, strict=True)
            ]
        _add(p, step)
        for name, column, s, value in zip(names, block.slots, old, new, strict=True):
            if column is None:
                continue
            if block.differentiable or block.sparse:  # autograd, or a sparse buffer: not in place
                column[i] = block.states[i][name] = torch.as_tensor(value).to(s.device, s.dtype)
            elif isinstance(value, Tensor):
                s.copy_(value)
            else:
                s.fill_(value)


def _rows(block: Block, grads: list[Tensor], times: list[Any]) -> None:
    """Sparse gradients: the formula runs on the elements that have one."""
    for p, g, t, *slots in zip(block.params, grads, times, *block.slots, strict=True):
        rows = g.coalesce()  # a formula is not linear, so an element must come once
        where = tuple(rows.indices())
        step, *new = apply(
            block.rule, p[where], rows.values(), [s[where] for s in slots], t=t, values=block.values
        )
        p.index_put_(where, step.to(p.dtype), accumulate=True)
        for s, value in zip(slots, new, strict=True):
            s.index_put_(where, value.to(s.dtype))
