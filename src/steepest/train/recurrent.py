"""Recurrent layers: dropout between them by (seed, step), and a way to map them over members.

    M, T, B    members, time steps, examples
    I, H, R    inputs, hidden values, what the next time step reads of them (H, or ``proj_size``)
    G          rows of a weight: 4 H (LSTM), 3 H (GRU), H (RNN)

Torch computes such layers in one call each, for which `torch.func.vmap` has no rule (`nn.LSTM`,
`nn.GRU`, `nn.RNN`, `nn.LSTMCell`) or one that takes the members one by one (the other cells).
Here all members compute together: one product of the whole sequence with the weights of the
inputs, then a loop over time with one product for all members. The way back is written by hand,
since autograd would add up T gradients of each recurrent weight: here they are one product.

The equations are those of torch's pages on `nn.LSTM`, `nn.GRU` and `nn.RNN`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.utils.rnn import PackedSequence

from steepest.errors import TaskError, UnsupportedError
from steepest.train.keyed import Keyed
from steepest.train.linear import as_autocast, linear, stack

__all__ = ["batch_recurrent", "key_recurrent"]

_ATEN = torch.ops.aten
_LONG = 1500  # operations on a CPU: recording 100 time steps of an LSTM took 3.5 s and saved 9 %
_PER_TIME = 20  # operations of a time step in the forward pass, about
State: TypeAlias = list[Tensor]
"""``[h]``, and of an LSTM ``[h, c]``."""


# ------------------------------------------------------------------ one time step of each kind


class _Cell(NamedTuple):
    """One time step of all members, and the way back.

    Attributes:
        forward: Of the inputs' and the state's products ``[M, B, G]`` and the state: the new ``h``
            and ``c``, and what the way back needs. May write into the state's product.
        backward: Of the gradients of the new ``h`` and ``c``, and of what was kept: those of the
            old ``h``, as far as it does not come through its product, and of the old ``c``.
            Writes the gradients of the two products into the last two arguments.
        summed: The two products matter as their sum alone, so their gradients are the same.
    """

    forward: Callable[
        [Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None, list[Tensor]]
    ]
    backward: Callable[
        [Tensor, Tensor | None, Sequence[Tensor], Tensor, Tensor],
        tuple[Tensor | None, Tensor | None],
    ]
    summed: bool = True


def _lstm(
    x: Tensor, r: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    before = cast("Tensor", c)
    gates = r.add_(x)
    i, f, g, o = gates.chunk(4, -1)
    gates[..., : 2 * before.shape[-1]].sigmoid_()  # i and f at once
    g.tanh_()
    o.sigmoid_()
    new = (f * before).addcmul_(i, g)
    bounded = new.tanh()
    return o * bounded, new, [gates, before, bounded]


def _lstm_back(
    dh: Tensor, dc: Tensor | None, kept: Sequence[Tensor], dx: Tensor, dr: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    gates, c, bounded = kept
    i, f, g, o = gates.chunk(4, -1)
    di, df, dg, do = dx.chunk(4, -1)
    d = _ATEN.tanh_backward(dh * o, bounded)
    d = d if dc is None else d.add_(dc)
    _ATEN.sigmoid_backward.grad_input(d * g, i, grad_input=di)
    _ATEN.sigmoid_backward.grad_input(d * c, f, grad_input=df)
    _ATEN.tanh_backward.grad_input(d * i, g, grad_input=dg)
    _ATEN.sigmoid_backward.grad_input(dh * bounded, o, grad_input=do)
    return None, d.mul_(f)


def _gru(
    x: Tensor, r: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    H = h.shape[-1]
    gates = (x[..., : 2 * H] + r[..., : 2 * H]).sigmoid_()
    reset, z = gates.chunk(2, -1)
    of_state = r[..., 2 * H :]
    n = torch.addcmul(x[..., 2 * H :], reset, of_state).tanh_()
    return (h - n).mul_(z).add_(n), None, [gates, n, of_state, h]


def _gru_back(
    dh: Tensor, dc: Tensor | None, kept: Sequence[Tensor], dx: Tensor, dr: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    gates, n, of_state, h = kept
    reset, z = gates.chunk(2, -1)
    d_reset, dz, dn = dx.chunk(3, -1)
    through = dh * z
    _ATEN.tanh_backward.grad_input(dh - through, n, grad_input=dn)
    _ATEN.sigmoid_backward.grad_input(dn * of_state, reset, grad_input=d_reset)
    _ATEN.sigmoid_backward.grad_input((h - n).mul_(dh), z, grad_input=dz)
    two = 2 * h.shape[-1]
    dr[..., :two] = dx[..., :two]
    torch.mul(dn, reset, out=dr[..., two:])
    return through, None


def _tanh(
    x: Tensor, r: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    new = r.add_(x).tanh_()
    return new, None, [new]


def _tanh_back(
    dh: Tensor, dc: Tensor | None, kept: Sequence[Tensor], dx: Tensor, dr: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    _ATEN.tanh_backward.grad_input(dh, kept[0], grad_input=dx)
    return None, None


def _relu(
    x: Tensor, r: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    new = r.add_(x).relu_()
    return new, None, [new]


def _relu_back(
    dh: Tensor, dc: Tensor | None, kept: Sequence[Tensor], dx: Tensor, dr: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    _ATEN.threshold_backward.grad_input(dh, kept[0], 0, grad_input=dx)
    return None, None


_CELLS = {
    "LSTM": _Cell(_lstm, _lstm_back),
    "GRU": _Cell(_gru, _gru_back, summed=False),
    "RNN_TANH": _Cell(_tanh, _tanh_back),
    "RNN_RELU": _Cell(_relu, _relu_back),
}


# ------------------------------------------------------------------ the loop over time


class _Stacked(torch.autograd.Function):
    """One layer in one direction, for all members, from the product of its inputs on.

    ``[M, T, B, G], [M, B, R], [M, B, H] -> [M, T, B, R], [M, B, H]``: the outputs, and the last c.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mode: str,
        backwards: bool,
        x: Tensor,
        h: Tensor,
        c: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        project: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        M, T, B, _ = x.shape
        cell, dtype = _CELLS[mode], h.dtype
        asked = any(ctx.needs_input_grad)
        out = h.new_empty(M, T, B, h.shape[-1])
        kept: list[Tensor] = []
        first = h
        for t in _times(T, backwards):
            r = torch.bmm(h.to(weight.dtype), weight.mT).to(dtype)
            if bias is not None:
                r.add_(bias[:, None])
            h, c, needed = cell.forward(x[:, t], r, h, c)
            if project is not None:
                needed.append(h)
                h = torch.bmm(h.to(project.dtype), project.mT).to(dtype)
            out[:, t] = h
            if asked:
                kept += needed
        ctx.mode, ctx.backwards, ctx.types = mode, backwards, (x.dtype, bias is not None)
        ctx.save_for_backward(first, weight, project, out, *kept)
        return out, c

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, dc: Tensor | None) -> Any:
        first, weight, project, out, *kept = ctx.saved_tensors
        (M, T, B, _), G = out.shape, weight.shape[1]
        cell, per_step = _CELLS[ctx.mode], len(kept) // T
        dx = out.new_empty(M, T, B, G)
        dr = dx if cell.summed else torch.empty_like(dx)
        d_projected = None if project is None else torch.empty_like(out)
        raw: list[Tensor] = []
        dh: Tensor | None = None
        for n, t in reversed(list(enumerate(_times(T, ctx.backwards)))):
            dh = d_out[:, t] if dh is None else dh.add_(d_out[:, t])
            mine = kept[n * per_step : (n + 1) * per_step]
            if project is not None and d_projected is not None:
                raw.append(mine.pop())
                d_projected[:, t] = dh
                dh = torch.bmm(dh.to(project.dtype), project).to(out.dtype)
            through, dc = cell.backward(dh, dc, mine, dx[:, t], dr[:, t])
            dh = torch.bmm(dr[:, t].to(weight.dtype), weight).to(out.dtype)
            dh = dh if through is None else dh.add_(through)
        if ctx.backwards:
            before = torch.cat((out[:, 1:], first[:, None]), 1)
        else:
            before = torch.cat((first[:, None], out[:, :-1]), 1)
        d_project = None
        if project is not None and d_projected is not None:
            order = raw if ctx.backwards else raw[::-1]
            d_project = _product(d_projected, torch.stack(order, 1), project.dtype)
        dtype, biased = ctx.types
        return (
            None,
            None,
            dx.to(dtype),
            dh,
            dc,
            _product(dr, before, weight.dtype),
            dr.sum((1, 2)).to(weight.dtype) if biased else None,
            d_project,
        )


