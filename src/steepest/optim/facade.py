"""The one class behind all optimizers: torch.optim's manners around a rule and an engine.

A step has four parts. The gradients are collected and looked at, so that nothing has been changed
when something is wrong; missing state is created; what belongs together becomes a `Block`; an
engine does the rest. Looking up and splitting is done again only when something has changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from operator import attrgetter, is_
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _get_scalar_dtype

from steepest.errors import UnsupportedError
from steepest.kernels import Block, Engine, EngineName, Prepared, engines
from steepest.optim import _precision
from steepest.optim._checks import (
    check_gradients,
    check_group,
    check_loaded,
    check_parameters,
    check_running,
    check_shape,
)
from steepest.optim._hooks import hooked
from steepest.optim._names import FLAGS, Face, face_of
from steepest.optim._plan import Plan, active_slots
from steepest.optim._state import State, filled, with_plain_numbers
from steepest.rules import Rule, get

__all__ = ["Facade"]

_grad = attrgetter("grad")

_OLDER = {
    "amsgrad": False,
    "centered": False,
    "decoupled_weight_decay": False,
    "momentum": 0,
    "nesterov": False,
    **FLAGS,
}
"""What torch.optim assumes where a checkpoint of an older version has no such key."""


class _Look(NamedTuple):
    """What looking at a group before a step has found."""

    grads: list[Tensor | None]
    plan: Plan | None  # None: the group has to be split
    fresh: bool  # something is not as in the step before


class Facade(Optimizer):
    """A `torch.optim.Optimizer` that follows a rule.

    Subclasses say which rule and give torch's signature; see `steepest.optim.Adam`.

    Attributes:
        engine: Which engine was asked for.
        refusals: Why an engine that would have been preferred was not used, and which.
    """

    _plans: list[Plan]
    _route: list[tuple[Engine, list[Block]]]
    _prepared: Prepared | None
    _seen: tuple[object, int]
    _on_host: bool

    rule_name: ClassVar[str]
    sparse: ClassVar[Literal["", "rows", "whole"]] = ""
    """How the rule takes sparse gradients; see `Block.sparse`. Empty: it does not."""
    has_step: ClassVar[bool] = True
    """Whether the state holds the number of steps taken (torch's SGD has none)."""
    numbers_on_device: ClassVar[bool] = False
    """Whether the step and other single numbers always lie beside the parameter."""

    def __init__(
        self, params: Any, defaults: dict[str, Any], *, engine: EngineName = "auto"
    ) -> None:
        self._engines = self._engines_called(engine)
        self.engine = engine
        self._forget()
        self._check_entries(defaults)
        super().__init__(params, defaults)
        self.state = State()
        if defaults.get("fused"):
            if defaults["differentiable"]:
                raise UnsupportedError("`fused` does not support `differentiable`")
            if defaults["foreach"]:
                raise UnsupportedError("`fused` and `foreach` cannot be `True` together.")

    def _check_entries(self, entries: Mapping[str, Any]) -> None:
        """Raise `InputError` unless a parameter group may hold these entries."""
        check_group(self._face_for(entries), entries, owner=type(self).__name__)
        _precision.check(entries, owner=type(self).__name__)

    @property
    def rule(self) -> Rule:
        """The formula that this optimizer follows."""
        return self.face.rule

    @cached_property
    def face(self) -> Face:
        """How the rule's values stand in a parameter group."""
        return face_of(get(self.rule_name))

    def _engines_called(self, name: EngineName) -> tuple[Engine, ...]:
        """The engines to try for a block, the preferred one first."""
        return engines(name)

    def _face_for(self, group: Mapping[str, Any]) -> Face:
        """The same for one parameter group: its parameters may follow another rule."""
        return self.face

    def _keeps_step(self, group: Mapping[str, Any]) -> bool:
        """Whether the state of that group's parameters has the number of steps."""
        return self.has_step or group.get("rounding") == "stochastic"

    def _expected(self, group: Mapping[str, Any]) -> Collection[str]:
        """The entries without which a loaded group is not one of this optimizer."""
        return self.defaults

    @property
    def _step_supports_amp_scaling(self) -> bool:  # torch.amp.GradScaler asks
        return any(group.get("fused") for group in self.param_groups)

    @hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one optimization step.

        Args:
            closure: Computes the gradients anew and returns the loss.

        Returns:
            What the closure returns.

        Raises:
            InputError: If a gradient does not fit its parameter or a hyperparameter is NaN.
            UnsupportedError: If flags, gradients and devices do not go together. In both cases
                no parameter and no state has been changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            self._advance_untraced()
        else:
            self._advance()
        return loss

    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _advance_untraced(self) -> None:
        self._advance()

    def _advance(self) -> None:
        if "capturable" in self.defaults and not self._on_host:
            self._accelerator_graph_capture_health_check()
        grad_scale = getattr(self, "grad_scale", None)
        found_inf = getattr(self, "found_inf", None)
        if type(self.state) is not State:
            self.state = State(self.state)
        writes = self.state.writes
        if writes is not self._seen[0] or writes.count != self._seen[1]:
            self._plans, self._prepared = [], None
        if self._prepared is not None:
            if self._repeat(self._prepared, grad_scale, found_inf):
                return
            self._plans, self._prepared = [], None
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            self._advance_anew(writes, grad_scale, found_inf)

    def _advance_anew(
        self, writes: Any, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        """Look at everything, split what has changed, and do the step."""
        looks = [
            self._look(group, plan)
            for group, plan in zip_longest(self.param_groups, self._plans[: len(self.param_groups)])
        ]
        if any(look.fresh for look in looks):
            if (
                found_inf is not None
                and any(look.plan is None for look in looks)
                and found_inf.item()
            ):
                return  # otherwise first buffers would be left as if a step had been taken
            self._plans = [
                self._split(group, look.grads) if look.plan is None else look.plan
                for group, look in zip(self.param_groups, looks, strict=True)
            ]
            self._route = self._choose([b for plan in self._plans for b in plan.blocks])
            self._seen = (writes, writes.count)
            self._on_host = all(
                p.device.type == "cpu" for group in self.param_groups for p in group["params"]
            )
        for engine, blocks in self._route:
            engine.step(blocks, grad_scale=grad_scale, found_inf=found_inf)
        if len(self._route) == 1 and all(plan.lasting for plan in self._plans):
            engine, blocks = self._route[0]
            self._prepared = engine.prepare(blocks, self.param_groups)
            if self._prepared is not None:
                for plan in self._plans:  # kept here, they would take memory until the next step
                    plan.release()

    def _repeat(
        self, prepared: Prepared, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> bool:
        """Do the step before with other gradients; False if more than values has changed."""
        found = prepared.look()
        if found == "changed" or (found == "values" and not self._renew(prepared)):
            return False
        prepared.run(grad_scale=grad_scale, found_inf=found_inf)
        return True

    @torch.no_grad()
    def _renew(self, prepared: Prepared) -> bool:
        """Take over changed entries of the groups."""
        for plan, group in zip(self._plans, self.param_groups, strict=True):
            if plan.has_entries_of(group):
                continue
            values = plan.face.values(group)
            check_running(values, owner=type(self).__name__)
            if not plan.renew(group, values):
                return False
            if not all(prepared.renew(block, block.values) for block in plan.blocks):
                return False
        return prepared.accept()

    def _look(self, group: dict[str, Any], plan: Plan | None) -> _Look:
        """Look at a group's gradients and entries; nothing that others see is changed."""
        owner = type(self).__name__
        grads = list(map(_grad, group["params"]))
        if plan is not None and not plan.describes(group, grads):
            plan = None
        new_grads = plan is None or not all(map(is_, grads, plan.grads))
        new_entries = plan is None or not plan.has_entries_of(group)
        if new_grads:
            present = [(p, g) for p, g in zip(group["params"], grads, strict=True) if g is not None]
            rule = self._face_for(group).rule
            if check_gradients(group, present, rule=rule, owner=owner, sparse=self.sparse):
                plan = None
        if new_entries:
            values = self._face_for(group).values(group)
            check_running(values, owner=owner)
            if plan is not None and not plan.renew(group, values):
                plan = None
        if plan is not None and new_grads:
            plan.take(grads)
        return _Look(grads, plan, new_grads or new_entries)

    def _split(self, group: dict[str, Any], grads: list[Tensor | None]) -> Plan:
        """Create the state that is missing, and put together what belongs together."""
        face, has_step = self._face_for(group), self._keeps_step(group)
        rule, values = face.rule, face.values(group)
        params = group["params"]
        parts: dict[tuple[Any, ...], list[int]] = {}
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            active = rule.active_slots(values, ndim=p.ndim)
            if g is None and not self._rests(group, p, active):
                continue
            created = g is not None and self._create(group, p, active, values=values)
            layout = torch.strided if g is None else g.layout
            key = (p.dtype, p.device, active, created and not has_step, layout)
            parts.setdefault(key, []).append(i)
        blocks = []
        for (dtype, _, active, first, layout), members in parts.items():
            states = [self.state.get(params[i], {}) for i in members]
            t = 1 if first else 2
            blocks.append(
                Block(
                    rule=rule,
                    params=[params[i] for i in members],
                    grads=[grads[i] for i in members],
                    slots=tuple(
                        [state[name] for state in states] if name in active else None
                        for name in rule.slots
                    ),
                    steps=[state["step"] for state in states] if has_step else t,
                    values=face.for_type(values, group, dtype),
                    maximize=group.get("maximize", False),
                    capturable=group.get("capturable", False),
                    differentiable=group.get("differentiable", False),
                    sparse="" if layout == torch.strided else self.sparse,
                    noise=_precision.noise(self.param_groups, group, members, dtype),
                    states=states,
                )
            )
        return Plan(
            face=face,
            group=group,
            entries=tuple(group.values()),
            active=active_slots(face, values),
            params=list(params),
            grads=grads,
            blocks=blocks,
            members=list(parts.values()),
            lasting=not any(first or layout != torch.strided for *_, first, layout in parts),
        )

    def _rests(self, group: Mapping[str, Any], p: Tensor, active: Iterable[str]) -> bool:
        """Whether a parameter without a gradient belongs to its block: it has had one before.

        Where other parameters have a gradient each step (experts, layers that are left out by
        chance), the same block then holds for all steps.
        """
        held = self.state.get(p)
        if not held or group.get("differentiable") or self._face_for(group).rule.kind == "matrix":
            return False
        complete = all(held.get(name) is not None for name in active)
        return complete and ("step" in held or not self._keeps_step(group))

    def _create(
        self, group: dict[str, Any], p: Tensor, active: Iterable[str], *, values: Mapping[str, Any]
    ) -> bool:
        """Create what a parameter's state does not have yet; returns whether a slot was missing."""
        held = self.state.get(p, {})
        missing = [name for name in active if held.get(name) is None]
        needs_step = self._keeps_step(group) and "step" not in held
        if not (missing or needs_step):
            return False
        state = self.state[p]
        number = self._number(group, p)
        if needs_step:
            state["step"] = torch.zeros((), **number)
        for name in missing:
            slot, dtype = self._face_for(group).rule.slots[name], _precision.slot_dtype(group, p)
            init = values.get(slot.init, slot.init) if isinstance(slot.init, str) else slot.init
            if slot.per == "all":
                state[name] = self._shared(name, init, number)
            elif slot.per == "tensor":
                state[name] = filled(torch.zeros((), **number), init)
            elif init == "p":
                state[name] = p.detach().to(dtype, copy=True)
            elif slot.per == "element":
                zeros = torch.zeros_like(
                    p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False
                )
                state[name] = filled(zeros, init)
            else:
                shape = slot.shape(tuple(p.shape))
                state[name] = filled(p.new_zeros(shape, dtype=dtype), init)
        return bool(missing)

    def _shared(self, name: str, init: Any, number: dict[str, Any]) -> Tensor:
        """The one number that all parameters together have in that slot."""
        for state in self.state.values():
            if name in state:
                return cast("Tensor", state[name])
        return filled(torch.zeros((), **number), init)

    def _choose(self, blocks: Sequence[Block]) -> list[tuple[Engine, list[Block]]]:
        """Which engine runs which blocks: the first one that does not refuse."""
        route: list[tuple[Engine, list[Block]]] = [(engine, []) for engine in self._engines]
        summed = [block for block in blocks if block.rule.has_totals]
        for together in [*([block] for block in blocks if not block.rule.has_totals), summed]:
            reasons: list[str] = []
            for engine, accepted in route:  # sums over all parameters are one engine's business
                reason = next((r for b in together if (r := engine.refuse(b)) is not None), None)
                if reason is None:
                    accepted.extend(together)
                    break
                self.refusals[reason] = engine.name
                reasons.append(reason)
            else:
                hint = "" if self.engine == "auto" else "; use engine='auto'"
                raise UnsupportedError(
                    f"engine='{self.engine}' cannot run this step: {'; '.join(reasons)}{hint}"
                )
        return [(engine, accepted) for engine, accepted in route if accepted]

    def add_param_group(self, param_group: Any) -> None:
        """Add parameters with entries of their own; see `torch.optim.Optimizer.add_param_group`.

        Raises:
            InputError: If a parameter or an entry cannot be; the optimizer is as it was.
        """
        if isinstance(param_group, dict) and "params" in param_group:
            params = param_group["params"]
            if not isinstance(params, (Tensor, set)):
                params = param_group["params"] = list(params)
            owner = type(self).__name__
            listed = [params] if isinstance(params, Tensor) else params
            check_parameters(listed, owner=owner)
            self._check_entries({**self.defaults, **param_group})
            param_group.update(_precision.plain(param_group))
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The state in plain dicts, exchangeable with the torch.optim class of the same name."""
        saved = super().state_dict()
        saved["state"] = {
            key: dict(held) if isinstance(held, dict) else held
            for key, held in saved["state"].items()
        }
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state that this class, or torch's of the same name, has saved.

        The tensors are copied, so that the optimizer that the state comes from can go on.

        Raises:
            InputError: If the state is another optimizer's or damaged. Nothing has been changed.
        """
        if not self._optimizer_load_state_dict_pre_hooks:  # which may make it fit
            check_shape(state_dict)
            state_dict = _precision.kept(state_dict)
        super().load_state_dict(with_plain_numbers(state_dict, self._numbers))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "engine": self.engine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        loading = "defaults" not in state  # else unpickling
        _precision.release(state["state"])
        if loading:
            own = inspect.signature(type(self)).parameters
            for group in state["param_groups"]:
                for key, default in self.defaults.items():
                    if key in _OLDER:
                        group.setdefault(key, _OLDER[key])
                    elif key not in own:  # a choice that torch.optim has no name for
                        group.setdefault(key, default)
            for at, group in enumerate(state["param_groups"]):
                check_loaded(
                    self._face_for(group),
                    at,
                    group,
                    state["state"],
                    owner=type(self).__name__,
                    has_step=self._keeps_step(group),
                    expected=self._expected(group),
                )
        super().__setstate__(state)
        self.__dict__.setdefault("engine", "auto")
        self._engines = self._engines_called(self.engine)
        self._forget()
        self.state = State(self.state)
        for group in self.param_groups:
            for p in group["params"]:
                self._tidy(group, p, own=not loading)
        for name, slot in self.rule.slots.items():
            if slot.per == "all":
                for held in self.state.values():
                    if name in held:
                        held[name] = self._shared(name, 0.0, {})

    def _tidy(self, group: dict[str, Any], p: Tensor, *, own: bool) -> None:
        """Bring single numbers to their dtype and device; make the tensors this optimizer's own."""
        if p not in self.state:
            return
        state = self.state[p]
        for name, value in list(state.items()):
            if name in self._numbers and value is not None:
                state[name] = torch.as_tensor(value).to(**self._number(group, p))
            elif isinstance(value, Tensor) and not own:
                state[name] = _precision.own(group, p, value)

    @cached_property
    def _numbers(self) -> frozenset[str]:
        """What is one number per parameter in the state."""
        slots = self.rule.slots.items()  # rules for the other parameters have none but the step
        return frozenset({"step"} | {name for name, s in slots if s.per in ("tensor", "all")})

    def _number(self, group: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
        """What the step and other single numbers of a parameter are stored as."""
        beside = group.get("capturable") or group.get("fused") or self.numbers_on_device
        return {
            "dtype": _get_scalar_dtype(group.get("fused")),  # type: ignore[no-untyped-call]
            "device": p.device if beside else torch.device("cpu"),
        }

    def _forget(self) -> None:
        self._plans = []
        self._route = []
        self._prepared = None
        self._seen = (None, 0)
        self._on_host = False
        self.refusals: dict[str, str] = {}
