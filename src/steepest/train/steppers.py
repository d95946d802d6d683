"""The optimizers of a population: whoever follows the same rule steps in the same launch.

Every member's parameters are views into the stacks. Members whose optimizers are ours and of one
class share one optimizer with parameter groups of their own: to a kernel, groups are rows of a
table, so hyperparameters, schedules and steps that differ cost nothing. Any other optimizer, be it
of torch or a stranger's, is a member's own and steps by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steepest.errors import InputError, UnsupportedError
from steepest.optim.facade import Facade
from steepest.train.decay import spare_decay
from steepest.train.randomness import derive, seed_all
from steepest.train.solo import (
    OptimizerFactory,
    Schedule,
    make_optimizer,
    rate_of,
    restore_optimizer,
)
from steepest.train.stacks import Stacks
from steepest.train.strangers import asks_again, show_trained, showing_answer
from steepest.train.task import Task

__all__ = ["Steppers"]

Recipe: TypeAlias = tuple[OptimizerFactory, "Schedule | None", int]


@dataclass
class _Stepper:
    """A member's side of an optimizer.

    Attributes:
        optimizer: Its own, or one that it shares.
        groups: Which of the optimizer's parameter groups are its own.
        params: Its parameters, in the model's order.
        schedule: Of its learning rate.
        base: Learning rates before the schedule, by group.
    """

    optimizer: torch.optim.Optimizer
    groups: range
    params: list[nn.Parameter]
    schedule: Schedule | None
    base: list[float]

    @property
    def own(self) -> list[dict[str, Any]]:
        """Its parameter groups."""
        return self.optimizer.param_groups[self.groups.start : self.groups.stop]


class Steppers:
    """The optimizers of all members of a population.

    Args:
        task: What is trained; it says what is not decayed.
        stacks: Whose parameters they change.
        recipes: Of each member the optimizer's factory, the schedule and the seed.
        steps: How long a run is; schedules need to know.

    Attributes:
        launches: The distinct optimizers, each of which steps once per step.
    """

    def __init__(self, task: Task, stacks: Stacks, recipes: Sequence[Recipe], steps: int) -> None:
        self.stacks = stacks
        self.steps = steps
        self._members: list[_Stepper] = []
        self.launches: list[torch.optim.Optimizer] = []
        self._trained = [stacks.params[name] for name in stacks.trained]
        views = [[nn.Parameter(p) for p in stack.detach()] for stack in self._trained]
        shared: dict[Any, torch.optim.Optimizer] = {}
        for place, (factory, schedule, seed) in enumerate(recipes):
            params = [column[place] for column in views]
            seed_all(derive(seed, "optimizer"), params[0].device)
            named = list(zip(stacks.trained, params, strict=True))
            optimizer = make_optimizer(factory, named)
            spare_decay(optimizer, task.spared(named))
            if asks_again(optimizer, factory):
                raise UnsupportedError(
                    f"{type(optimizer).__name__} asks for the loss again within a step, which one "
                    "member cannot do alone"
                )
            base = [rate_of(group) for group in optimizer.param_groups]
            if schedule is not None and any(np.isnan(lr) for lr in base):
                raise InputError(
                    f"{type(optimizer).__name__} has no 'lr' in its parameter groups, so a "
                    "schedule has nothing to multiply; leave the schedule out"
                )
            count = len(optimizer.param_groups)
            kind = _kind(optimizer)
            home = optimizer if kind is None else shared.setdefault(kind, optimizer)
            first = 0 if home is optimizer else len(home.param_groups)
            if home is optimizer:
                self.launches.append(home)
            else:
                for group in optimizer.param_groups:
                    home.add_param_group(group)
            self._members.append(
                _Stepper(home, range(first, first + count), params, schedule, base)
            )
        self._idle: set[int] = set()
        self._going: list[int] = []
        self._constant: NDArray[np.float32] | None = None  # rates that nobody changes
        self._bound: list[Tensor | None] = [None] * len(self._trained)

    # ------------------------------------------------------------------ training

    def set_rates(self, step: int) -> NDArray[np.float32]:
        """Set the learning rates of a step; those of the members' first groups."""
        if self._constant is not None:
            return self._constant
        factors: dict[int, float] = {}
        rates = np.zeros(len(self._members), np.float32)
        for place, member in enumerate(self._members):
            groups, schedule = member.own, member.schedule
            if schedule is not None and place not in self._idle:
                if id(schedule) not in factors:
                    factors[id(schedule)] = schedule(step, self.steps)
                factor = factors[id(schedule)]
                for group, base in zip(groups, member.base, strict=True):
                    if isinstance(group["lr"], Tensor):
                        group["lr"].fill_(base * factor)
                    else:
                        group["lr"] = base * factor
            rates[place] = rate_of(groups[0])
        ours = all(isinstance(optimizer, Facade) for optimizer in self.launches)
        if ours and all(member.schedule is None for member in self._members):
            self._constant = rates
        return rates

    def step(self, going: Sequence[int], grads: Sequence[Tensor | None]) -> None:
        """Update the members in these places.

        Args:
            going: The places.
            grads: Of the stacks of the trained parameters, in their order; None where the loss
                does not depend on one.
        """
        here = list(going)
        for number, grad in enumerate(grads):
            if grad is not None and grad is self._bound[number] and here == self._going:
                continue  # written to the same place as before
            column = None if grad is None else grad.unbind(0)
            for place in going:
                param = self._members[place].params[number]
                param.grad = None if column is None else column[place]
            self._bound[number] = grad
        self._going = here
        self._rest(set(range(len(self._members))).difference(going))
        busy = {id(self._members[place].optimizer) for place in going}
        for optimizer in self.launches:
            if id(optimizer) in busy:
                optimizer.step()

    def _rest(self, idle: set[int]) -> None:
        """Who is not going has no gradient, and so is left as it is."""
        for place in idle - self._idle:
            for param in self._members[place].params:
                param.grad = None
        self._idle = idle

    def show_trained(self) -> None:
        """Let the stacks be the weights that are trained."""
        for optimizer in self.launches:
            show_trained(optimizer)

    @contextmanager
    def showing_answers(self) -> Iterator[None]:
        """Let the stacks be the optimizers' answers meanwhile."""
        with ExitStack() as stack:
            for optimizer in self.launches:
                stack.enter_context(showing_answer(optimizer))
            yield

    # ------------------------------------------------------------------ going on later

    def state(self, place: int) -> tuple[dict[str, Any], list[float]]:
        """What the state_dict of the member's own optimizer would be, and its base rates."""
        member = self._members[place]
        optimizer = member.optimizer
        if len(member.groups) == len(optimizer.param_groups):
            return optimizer.state_dict(), member.base
        numbers = {id(p): n for n, p in enumerate(p for g in member.own for p in g["params"])}
        groups = [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in member.own]
        state = {
            numbers[id(p)]: dict(optimizer.state[p])
            for group in member.own
            for p in group["params"]
            if p in optimizer.state
        }
        return {"state": state, "param_groups": groups}, member.base

    def restore(self, states: Mapping[int, tuple[dict[str, Any], Sequence[float]]]) -> None:
        """Load members' states, and their base rates; the other members' are as they are."""
        for optimizer in self.launches:
            places = [i for i, m in enumerate(self._members) if m.optimizer is optimizer]
            merged: dict[str, Any] = {"state": {}, "param_groups": []}
            for place in places:
                saved = states[place][0] if place in states else self.state(place)[0]
                first = sum(len(group["params"]) for group in merged["param_groups"])
                merged["state"] |= {
                    n + first if isinstance(n, int) else n: slots
                    for n, slots in saved["state"].items()
                }
                merged["param_groups"] += [
                    {**group, "params": [n + first for n in group["params"]]}
                    for group in saved["param_groups"]
                ]
            restore_optimizer(optimizer, merged)
        for place, (_, base) in states.items():
            self._members[place].base = list(base)
        self._constant = None


def _kind(optimizer: torch.optim.Optimizer) -> Any:
    """What optimizers must have in common to be one; None for one that stays by itself.

    A rule that sums over all parameters, or keeps one number for all of them, would mix members.
    """
    if not isinstance(optimizer, Facade):
        return None
    # torch wraps `step` once per class, to count it in profiles
    if inspect.unwrap(type(optimizer).step) is not inspect.unwrap(Facade.step):
        return None
    if type(optimizer).add_param_group is not Facade.add_param_group:
        return None
    if optimizer.rule.kind != "elementwise" or optimizer.rule.has_totals:
        return None
    if any(slot.per == "all" for slot in optimizer.rule.slots.values()):
        return None
    defaults = optimizer.defaults
    flags = tuple(defaults.get(k) for k in ("capturable", "differentiable", "foreach", "fused"))
    keys = tuple(frozenset(group) for group in optimizer.param_groups)
    return type(optimizer), optimizer.engine, flags, frozenset(defaults), keys