def _times(T: int, backwards: bool) -> Sequence[int]:
    return range(T - 1, -1, -1) if backwards else range(T)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """``[M, T, B, P], [M, T, B, Q] -> [M, P, Q]``, summed over time and examples."""
    return torch.bmm(left.to(dtype).flatten(1, 2).mT, right.to(dtype).flatten(1, 2))


class _Recurrence(torch.autograd.Function):
    """`_Stacked` inside `torch.func.vmap`; never differentiated by itself, as in `linear`."""

    @staticmethod
    def forward(mode: str, backwards: bool, *given: Tensor | None) -> tuple[Tensor, Tensor | None]:
        alone = [None if t is None else t[None] for t in given]
        out, c = _Stacked.apply(mode, backwards, *alone)  # type: ignore[no-untyped-call]
        return out[0], None if c is None else c[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Autograd works on the stacks, outside the map."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], mode: str, backwards: bool, *given: Tensor | None
    ) -> Any:
        _check_length(given[0])
        stacked: list[Any] = [
            None if t is None else stack(t, dim, info.batch_size)
            for t, dim in zip(given, in_dims[2:], strict=True)
        ]
        x, h, c, weight, bias, project = stacked
        weight, bias, project = as_autocast(weight, bias, project)
        out, c = _Stacked.apply(mode, backwards, x, h, c, weight, bias, project)  # type: ignore[no-untyped-call]
        return (out, c), (0, None if c is None else 0)


