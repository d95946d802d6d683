"""Batch norm: its statistics measured again for changed weights, and its layers really frozen.

Batch norm keeps a running mean and variance of what it sees while it is trained. They belong to the
weights that produced them: an average of weights has seen nothing yet, and a model that is
fine-tuned on another kind of data slowly forgets them unless it is kept from doing so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steepest.errors import InputError, TaskError
from steepest.train.data import tensors_of
from steepest.train.task import call_model

__all__ = ["batch_norms", "freeze_batch_norm", "recompute_batch_norm"]


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers of batch norm that keep running statistics, by name.

    >>> list(batch_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['1']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@torch.no_grad()
def recompute_batch_norm(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> int:
    r"""Measure the running statistics of batch norm afresh, for the weights as they are now.

    With :math:`n_k` examples in batch k, every statistic becomes the mean over batches weighted
    by their sizes, :math:`\sum_k n_k s_k / \sum_k n_k`; of `torch.optim.swa_utils.update_bn`, which
    counts every batch alike, it is the same for equal batches.

    Layers that are frozen (in eval mode in a model that is in train mode, as `freeze_batch_norm`
    leaves them) keep what they have. Momenta, every module's own train or eval mode and
    torch's generators are afterwards what they were, also if the model raises. Only batch norm
    is put into train mode, so dropout stays off and nothing random happens.

    Args:
        model: Whose layers are measured.
        batches: Batches of inputs: a tensor (``model(x)``), a dict (``model(**x)``), a tuple or a
            list (``model(*x)``); or whatever ``forward`` understands.
        forward: ``(model, batch)``: how a batch is put through the model, for example
            ``lambda model, batch: model(batch[0])`` for a loader of pairs.

    Returns:
        How many layers were measured; a model without batch norm is not run at all.

    Raises:
        InputError: If there is no batch, or a batch holds no tensor.
        TaskError: If the model raises; every layer then has the statistics that it had.

    >>> model = nn.BatchNorm1d(1)
    >>> recompute_batch_norm(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[8.0]] * 2)])
    1
    >>> model.running_mean, model.momentum
    (tensor([5.]), 0.1)
    """
    layers = {
        name: layer
        for name, layer in batch_norms(model).items()
        if not isinstance(layer, _Frozen) and (layer.training or not model.training)
    }
    if not layers:
        return 0
    run = forward or call_model
    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in layers.values()}
    kept = {layer: _statistics(layer) for layer in layers.values()}
    seen = 0
    try:
        for module in modes:
            module.training = False
        for layer in layers.values():
            layer.reset_running_stats()
            layer.training = True
        for batch in batches:
            examples = _examples(batch)
            seen += examples
            for layer in layers.values():
                layer.momentum = examples / seen
            run(model, batch)
        if not seen:
            raise InputError(  # noqa: TRY301 – what was measured must be undone here too
                "batch norm cannot be measured without data: there was no batch; give an iterable "
                "that yields at least one (a generator can be read only once)"
            )
    except Exception as error:
        for layer, statistics in kept.items():
            for name, value in statistics.items():
                getattr(layer, name).copy_(value)
        if isinstance(error, (InputError, torch.OutOfMemoryError)):
            raise
        first = str(error).strip().split("\n")[0]
        raise TaskError(
            "measuring batch norm, the model raised "
            f"{type(error).__name__}: {first}; tensors are given as model(x), dicts as model(**x), "
            "tuples and lists as model(*x); for another kind of batch, or one that holds targets, "
            "say forward=lambda model, batch: ..."
        ) from error
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(layers)


def _statistics(layer: _BatchNorm) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)}


def _examples(batch: Any) -> int:
    tensors = [tensor for tensor in tensors_of(batch) if tensor.dim()]
    if not tensors:
        raise InputError(
            f"a batch must be a tensor, or a dict or tuple of tensors, got {type(batch).__name__}"
        )
    return len(tensors[0])


def freeze_batch_norm(model: nn.Module) -> list[str]:
    """Keep every layer of batch norm as it is, whatever is done with the model around it.

    Its weight and bias no longer ask for gradients; its running statistics are used instead of
    the batch's and never change, also after ``model.train()``, which only switches the rest.

    Returns:
        Names of the layers; empty for a model without batch norm.

    >>> model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    >>> freeze_batch_norm(model)
    ['0']
    >>> model.train()[0].training, model[1].training
    (False, True)
    """
    layers = batch_norms(model)
    for layer in layers.values():
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
        layer.__class__ = _frozen(type(layer))
        layer.training = False
    return list(layers)


_FROZEN: dict[type[_BatchNorm], type[_BatchNorm]] = {}


def _frozen(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """The class of layers that stay in eval mode; one per class, so that models compare equal.

    A class and not a method of the object: deep copies, `torch.func.functional_call` and
    ``model.train()`` all go through it.
    """
    if issubclass(kind, _Frozen):
        return kind
    if kind not in _FROZEN:
        _FROZEN[kind] = type(f"Frozen{kind.__name__}", (_Frozen, kind), {})
    return _FROZEN[kind]


class _Frozen:
    """What makes a layer deaf to ``train()``."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        self.training = False
        return self

    def __reduce__(self) -> Any:
        """Classes made on the fly have no name to be found by: name the one they stand on."""
        return _empty, (type(self).__mro__[2],), self.__dict__


def _empty(kind: type[_BatchNorm]) -> _BatchNorm:
    frozen = _frozen(kind)
    return frozen.__new__(frozen)
