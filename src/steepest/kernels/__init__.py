r"""How a rule is executed: what the optimizers hand to an engine, and the engines there are.

An optimizer splits its parameters into `Block`\ s and hands them all to an `Engine` in one call
per step, so that an engine can do everything in one launch. What an engine may rely on:

* All parameters, gradients and per-element slots of a block have one dtype and one device.
* A block is *the same object* as in the step before unless its parameters, its slots, its steps
  or its flags have changed: tables of pointers are kept per block, in a `WeakKeyDictionary` or
  on `Block.cache`.
* `Block.values` is the same dict unless a hyperparameter has changed. A tensor among the values
  may be changed in place by its owner at any time.
* `Block.grads` is the same list unless some gradient is another tensor than in the step before.
  A parameter whose entry is None rests: nothing of it changes, its step does not count.
  Gradients have the shape of their parameter; their strides may differ from it.
* Storage may be swapped behind a tensor (``p.data = ...``), so pointers are read each step.

What an engine does in `Engine.step`: it adds 1 to every tensor in ``steps`` (where ``steps`` is a
number, the rule keeps none and is handed that number as ``t``); runs the rule with ``-g`` for
``g`` where ``maximize``; adds the step to the parameter once; and writes the new slots into the
slots' own tensors. With ``grad_scale`` the gradients are divided by it first; where ``found_inf``
is 1, nothing changes, the steps included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from steepest.errors import InputError
from steepest.rules import Rule

__all__ = ["Block", "Engine", "EngineName", "Prepared", "engines"]

EngineName = Literal["auto", "eager", "kernel"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Block:
    """Parameters that take the same step: of one group, one dtype and one device.

    Attributes:
        rule: The rule that they follow.
        params: The parameters: those that have a gradient, and others that had one in an earlier
            step and may have one in the next.
        grads: Their gradients, in the same order; None where a parameter has none in this step.
        slots: For every slot of the rule, in its order: one tensor per parameter (of the
            parameter's shape, or 0-d for slots that are kept per tensor), or None where the
            slot is inactive.
        steps: One 0-d tensor per parameter: the steps taken *before* this one. Or the number
            ``t`` itself, for a rule whose state has no step (SGD: 1 without a buffer, else 2).
        values: Every hyperparameter and option of the rule under the rule's names: floats,
            bools, strings, 0-d tensors.
        maximize: Go up the gradient.
        capturable: Steps and per-tensor slots lie on the parameters' device and must not be
            read on the host.
        differentiable: Autograd records the step; slots are rebound, not written into.
        sparse: Empty for dense gradients. ``"rows"``: the gradients are sparse and the rule is
            run on the elements that they have; ``"whole"``: with sparse arithmetic.
        noise: None: round to nearest. Else one key per parameter: 16-bit values are rounded up
            or down at random, by random numbers that follow from the key, the step and the
            element's place.
        states: The parameters' own state dicts (what ``optimizer.state[p]`` is), for rebinding.
        cache: For the engine.
    """

    rule: Rule
    params: list[Tensor]
    grads: list[Tensor | None]
    slots: tuple[list[Tensor] | None, ...]
    steps: list[Tensor] | int
    values: Mapping[str, Any]
    maximize: bool = False
    capturable: bool = False
    differentiable: bool = False
    sparse: Literal["", "rows", "whole"] = ""
    noise: list[int] | None = None
    states: list[dict[str, Any]] = field(default_factory=list)
    cache: Any = None

    def active(self) -> Block:
        """The block of those parameters that have a gradient; itself if all have one."""
        if all(g is not None for g in self.grads):
            return self
        members = [i for i, g in enumerate(self.grads) if g is not None]
        return replace(
            self,
            params=[self.params[i] for i in members],
            grads=[self.grads[i] for i in members],
            slots=tuple(c if c is None else [c[i] for i in members] for c in self.slots),
            steps=self.steps if isinstance(self.steps, int) else [self.steps[i] for i in members],
            noise=self.noise and [self.noise[i] for i in members],
            states=[self.states[i] for i in members] if self.states else [],
        )


class Prepared(Protocol):
    """A step that an engine can repeat, with other gradients, for as long as nothing else changes.

    Looking up gradients, slots and groups in Python takes longer than the step itself takes; an
    engine that can do it faster does it in here.
    """

    def look(self) -> Literal["same", "values", "changed"]:
        """What has changed: nothing but gradients; entries of the groups too; anything else.

        The state itself is not looked at: its owner knows whether it has been written into.
        """

    def renew(self, block: Block, values: Mapping[str, Any]) -> bool:
        """Take over other hyperparameters of a block; False if that needs a new preparation."""

    def accept(self) -> bool:
        """Take the groups' entries as they are now; False if they have other parameters."""

    def run(self, *, grad_scale: Tensor | None = None, found_inf: Tensor | None = None) -> None:
        """Do the step whose gradients the last `look` has found."""


class Engine(Protocol):
    """Something that executes rules."""

    name: str

    def refuse(self, block: Block) -> str | None:
        """Why this engine cannot run that block, in words; None if it can.

        Asked whenever a block, its values or its gradients are new, so it must be cheap.
        """

    def step(
        self,
        blocks: Sequence[Block],
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> None:
        """Do one optimization step for all parameters of all blocks."""

    def prepare(self, blocks: Sequence[Block], groups: list[dict[str, Any]]) -> Prepared | None:
        """Be ready to repeat the step for these blocks; None if that saves nothing.

        Args:
            blocks: All that the optimizer has.
            groups: Its ``param_groups``.
        """


def engines(name: EngineName) -> tuple[Engine, ...]:
    """The engines to try for a block, the preferred one first; the last one must take it.

    Raises:
        InputError: If the name is not an engine's.
    """
    from steepest.kernels.eager import EAGER

    if name == "eager":
        return (EAGER,)
    if name not in ("auto", "kernel"):
        raise InputError(f"engine must be 'auto', 'eager' or 'kernel', got {name!r}")
    from steepest.kernels.native import KERNEL, ONLY_KERNEL

    return (ONLY_KERNEL,) if name == "kernel" else (KERNEL, EAGER)