def _check_length(x: Tensor | None) -> None:
    """Refuse to have a long loop recorded, unless what is recorded can be captured in a graph."""
    tracing = get_proxy_mode()
    if tracing is None or x is None or x.device.type == "cuda":
        return
    times = x.shape[-3]
    if len(tracing.tracer.graph.nodes) + _PER_TIME * times > _LONG:
        raise UnsupportedError(
            f"a loop over {times} time steps makes a list of operations too long to pay"
        )


class _Weights(NamedTuple):
    """Of one layer in one direction: ``[G, I], [G, R], [G], [G], [R, H]``."""

    of_inputs: Tensor
    of_state: Tensor
    bias: Tensor | None = None
    other_bias: Tensor | None = None
    project: Tensor | None = None


def _sweep(
    mode: str, x: Tensor, state: State, weights: _Weights, *, backwards: bool = False
) -> tuple[Tensor, State]:
    """One layer in one direction: ``[T, B, I] -> [T, B, R]``, and the state after it.

    Args:
        mode: Of `_CELLS`.
        x: Inputs.
        state: Before the first time step that is computed.
        weights: The layer's.
        backwards: Begin at the last time step.
    """
    of_inputs, of_state, bias, other, project = weights
    if _CELLS[mode].summed and bias is not None and other is not None:
        bias, other = bias + other, None
    h, c = state[0], state[1] if len(state) > 1 else None
    products = linear(x, of_inputs, bias)
    out, c = _Recurrence.apply(mode, backwards, products, h, c, of_state, other, project)  # type: ignore[no-untyped-call]
    last = out[0 if backwards else -1]
    return out, [last] if c is None else [last, c]


# ------------------------------------------------------------------ modules

Layer: TypeAlias = Callable[
    [nn.RNNBase, Tensor, State, Sequence[Sequence[Tensor]]], tuple[Tensor, State]
]
"""Of a module, the inputs ``[T, B, I]``, the state ``[directions, B, …]`` and the weights of each
direction: the outputs ``[T, B, directions R]`` and the state afterwards."""


class KeyedRecurrent(Keyed):
    """What a recurrent module with dropout between its layers becomes.

    In train mode the layers are computed one by one, each by torch's own call, and their outputs
    are dropped by the key of the step. A `PackedSequence` is left to torch and the generator that
    engines seed per step.
    """

    def forward(self, x: Any, hx: Any = None) -> Any:
        """As the module's own."""
        if not self.training or isinstance(x, PackedSequence):
            return super().forward(x, hx)
        return _run(cast("nn.RNNBase", self), x, hx, _as_torch)


class KeyedLSTM(KeyedRecurrent, nn.LSTM):
    """`nn.LSTM` with its dropout by (seed, step)."""


class KeyedGRU(KeyedRecurrent, nn.GRU):
    """`nn.GRU` with its dropout by (seed, step)."""


class KeyedRNN(KeyedRecurrent, nn.RNN):
    """`nn.RNN` with its dropout by (seed, step)."""


_KEYED: dict[type[nn.Module], type[KeyedRecurrent]] = {
    nn.LSTM: KeyedLSTM,
    nn.GRU: KeyedGRU,
    nn.RNN: KeyedRNN,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}


def key_recurrent(module: nn.Module) -> None:
    """Make a recurrent module of torch that drops between its layers a `Keyed` one, in place.

    Only exact classes. It stays the same object, with the same parameters under the same names.
    """
    kind = _KEYED.get(type(module))
    if kind is None:
        return
    recurrent = cast("nn.RNNBase", module)
    if recurrent.dropout > 0 and recurrent.num_layers > 1:
        module.__class__ = kind
        cast("KeyedRecurrent", module).begin()


