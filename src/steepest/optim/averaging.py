"""Optimizers that keep two sets of weights: one to train, one to evaluate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steepest.errors import InputError
from steepest.kernels import EngineName
from steepest.optim.facade import Facade

__all__ = ["Averaged"]

_KEPT = "y"
"""What the state of a parameter holds in eval mode: the weights to go on training with."""


class Averaged(Facade):
    """An optimizer whose rule averages: call `eval` before evaluating or saving the model.

    As in the authors' package, ``train_mode`` stands in the parameter groups and so in the state
    dict. Unlike there a new optimizer is in train mode: before the first step both sets are equal.
    """

    def __init__(
        self, params: Any, defaults: dict[str, Any], *, engine: EngineName = "auto"
    ) -> None:
        self._evaluated: dict[Tensor, int] = {}
        super().__init__(params, {**defaults, "train_mode": True}, engine=engine)

    @property
    def training(self) -> bool:
        """Whether the parameters hold the weights to train."""
        return all(group["train_mode"] for group in self.param_groups)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged weights into the parameters; nothing happens if they are there.

        What was there is kept beside the state (one tensor per parameter), so that `train` brings
        it back to the bit.
        """
        for group in self.param_groups:
            if not group["train_mode"]:
                continue
            values = self.face.values(group)
            for p in group["params"]:
                held = self.state.get(p)
                if held:
                    average = self.rule.averaged(p, held, values)
                    held[_KEPT] = p.detach().clone(memory_format=torch.preserve_format)
                    p.copy_(average)
                    self._evaluated[p] = p._version
            group["train_mode"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights to train into the parameters; nothing happens if they are there."""
        for group in self.param_groups:
            if group["train_mode"]:
                continue
            values = self.face.values(group)
            for p in group["params"]:
                held = self.state.get(p)
                if not held:
                    continue
                kept = held.pop(_KEPT, None)
                if kept is not None and self._evaluated.get(p, p._version) == p._version:
                    p.copy_(kept)
                else:
                    p.copy_(self._before_averaging(p, held, values))
            group["train_mode"] = True
        self._evaluated.clear()

    def _before_averaging(self, x: Tensor, held: dict[str, Any], values: dict[str, Any]) -> Tensor:
        """The weights whose average is ``x``; an average is linear in them and in the slots."""
        zeros = dict.fromkeys(self.rule.slots, 0.0)
        factor = self.rule.averaged(1.0, zeros, values)
        rest: Tensor = self.rule.averaged(0.0, held, values)
        y: Tensor = (x - rest) / factor
        return y

    def _advance(self) -> None:
        if not self.training:
            raise InputError(
                f"{type(self).__name__} is in eval mode: the parameters hold the averaged weights, "
                "and a step must start from those that are trained; nothing was changed. "
                "Call optimizer.train() before the forward pass"
            )
        super()._advance()

    def add_param_group(self, param_group: Any) -> None:
        """Add parameters with entries of their own, in the mode in which the others are."""
        groups = getattr(self, "param_groups", [])
        if groups and isinstance(param_group, dict):
            param_group.setdefault("train_mode", self.training)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._evaluated = {}
