"""What an optimizer refuses, with torch.optim's error types and the words its users search for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _get_capturable_supported_devices
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from steepest.errors import InputError, UnsupportedError
from steepest.optim._names import Face
from steepest.rules import DOMAINS, Rule, get
from steepest.rules import names as all_names

__all__ = [
    "check_gradients",
    "check_group",
    "check_loaded",
    "check_parameters",
    "check_running",
    "check_shape",
]


def check_group(face: Face, group: Mapping[str, Any], *, owner: str) -> None:
    """Raise `InputError` unless every value of a parameter group lies in its domain."""
    for key, names in face.keys.items():
        if key not in group:
            continue
        held = group[key]
        if len(names) > 1 and (isinstance(held, (str, Tensor)) or len(held) != len(names)):
            raise InputError(f"{owner}: {key} must be {len(names)} numbers, got {held!r}")
        for at, name in enumerate(names):
            value = held if len(names) == 1 else held[at]
            if value is None and name in (face.defaulted | face.precision):
                continue
            if name in face.words and not isinstance(value, str):
                _check_numbers(name, value, owner=owner)
                continue
            _check_value(face.rule, key, name, value, held, at=at)
    if "decay" in group and "decay" in face.rule.options:
        face.rule.check({"decay": group["decay"]})


def _check_numbers(name: str, value: Any, *, owner: str) -> None:
    """Three numbers in the place of a word."""
    fine = isinstance(value, (tuple, list)) and len(value) == 3
    if not fine or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in value):
        raise InputError(f"{owner}: {name} must be a word or 3 numbers, got {value!r}")


def _check_value(rule: Rule, key: str, name: str, value: Any, held: Any, *, at: int) -> None:
    if name in rule.options:
        try:
            rule.check({name: bool(value) if name not in rule.choices else value})
        except InputError as error:
            if name != "adjust_lr_fn":
                raise
            words = f"Adjust learning rate function {value} is not supported"  # torch's
            raise InputError(f"{words}; {error}") from None
        return
    if isinstance(value, Tensor):
        if value.numel() != 1:
            shown = key if key == name or key not in ("betas", "etas") else f"{key}[{at}]"
            raise InputError(f"Tensor {shown} must be 1-element, got shape {tuple(value.shape)}")
        value = value.item()
    try:
        DOMAINS[name].check(name, value, owner=rule.name)
    except InputError as error:
        raise InputError(f"{_torchs_words(key, value, held, at=at)}; {error}") from None


def _torchs_words(key: str, value: Any, held: Any, *, at: int) -> str:
    if key == "lr":
        return f"Invalid learning rate: {value}"
    if key == "eps" and not isinstance(held, (tuple, list)):
        return f"Invalid epsilon value: {value}"
    if key == "betas":
        return f"Invalid beta parameter at index {at}: {value}"
    if key == "etas":
        return f"Invalid eta values: {held[0]}, {held[1]}"
    if key in _TORCHS:
        return f"{_TORCHS[key][at]} but is: {value}"
    return f"Invalid {key} value: {value}"


_TORCHS = {
    "beta2_decay": ("beta2_decay should be <= 0",),
    "d": ("Clipping threshold d should be >= 1",),
    "eps": ("epsilon1 should be >= 0", "epsilon2 should be >= 0"),
}
"""How torch.optim.Adafactor says it."""


def check_parameters(params: Iterable[Any], *, owner: str) -> None:
    """Raise `InputError` for whole numbers, unless they are frozen weights of a module."""
    for p in params:
        tensor = p[1] if isinstance(p, tuple) else p
        if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.is_complex():
            continue
        if not isinstance(tensor, torch.nn.Parameter) or tensor.grad is not None:
            raise _whole_numbers(tensor, owner=owner)


def _whole_numbers(p: Tensor, *, owner: str) -> InputError:
    return InputError(
        f"{owner} can only optimize floating-point and complex parameters, got {p.dtype}; "
        "convert it with .float(), or leave it out"
    )


def check_running(values: Mapping[str, Any], *, owner: str) -> None:
    """Raise `InputError` for a hyperparameter that has become NaN."""
    for name, value in values.items():
        if isinstance(value, float) and math.isnan(value):
            raise InputError(
                f"{owner}: {name} is nan; nothing was changed. "
                "Look at what sets it: a schedule, or your own code"
            )


def check_gradients(
    group: Mapping[str, Any],
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    rule: Rule,
    owner: str,
    sparse: str,
) -> bool:
    """Raise unless the gradients fit their parameters and the group's flags fit both.

    Args:
        group: The parameter group.
        pairs: Its parameters that have a gradient, and the gradients.
        rule: The rule that they follow.
        owner: The optimizer's name.
        sparse: How the optimizer takes sparse gradients; empty if it does not.

    Returns:
        Whether some gradient is sparse.
    """
    some_sparse = False
    for p, g in pairs:
        if g.layout != torch.strided:
            _check_sparse(group, owner=owner, sparse=sparse)
            some_sparse = True
        if g.dtype != p.dtype or g.device != p.device or g.shape != p.shape:
            raise InputError(
                f"{owner}: a parameter is {_described(p)}, but its gradient is {_described(g)}; "
                "nothing was changed. Convert the gradient, or compute it again"
            )
        if not (p.is_floating_point() or p.is_complex()):
            raise _whole_numbers(p, owner=owner)
        if p.is_complex() and _sees_axes(rule):
            raise UnsupportedError(f"{owner} does not support complex parameters")
    if group.get("fused"):
        _check_devices("fused", pairs, _get_fused_kernels_supported_devices())
    if group.get("capturable"):
        _check_devices("capturable", pairs, _get_capturable_supported_devices())
    if group.get("foreach") and group.get("differentiable"):
        raise UnsupportedError("_foreach ops don't support autograd: pass foreach=False")
    return some_sparse


def _sees_axes(rule: Rule) -> bool:
    """Whether a pair of real numbers would be taken for one axis more."""
    return rule.kind == "matrix" or any(slot.only is not None for slot in rule.slots.values())


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)} on {x.device}"


def _check_sparse(group: Mapping[str, Any], *, owner: str, sparse: str) -> None:
    if not sparse:
        hint = ", please consider SparseAdam instead" if owner in ("Adam", "AdamW") else ""
        raise UnsupportedError(f"{owner} does not support sparse gradients{hint}")
    if group.get("fused"):
        raise UnsupportedError("`fused=True` does not support sparse gradients: pass fused=False")
    decay = group["weight_decay"]
    if isinstance(decay, Tensor) or decay != 0:
        raise UnsupportedError("weight_decay option is not compatible with sparse gradients")


def _check_devices(
    flag: str, pairs: Sequence[tuple[Tensor, Tensor]], devices: Sequence[str]
) -> None:
    for p, _ in pairs:
        if flag == "fused" and not p.is_floating_point():
            raise UnsupportedError(
                "`fused=True` requires all the params to be floating point Tensors of supported "
                f"devices: {devices} but {p.dtype} and {p.device.type}"
            )
        if p.device.type not in devices:
            raise UnsupportedError(
                f"If {flag}=True, params and state_steps must be on supported devices: "
                f"{devices}, but a parameter is on {p.device.type}; pass {flag}=False"
            )


def check_shape(state_dict: Any) -> None:
    """Raise `InputError` unless it looks like the state of an optimizer."""
    if (
        not isinstance(state_dict, Mapping)
        or not isinstance(state_dict.get("state"), Mapping)
        or not isinstance(state_dict.get("param_groups"), Sequence)
        or not all(isinstance(g, Mapping) and "params" in g for g in state_dict["param_groups"])
    ):
        keys = ", ".join(map(str, state_dict)) if isinstance(state_dict, Mapping) else ""
        raise InputError(
            "this is not the state of an optimizer: expected a dict with 'state' and "
            f"'param_groups', got {type(state_dict).__name__} {keys}; nothing was changed"
        )


def check_loaded(
    face: Face,
    at: int,
    group: Mapping[str, Any],
    state: Mapping[Any, Any],
    *,
    owner: str,
    has_step: bool,
    expected: Collection[str],
) -> None:
    """Raise `InputError` unless a loaded group and its state belong to this kind of optimizer."""
    missing = sorted(set(expected) - set(group))
    if missing:
        raise InputError(
            f"the loaded state is not one of {owner}: parameter group {at} has no "
            f"{', '.join(missing)}; nothing was changed. Load it into the optimizer that saved it"
        )
    check_group(face, group, owner=owner)
    for p in group["params"]:
        if state.get(p):
            _check_state(face.rule, p, state[p], owner=owner, has_step=has_step)


def _check_state(
    rule: Rule, p: Tensor, held: Mapping[str, Any], *, owner: str, has_step: bool
) -> None:
    wrong = "nothing was changed. The file is damaged, or saved by another optimizer or model"
    names = {name: slot for name, slot in rule.slots.items() if slot.exists_for(p.ndim)}
    needed = {name for name, slot in names.items() if slot.when is None} | (
        {"step"} if has_step else set()
    )
    elsewhere = {slot for other in map(get, all_names()) for slot in other.slots}
    foreign = set(held) & elsewhere - set(rule.slots)  # a user's own entries may be there too
    if foreign or not needed <= set(held):
        raise InputError(
            f"the loaded state is not one of {owner}: it has {', '.join(sorted(map(str, held)))} "
            f"where {', '.join(sorted(needed)) or 'nothing'} should be; {wrong}"
        )
    for name, slot in names.items():
        value = held.get(name)
        expected = slot.shape(tuple(p.shape))
        if isinstance(value, Tensor) and expected != () and tuple(value.shape) != expected:
            raise InputError(
                f"the loaded state does not fit: {name} has shape {tuple(value.shape)}, "
                f"expected {expected}; {wrong}"
            )
    step = held.get("step")
    if has_step and not (isinstance(step, (int, float)) and step >= 0):
        raise InputError(f"the loaded state does not fit: step is {step!r}; {wrong}")
