"""A population's forward and backward pass, recorded once and carried out as a flat list.

Mapping a model over members with `torch.func.vmap`, handing it stacked parameters and building
autograd's graph take about a millisecond of Python per step, whatever the members number. A step
of an MLP on MNIST takes a member 0.07 ms. So the tensor operations of one pass are recorded and
repeated: no map, no graph, no layer of the model's own code.

That is allowed only where it changes nothing. What is repeated has to give the bits of the pass as
it was written, losses, gradients and buffers alike: at the first steps of every population, and
again whenever something of it is looked at or kept. A model or a loss that counts its calls, or
keeps something of them, is not recorded: its next pass may be another one.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from steepest.errors import UnsupportedError
from steepest.train.data import map_tensors, tensors_of
from steepest.train.dropout import Counter, Keyed
from steepest.train.task import Task

__all__ = ["FIRST", "Passes", "Recording", "record"]

_PAYS = 300  # steps; recording takes as long as it saves in so many
FIRST = 2  # so many first steps are compared with the pass as it was written

_ATEN = torch.ops.aten
_VIEWS = {
    _ATEN.detach.default,
    _ATEN.alias.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.view.default,
    _ATEN._unsafe_view.default,
    _ATEN.expand.default,
}
_INTO = {_ATEN.bmm.default: _ATEN.bmm.out, _ATEN.sum.dim_IntList: _ATEN.sum.IntList_out}
_CONSTANTS = {_ATEN.scalar_tensor.default, _ATEN.arange.start, _ATEN.arange.default}

Grads = list[Tensor | None]
Losses = Callable[[dict[str, Tensor], dict[str, Tensor], Any, Any], Tensor]
"""Of all members ``[M]``, from their parameters, buffers and batches."""


class Recording:
    """The operations of one pass.

    Args:
        module: Takes all tensors in a row, then `kept`; returns losses and gradients.
        kept: Shape and type of gradients that are written to the same place in every step, by the
            number of the parameter.
    """

    def __init__(
        self, module: fx.GraphModule, kept: Mapping[int, tuple[torch.Size, torch.dtype]]
    ) -> None:
        self.module = module
        self.kept = dict(kept)

    def places(self, device: torch.device) -> list[Tensor]:
        """New memory for the gradients that stay where they are."""
        return [torch.empty(size, dtype=dtype, device=device) for size, dtype in self.kept.values()]

    def __call__(self, tensors: Sequence[Tensor], places: Sequence[Tensor]) -> tuple[Tensor, Grads]:
        """Losses ``[M]`` and the gradients of the trained parameters."""
        with torch.no_grad():
            losses, *grads = self.module.forward(*tensors, *places)
        return losses, grads


def record(run: Callable[..., list[Tensor | None]], tensors: Sequence[Tensor]) -> Recording:
    """Record what a function does with tensors, which it may change.

    Args:
        run: Returns losses, then gradients.
        tensors: What it is called with.
    """
    module = make_fx(run)(*tensors)
    graph = module.graph
    for node in list(graph.nodes):
        if _says_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif _is_constant(node):
            _keep_constant(module, node)
    kept = _keep_places(graph)
    graph.lint()
    module.recompile()
    return Recording(module, kept)


def _says_nothing(node: fx.Node) -> bool:
    """A view of a tensor with the same shape and strides is that tensor."""
    if node.target not in _VIEWS or not isinstance(node.args[0], fx.Node):
        return False
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.shape == after.shape and before.stride() == after.stride()


def _is_constant(node: fx.Node) -> bool:
    """Made of plain numbers, and only read."""
    if node.target not in _CONSTANTS or node.all_input_nodes:
        return False
    return all(map(_only_reads, node.users))


def _only_reads(node: fx.Node) -> bool:
    """What it returns is new, and what it is given stays as it is."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    schema = node.target._schema
    return not schema.is_mutable and all(r.alias_info is None for r in schema.returns)


def _keep_constant(module: fx.GraphModule, node: fx.Node) -> None:
    name = f"_constant_{node.name}"
    target: Any = node.target
    module.register_buffer(name, target(*node.args, **node.kwargs), persistent=False)
    with module.graph.inserting_before(node):
        found = module.graph.get_attr(name)
    node.replace_all_uses_with(found)
    module.graph.erase_node(node)


