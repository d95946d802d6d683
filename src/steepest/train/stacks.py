"""The parameters and buffers of many models of one kind, stacked member by member.

T_M    a tensor of the model with a new first dimension: one entry per member
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from steepest.errors import TaskError, UnsupportedError
from steepest.train.dropout import key_dropout
from steepest.train.keyed import KEY
from steepest.train.linear import batch_linear
from steepest.train.recurrent import batch_recurrent
from steepest.train.solo import extra_state, model_state
from steepest.train.task import Task, build_model, hash_tensors

__all__ = ["Stacks"]


class Stacks:
    """Models of one task, one per seed given, stacked.

    Args:
        task: What is trained.
        seeds: Of the members, in their places; equal seeds start equal.
        device: Where the stacks lie.
        own_linear: Compute linear layers as `steepest.train.linear` does.

    Attributes:
        template: The first model; it lends its code, its own tensors are not used.
        params: By name ``[M, ...]``; those that are trained require gradients.
        buffers: By name ``[M, ...]``, the dropout keys among them.
        key: The stack of the dropout keys ``[M, 2]``, or None.
        start_hashes: By place.
        trained: Names of the parameters that are trained, in the model's order.

    Raises:
        UnsupportedError: If the models cannot be stacked; the message says why.
    """

    def __init__(
        self, task: Task, seeds: Sequence[int], device: torch.device, *, own_linear: bool = True
    ) -> None:
        distinct = list(dict.fromkeys(seeds))
        rows = torch.tensor([distinct.index(seed) for seed in seeds], device=device)
        hashes: dict[int, str] = {}
        starts: dict[str, list[Tensor]] = {}
        first = build_model(task, distinct[0])
        for seed in distinct:
            model = first if seed == distinct[0] else build_model(task, seed)
            if model is first and seed != distinct[0]:
                raise TaskError(
                    f"task '{task.name}': the model factory returned the same object twice; it "
                    "must build a new model at every call"
                )
            if extra := extra_state(model):
                raise UnsupportedError(
                    f"its module '{next(iter(extra))}' keeps state beside parameters and buffers "
                    "(get_extra_state), which cannot be stacked"
                )
            hashes[seed] = hash_tensors(dict(model_state(model)))
            for name, tensor in model_state(model):
                column = starts.setdefault(name, [])
                if column and (column[0].shape, column[0].dtype) != (tensor.shape, tensor.dtype):
                    raise UnsupportedError(
                        f"'{name}' has shape {tuple(column[0].shape)} with one seed and "
                        f"{tuple(tensor.shape)} with another; members need equal shapes"
                    )
                column.append(tensor.detach().to(device, copy=True))
        uneven = [name for name, column in starts.items() if len(column) != len(distinct)]
        if uneven:
            raise UnsupportedError(f"only some seeds' models have '{uneven[0]}'")
        self.start_hashes = [hashes[seed] for seed in seeds]
        self.template: nn.Module = first.to(device)
        needs = {name: p.requires_grad for name, p in self.template.named_parameters()}
        stacked = {name: torch.stack(column)[rows] for name, column in starts.items()}
        self.params = {name: stacked[name].requires_grad_(needs[name]) for name in needs}
        self.buffers = {name: stack for name, stack in stacked.items() if name not in needs}
        self.trained = [name for name, needed in needs.items() if needed]
        self.key: Tensor | None = None
        if key_dropout(self.template) is not None:
            self.key = torch.zeros(len(seeds), 2, dtype=torch.int32, device=device)
            for name, _ in self.template.named_buffers():
                if name.rpartition(".")[2] == KEY:
                    self.buffers[name] = self.key
        if own_linear:
            batch_linear(self.template)
        batch_recurrent(self.template)

    def __len__(self) -> int:
        return len(self.start_hashes)

    def part(self, places: range) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers of neighbouring members, without copying."""
        cut = slice(places.start, places.stop)
        return (
            {name: stack.detach()[cut] for name, stack in self.params.items()},
            {name: stack[cut] for name, stack in self.buffers.items()},
        )

    def of(self, place: int) -> dict[str, Tensor]:
        """A member's parameters and buffers by name, without the key of the dropout layers."""
        found = {name: stack.detach()[place] for name, stack in self.params.items()}
        for name, stack in self.buffers.items():
            if name.rpartition(".")[2] != KEY:
                found[name] = stack[place]
        return found

    def put(self, place: int, values: Mapping[str, Tensor]) -> None:
        """Write a member's parameters and buffers."""
        for name, tensor in self.of(place).items():
            tensor.copy_(values[name])