def _run(module: nn.RNNBase, x: Any, hx: Any, layer: Layer) -> Any:
    """A whole module: its layers one after the other, with dropout between them."""
    if x.dim() not in (2, 3):
        raise TaskError(
            f"a recurrent layer ({module}) expects an input of 2 or 3 dimensions, got {x.dim()}"
        )
    unbatched, batch = x.dim() == 2, 0 if module.batch_first else 1
    state = None if hx is None else list(hx) if module.mode == "LSTM" else [hx]
    if unbatched:
        x = x.unsqueeze(batch)
        state = None if state is None else [s.unsqueeze(1) for s in state]
    n, per_layer = module.num_layers, 2 if module.bidirectional else 1
    if state is None:
        sizes = (module.proj_size or module.hidden_size, module.hidden_size)
        state = [
            x.new_zeros(n * per_layer, x.shape[batch], size)
            for size in sizes[: 2 if module.mode == "LSTM" else 1]
        ]
    given: Any = tuple(state) if module.mode == "LSTM" else state[0]
    module.check_forward_args(x, given, None)
    if module.batch_first:
        x = x.transpose(0, 1)
    p = module.dropout if isinstance(module, KeyedRecurrent) and module.training else 0.0
    keep: Tensor | None = None
    if p > 0 and isinstance(module, Keyed):
        # drawn at once: where activations are recomputed, a module may draw once per pass
        shape = (n - 1, x.shape[0], x.shape[1], per_layer * state[0].shape[-1])
        keep = module.keep(p, shape, x.device)
    ends: list[State] = []
    for number in range(n):
        mine = slice(number * per_layer, (number + 1) * per_layer)
        x, end = layer(module, x, [s[mine] for s in state], module.all_weights[mine])
        ends.append(end)
        if keep is not None and number < n - 1:
            noise = keep[number].to(x.dtype)
            x = x * (noise.mul_(1.0 / (1.0 - p)) if p < 1.0 else noise)
    last = [torch.cat(parts) for parts in zip(*ends, strict=True)]
    if module.batch_first:
        x = x.transpose(0, 1)
    if unbatched:
        x, last = x.squeeze(batch), [s.squeeze(1) for s in last]
    return x, tuple(last) if module.mode == "LSTM" else last[0]


def _as_torch(
    module: nn.RNNBase, x: Tensor, state: State, weights: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, State]:
    given = tuple(state) if module.mode == "LSTM" else state[0]
    flat = [w for direction in weights for w in direction]
    out, *after = _CALLS[module.mode](
        x, given, flat, module.bias, 1, 0.0, module.training, module.bidirectional, False
    )
    return out, after


def _mapped_layer(
    module: nn.RNNBase, x: Tensor, state: State, weights: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, State]:
    outs, ends = [], []
    for number, direction in enumerate(weights):
        of_one = _Weights(
            of_inputs=direction[0],
            of_state=direction[1],
            bias=direction[2] if module.bias else None,
            other_bias=direction[3] if module.bias else None,
            project=direction[-1] if module.proj_size else None,
        )
        before = [s[number] for s in state]
        out, end = _sweep(module.mode, x, before, of_one, backwards=number == 1)
        outs.append(out)
        ends.append(end)
    return torch.cat(outs, -1), [torch.stack(parts) for parts in zip(*ends, strict=True)]


def _mapped(self: nn.RNNBase, x: Any, hx: Any = None) -> Any:
    if isinstance(x, PackedSequence):
        raise UnsupportedError(
            f"nn.{self.mode.partition('_')[0]} is given a PackedSequence, which cannot be mapped "
            "over the members of a population; pad the sequences instead"
        )
    return _run(self, x, hx, _mapped_layer)


def _mapped_cell(self: nn.RNNCellBase, x: Tensor, hx: Any = None) -> Any:
    is_lstm = isinstance(self, nn.LSTMCell)
    unbatched = x.dim() == 1
    if hx is None:
        zeros = x.new_zeros(*x.shape[:-1], self.hidden_size)
        hx = (zeros, zeros) if is_lstm else zeros
    state = list(hx) if is_lstm else [hx]
    if unbatched:
        x, state = x[None], [s[None] for s in state]
    mode = "LSTM" if is_lstm else "GRU"
    if isinstance(self, nn.RNNCell):
        mode = f"RNN_{self.nonlinearity.upper()}"
    weights = _Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
    _, state = _sweep(mode, x[None], state, weights)
    if unbatched:
        state = [s[0] for s in state]
    return tuple(state) if is_lstm else state[0]


_CELL_MODULES = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def batch_recurrent(model: nn.Module) -> None:
    """Let the recurrent modules of ``model`` compute as this file says; inside a map only.

    Only exact classes: a subclass may mean something else.
    """
    for module in model.modules():
        if type(module) in _KEYED or isinstance(module, KeyedRecurrent):
            module.forward = MethodType(_mapped, module)
        elif type(module) in _CELL_MODULES:
            module.forward = MethodType(_mapped_cell, module)
