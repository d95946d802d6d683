"""Linear layers whose batched backward pass writes weight gradients as the weights lie.

    M, N, I, O    members, examples, inputs, outputs

Mapping ``x @ W.T`` over members gives ``dW.T = x.T @ g``: a stack that lies transposed and has to
be copied before an optimizer can read it beside the weights. Computed as ``dW = g.T @ x`` it lies
right from the start. In evaluations all members read the same examples, and the first layer of all
of them is one product with one large matrix.

Autocast does not see into an `autograd.Function`: its backward pass would get 16-bit gradients and
float32 weights. So inputs are cast before it, as autocast casts those of `nn.functional.linear`.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_autocast", "batch_linear", "linear", "stack"]


class _Stacked(torch.autograd.Function):
    """``[M, N, I], [M, O, I], [M, O] -> [M, N, O]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = torch.bmm(x, weight.mT)  # baddbmm with a broadcast bias takes 2.3 times as long
        return out if bias is None else out.add_(bias[:, None])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            torch.bmm(g, weight) if need_x else None,
            torch.bmm(g.mT, x) if need_weight else None,
            g.sum(1) if need_bias else None,
        )


class _Linear(torch.autograd.Function):
    """``torch.nn.functional.linear`` inside `torch.func.vmap`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Never differentiated here: autograd works on the stacks, outside the map."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        members = info.batch_size
        weight = stack(weight, in_dims[1], members)
        bias = None if bias is None else stack(bias, in_dims[2], members)
        if in_dims[0] is None:
            lead = x.shape[:-1]
            flat = nn.functional.linear(
                x, weight.flatten(0, 1), None if bias is None else bias.flatten()
            )
            return flat.view(*lead, members, weight.shape[1]), len(lead)
        x, weight, bias = as_autocast(x, weight, bias)
        x = x.movedim(in_dims[0], 0)
        lead = x.shape[1:-1]
        out: Tensor = _Stacked.apply(x.reshape(members, -1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return out.view(members, *lead, weight.shape[1]), 0


def stack(tensor: Tensor, dim: int | None, members: int) -> Tensor:
    """``[M, ...]``, of what a map handed over: mapped along ``dim``, or the same for all."""
    if dim is None:
        return tensor.expand(members, *tensor.shape)
    return tensor.movedim(dim, 0)


def as_autocast(first: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Tensors as autocast gives them to a product, if it is on; it leaves float64 alone."""
    kind = first.device.type
    if not torch.is_autocast_enabled(kind) or first.dtype == torch.float64:
        return first, *others
    dtype = torch.get_autocast_dtype(kind)
    return first.to(dtype), *(None if t is None else t.to(dtype) for t in others)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, inside a map as this file says."""
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def _forward(self: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, self.weight, self.bias)


def batch_linear(model: nn.Module) -> None:
    """Let the linear layers of ``model`` compute as this file says, when they run inside a map.

    Only exact classes: a subclass may mean something else.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