def _keep_places(graph: fx.Graph) -> dict[int, tuple[torch.Size, torch.dtype]]:
    """Let products and sums that are gradients be written to places that are handed in."""
    output = next(node for node in graph.nodes if node.op == "output")
    results: Any = output.args[0]
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    kept: dict[int, tuple[torch.Size, torch.dtype]] = {}
    for number, node in enumerate(results[1:]):
        if not isinstance(node, fx.Node) or node.target not in _INTO:
            continue
        value = node.meta.get("val")
        if list(node.users) != [output] or not isinstance(value, Tensor):
            continue
        if not value.is_contiguous() or node.kwargs.get("dtype") is not None:
            continue
        with graph.inserting_after(last):
            last = graph.placeholder(f"place_{number}")
        node.target = _INTO[node.target]
        node.kwargs = {**node.kwargs, "out": last}
        kept[number] = (value.shape, value.dtype)
    return kept


_RECORDED: WeakKeyDictionary[Task, dict[Any, Recording | str]] = WeakKeyDictionary()
"""By task and what else decides: a recording, or why there is none."""


class Passes:
    """Forward and backward passes of one population.

    Args:
        task: What is trained.
        losses: The forward pass as it was written.
        model: Whose code it runs.
        params: Stacked, by name.
        buffers: The same.
        trained: Names of the parameters whose gradients are wanted.
        key: What else decides which operations these are.
        steps: How many passes there will be; None: never record.

    Attributes:
        reason: Why nothing is recorded; empty where it is.
    """

    def __init__(
        self,
        task: Task,
        losses: Losses,
        *,
        model: nn.Module,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        trained: Sequence[str],
        key: Any,
        steps: int | None,
    ) -> None:
        self.reason = "" if steps is not None else "recording was not asked for"
        self._task, self._losses, self._model = task, losses, model
        self._params, self._buffers, self._trained = params, buffers, list(trained)
        self._key, self._steps = key, steps
        self._recording: Recording | None = None
        self._places: list[Tensor] = []
        self._done = 0
        self._trusted = 0  # passes up to the last comparison

    def __call__(self, x: Any, y: Any) -> tuple[Tensor, Grads]:
        """Losses ``[M]`` and the gradients of the trained parameters, in their order.

        Args:
            x: The members' inputs.
            y: Their targets.

        Raises:
            UnsupportedError: If the second pass is another one than the first.
        """
        if self._recording is None and not self.reason:
            self._find(x, y)
        if self._recording is None:
            return self._as_written(self._buffers, x, y)
        self._done += 1
        if self._done <= FIRST:
            return self._compare(self._recording, x, y)
        return self._recording(self._tensors(self._buffers, x, y), self._places)

    @property
    def in_doubt(self) -> bool:
        """Whether passes were repeated since the last comparison."""
        return self._recording is not None and self._trusted < self._done

    def check(self, x: Any, y: Any) -> None:
        """Compare once more, without leaving a trace in the buffers.

        Raises:
            UnsupportedError: If the model does something else by now than what was recorded.
        """
        if self._recording is None:
            return
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._compare(self._recording, x, y)
        for name, buffer in before.items():
            self._buffers[name].copy_(buffer)

    def _as_written(self, buffers: dict[str, Tensor], x: Any, y: Any) -> tuple[Tensor, Grads]:
        losses = self._losses(self._params, buffers, x, y)
        wanted = [self._params[name] for name in self._trained]
        grads = torch.autograd.grad(losses, wanted, torch.ones_like(losses), allow_unused=True)
        return losses.detach(), list(grads)

    def _tensors(self, buffers: dict[str, Tensor], x: Any, y: Any) -> list[Tensor]:
        return [*self._params.values(), *buffers.values(), *tensors_of(x), *tensors_of(y)]

    def _find(self, x: Any, y: Any) -> None:
        """Record this pass, unless it was recorded before, is not worth it, or cannot be."""
        tensors = self._tensors(self._buffers, x, y)
        key = (self._key, tuple(self._trained), *map(_layout, tensors))
        known = _RECORDED.setdefault(self._task, {})
        if key not in known:
            if self._steps is None or self._steps < _PAYS:
                self.reason = f"recording a pass pays from {_PAYS} steps on"
                return
            known[key] = self._record(tensors, x, y)
        found = known[key]
        if isinstance(found, str):
            self.reason = found
            return
        self._recording = found
        self._places = found.places(tensors[0].device)

    def _record(self, tensors: Sequence[Tensor], x: Any, y: Any) -> Recording | str:
        n, m = len(self._params), len(self._buffers)

        def run(*given: Tensor) -> list[Tensor | None]:
            params = dict(zip(self._params, given[:n], strict=True))
            buffers = dict(zip(self._buffers, given[n : n + m], strict=True))
            rest = iter(given[n + m :])
            batch = [map_tensors(lambda _: next(rest), part) for part in (x, y)]
            losses = self._losses(params, buffers, *batch)
            wanted = [params[name] for name in self._trained]
            grads = torch.autograd.grad(losses, wanted, torch.ones_like(losses), allow_unused=True)
            return [losses.detach(), *grads]

        copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        written = [type(m).forward for m in self._model.modules() if not _is_of_torch(m)]
        before = _kept_things([*self._model.modules(), *written, self._task.loss])
        try:
            found = record(run, copies)
        except Exception as error:  # noqa: BLE001  a stranger's model; as written it works
            text = str(error).strip().split("\n")[0]
            return f"its pass cannot be recorded ({type(error).__name__}: {text})"
        changed = _changed(before)
        if changed:
            return f"{changed} changes with every pass, so the next one may be another"
        return found

    def _compare(self, recording: Recording, x: Any, y: Any) -> tuple[Tensor, Grads]:
        """Both ways, from the same state; what was recorded holds if they agree to the bit."""
        mine = {name: buffer.clone() for name, buffer in self._buffers.items()}
        losses, grads = self._as_written(mine, x, y)
        again, others = recording(self._tensors(self._buffers, x, y), self._places)
        pairs = [(losses, again), *zip(grads, others, strict=True)]
        pairs += [(mine[name], self._buffers[name]) for name in mine]
        self._trusted = self._done
        if all(_same(a, b) for a, b in pairs):
            return again, others
        if self._done > 1:
            raise UnsupportedError(
                f"the model of task '{self._task.name}' or its loss computes something else by now "
                "than when its operations were recorded; what it does must follow from its inputs, "
                "parameters and buffers alone"
            )
        self.reason = "what was recorded does not give the same bits"
        self._recording, self._places = None, []
        for name, buffer in mine.items():
            self._buffers[name].copy_(buffer)
        return losses, grads


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """To the bit, or both not numbers."""
    if a is None or b is None:
        return a is b
    if torch.equal(a, b):
        return True
    floats = a.shape == b.shape and a.is_floating_point()
    return floats and bool(torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True))


