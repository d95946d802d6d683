"""In which precision a run computes, whatever the process has set.

    float32    IEEE float32, in products of matrices and in convolutions
    tf32       float32, but CUDA's matrix units read 10 of the 23 bits of each factor's mantissa
    bf16       forward pass and loss under `torch.autocast`; parameters, gradients and the
               optimizer's slots stay float32, and outputs are float32 again before loss and metrics

torch keeps this in settings of the whole process, and they differ: by default, products of matrices
on CUDA are float32 and cuDNN's convolutions TF32. So the same race would be another one after a
user's line of code. There are two generations of these settings, and torch refuses to read the
older ones (as `torch.backends.cudnn.flags` and its compiler do) where they disagree with the newer
ones; here they are always set together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from steepest.errors import InputError, unknown_name

if TYPE_CHECKING:
    from steepest.train.data import Batch
    from steepest.train.task import Task

__all__ = ["FLOAT32", "Precision", "PrecisionName"]

PrecisionName = Literal["float32", "tf32", "bf16"]
FLOAT32: PrecisionName = "float32"
"""What a race that says nothing computes in."""

_CUDA: Any = torch.backends.cuda
_CUDNN: Any = torch.backends.cudnn
_ONEDNN: Any = torch.backends.mkldnn
_PRODUCTS = {
    "cuda": (_CUDNN, (_CUDA.matmul, _CUDNN.conv, _CUDNN.rnn)),
    "cpu": (_ONEDNN, (_ONEDNN.matmul, _ONEDNN.conv, _ONEDNN.rnn)),
}
"""By device: who has the setting for all its products, and who has those of each kind."""


@dataclass(frozen=True)
class Precision:
    """In which precision a run computes on its device; see `steepest.train.precision`.

    Attributes:
        name: ``float32``, ``tf32`` or ``bf16``.
        device: Where.

    Raises:
        InputError: If there is no such precision, or not on this device.

    >>> Precision("tf32", torch.device("cpu"))
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: precision 'tf32' is a format of CUDA's matrix units, and the device
    is 'cpu'; use 'float32' or 'bf16' here, or device 'cuda'
    """

    name: str
    device: torch.device

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.name not in get_args(PrecisionName):
            raise unknown_name("precision", str(self.name), get_args(PrecisionName))
        if self.name == "tf32" and self.device.type != "cuda":
            raise InputError(
                "precision 'tf32' is a format of CUDA's matrix units, and the device is "
                f"'{self.device}'; use 'float32' or 'bf16' here, or device 'cuda'"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whatever is multiplied inside has this precision; the user's settings come back.

        Around whole steps, backward pass and update included; autocast is for `compute_loss` alone.
        """
        kind = self.device.type
        wanted = "tf32" if self.name == "tf32" else "ieee"
        with _products(kind, wanted), torch.autocast(kind, enabled=False):
            yield

    def compute_loss(self, task: Task, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """`Task.compute_loss` in this precision: the loss, and outputs that metrics can read."""
        if self.name != "bf16":
            return task.compute_loss(model, batch)

        def widened(*args: Any, **kwargs: Any) -> Any:
            return _widen(model(*args, **kwargs))

        # A cache of the casts would outlive this context inside of another one, and with it the
        # update of the weights: the run would train on with those it began with.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False):
            loss, outputs = task.compute_loss(cast("nn.Module", widened), batch)
        return _widen(loss), outputs


def _widen(nested: Any) -> Any:
    """Tensors of bfloat16 as float32, in whatever they are packed."""
    return pytree.tree_map_only(
        Tensor, lambda t: t.float() if t.dtype == torch.bfloat16 else t, nested
    )


@contextmanager
def _products(kind: str, wanted: str) -> Iterator[None]:
    """Set what products of float32 are computed in; nothing is touched that is so already."""
    general, ops = _PRODUCTS[kind]
    fine = (wanted, "none") if wanted == "ieee" else (wanted,)  # none: nobody asked for less
    if all(op.fp32_precision in fine for op in ops):
        yield
    elif kind == "cpu":
        before = [_own(op, general) for op in ops]
        try:
            _set(ops, [wanted] * len(ops))
            yield
        finally:
            _set(ops, before)
    else:
        old = _CudaSettings.read()
        try:
            _CudaSettings.of(wanted).write()
            yield
        finally:
            old.write()


def _own(op: Any, general: Any) -> str:
    """What was set for this kind of product; none where it is what is set for all of them."""
    found: str = op.fp32_precision
    return "none" if found == general.fp32_precision else found


def _set(ops: Sequence[Any], values: Sequence[str]) -> None:
    with _allowed():
        for op, value in zip(ops, values, strict=True):
            op.fp32_precision = value


def _allowed() -> Any:
    """Whoever imports torch's own test suite forbids changes; its contexts, as this one, may."""
    return torch.backends.__allow_nonbracketed_mutation()  # type: ignore[attr-defined,unused-ignore]


@dataclass(frozen=True)
class _CudaSettings:
    """Torch's newer settings for CUDA, and the older ones that must agree with them.

    Attributes:
        products: Of matrices, convolutions, recurrent layers.
        on_cpu: Of matrices on the CPU: the older setting is one for both.
        matmul: The older setting for matrices.
        cudnn: The older one for everything in cuDNN.
    """

    products: tuple[str, ...]
    on_cpu: str
    matmul: str
    cudnn: bool

    @classmethod
    def of(cls, wanted: str) -> _CudaSettings:
        fast = wanted == "tf32"
        return cls((wanted,) * 3, wanted, "high" if fast else "highest", fast)

    @classmethod
    def read(cls) -> _CudaSettings:
        """What is set; the newer ones are others afterwards, so write them again."""
        general, ops = _PRODUCTS["cuda"]
        products = tuple(_own(op, general) for op in ops)
        on_cpu = _own(_ONEDNN.matmul, _ONEDNN)
        matmul, conv, rnn = ops
        with _unwarned():  # the older ones can be read only where the newer ones agree
            _set((matmul, _ONEDNN.matmul, conv, rnn), ("ieee", "ieee", "tf32", "tf32"))
            older = torch.get_float32_matmul_precision()
            try:
                cudnn = bool(_CUDNN.allow_tf32)
            except RuntimeError:  # it disagrees, so it is the other one
                cudnn = False
        return cls(products, on_cpu, older, cudnn)

    def write(self) -> None:
        # Untouched, cuDNN is TF32 in torch 2.13 unless something is set for everything; that cannot
        # be set again, so afterwards it is TF32, as after torch's own `cudnn.flags`.
        with _unwarned(), _allowed():
            torch.set_float32_matmul_precision(self.matmul)
            _CUDNN.allow_tf32 = self.cudnn
        _set((*_PRODUCTS["cuda"][1], _ONEDNN.matmul), (*self.products, self.on_cpu))


@contextmanager
def _unwarned() -> Iterator[None]:
    """Some versions of torch advise against the older settings; the user did not use them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Please use the new API settings")
        yield