_PASSING = (
    type, types.ModuleType, types.BuiltinFunctionType, Task, torch.dtype, torch.device,
    Keyed, Counter,  # every pass begins to count its draws at 0
)  # fmt: skip


def _kept_things(roots: Iterable[object]) -> list[tuple[str, Any, dict[str, Any]]]:
    """What objects keep in Python, beside the parameters, buffers and parts of modules."""
    return [(_name(root), root, _attributes(root)) for root in roots]


def _changed(before: Iterable[tuple[str, Any, dict[str, Any]]]) -> str:
    """The first thing that is not what it was, in words; empty if there is none."""
    for name, thing, held in before:
        now = _attributes(thing)
        for key in [*held, *(k for k in now if k not in held)]:
            if key not in held or key not in now or held[key] != now[key]:
                return f"{name}.{key}"
    return ""


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _name(thing: object) -> str:
    if isinstance(thing, types.FunctionType):
        return thing.__name__
    return type(thing).__name__


def _attributes(thing: Any) -> dict[str, Any]:
    """What may change, as values that can be compared."""
    if isinstance(thing, Keyed):
        return {}
    if isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        held = dict(zip(thing.__code__.co_freevars, cells, strict=True))
        values = {name: _value(cell, 3) for name, cell in held.items()}
        names = {n for n in thing.__code__.co_names if n in thing.__globals__}
        return values | {n: _value(thing.__globals__[n], 2) for n in names}
    own = dict(getattr(thing, "__dict__", {}))
    if isinstance(thing, nn.Module):
        for name in ("_parameters", "_buffers", "_modules"):
            own.pop(name, None)
    return {name: _value(value, 3) for name, value in own.items()}


def _value(value: Any, depth: int) -> Any:
    """A copy that is equal as long as nothing in it has changed."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return value
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, types.CellType):
        try:
            return _value(value.cell_contents, depth)
        except ValueError:  # an empty cell
            return None
    if isinstance(value, _PASSING) or depth == 0:
        return id(value)
    if isinstance(value, Mapping):
        return [(id(k) if isinstance(k, Tensor) else k, _value(v, depth - 1))
                for k, v in value.items()]  # fmt: skip
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value(v, depth - 1) for v in value]
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict) and not isinstance(value, nn.Module):
        return id(value), [(k, _value(v, depth - 1)) for k, v in inside.items()]
    return id(value)
