"""A range test of the objects of a training loop: model, optimizer, loader and loss as they are.

Everything that trains is a copy, so the user's objects are never written to; and whatever a copy
shares with them in spite of that (generators of random numbers, a loss that holds on to the
model) is put back, or the sweep says that it cannot be done.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from steepest.errors import InputError
from steepest.racing.plan import read_seeds
from steepest.sweeping.analysis import Floats
from steepest.sweeping.classical import analyse_growing, growing_rates
from steepest.sweeping.measure import Progress, has_blown
from steepest.sweeping.result import HIGH, LOW, Sweep, SweepSpec
from steepest.train.data import map_tensors
from steepest.train.randomness import derive, isolated, seed_all
from steepest.train.solo import rate_of
from steepest.train.task import call_model

__all__ = ["sweep_live"]

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_MOST = 100  # entries of a list that are looked through for generators


def sweep_live(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loader: Iterable[Any] | None,
    loss: Callable[[Any, Any], Tensor] | None,
    lr: tuple[float, float] | None,
    seeds: int | Sequence[int],
    steps: int,
    level: float,
    progress: Progress,
) -> Sweep:
    """Sweep live objects with a growing rate; see `steepest.sweep`."""
    _check(model, optimizer, loader, loss)
    low, high = lr or (LOW, HIGH)
    device = next(model.parameters()).device
    spec = SweepSpec(
        task=type(model).__name__,
        arm=type(optimizer).__name__,
        low=low,
        high=high,
        rates=steps,
        seeds=read_seeds(seeds),
        steps=steps,
        batch_size=getattr(loader, "batch_size", None),
        device=str(device),
        level=level,
    )
    begin = time.perf_counter()
    rates = growing_rates(low, high, steps)
    losses = np.full((len(spec.seeds), steps), np.nan)
    with isolated(device), _put_back(model, loader):
        for row, seed in enumerate(spec.seeds):
            done = row * steps
            _run(
                _copies(model, optimizer, loss),
                _batches(loader, seed, device),
                rates,
                losses[row],
                seed=seed,
                progress=lambda step, done=done: progress(done + step, losses.size),  # type: ignore[misc]
            )
    findings = analyse_growing(rates, losses, level=level)
    return Sweep(
        spec=spec,
        findings=findings,
        kind="growing",
        reason="on copies of the model and the optimizer as they are",
        seconds=time.perf_counter() - begin,
        steps_done=int(np.isfinite(losses).sum()),
    )


def _check(model: Any, optimizer: Any, loader: Any, loss: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            "a model that exists is swept with its own optimizer: "
            "steepest.sweep(model, optimizer, loader=..., loss=...); got "
            f"{type(optimizer).__name__} for the optimizer"
        )
    own = {id(p) for p in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(id(p) in own for p in held):
        raise InputError(
            "the optimizer holds none of the model's parameters; make it from model.parameters()"
        )
    if loader is None or loss is None:
        raise InputError(
            "a model that exists is swept with its data and its loss: "
            "steepest.sweep(model, optimizer, loader=train_loader, loss=F.cross_entropy)"
        )
    if not callable(loss):
        raise InputError(
            f"loss must be a function (outputs, targets) -> loss, got {type(loss).__name__}"
        )
    if not isinstance(loader, Iterable):
        raise InputError(f"loader must yield batches (x, y), got {type(loader).__name__}")
    if isinstance(loader, Iterator):
        raise InputError(
            "the loader can be read only once, so reading it would change it; give the DataLoader "
            "itself, or a list of batches"
        )
    if not rate_of(optimizer.param_groups[0]) > 0:
        raise InputError(
            f"{type(optimizer).__name__} has no learning rate above 0 in its first parameter "
            "group, so there is nothing to sweep"
        )


def _copies(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Any
) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """All three at once, so that the optimizer's copy holds the parameters of the model's copy."""
    try:
        copied: tuple[nn.Module, torch.optim.Optimizer, Any] = copy.deepcopy(
            (model, optimizer, loss)
        )
    except Exception as error:
        raise InputError(
            f"the model or the optimizer cannot be copied ({type(error).__name__}: {error}), and "
            "they are not trained themselves; sweep a steepest.Task instead, whose function makes "
            "new models"
        ) from error
    copied[0].train()
    return copied


def _batches(loader: Any, seed: int, device: torch.device) -> Iterator[Any]:
    """Batches without end, epoch after epoch, from a copy that shares nothing but the data."""
    seed_all(derive(seed, "sweep"), device)
    if isinstance(loader, DataLoader):
        memo: dict[int, Any] = {id(loader.dataset): loader.dataset}
        if (running := getattr(loader, "_iterator", None)) is not None:
            memo[id(running)] = None
        own: Any = copy.deepcopy(loader, memo)
        for generator in _generators(own):
            if isinstance(generator, torch.Generator):
                generator.manual_seed(derive(seed, "sweep"))
    elif isinstance(loader, (list, tuple)):
        own = loader
    else:
        own = copy.deepcopy(loader)
    while True:
        count = 0
        for batch in own:
            count += 1
            yield batch
        if not count:
            raise InputError("the loader yields no batch")


def _run(
    copies: tuple[nn.Module, torch.optim.Optimizer, Any],
    batches: Iterator[Any],
    rates: Floats,
    losses: Floats,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> None:
    model, optimizer, loss_of = copies
    device = next(model.parameters()).device
    shares = [rate_of(group) for group in optimizer.param_groups]
    shares = [share / shares[0] for share in shares]
    for step, rate in enumerate(rates):
        batch = next(batches)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(
                f"a batch must be a pair (x, y), got {type(batch).__name__}; wrap the loader so "
                "that it yields pairs, x being what the model is called with"
            )
        x, y = (map_tensors(lambda t: t.to(device), part) for part in batch)
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(float(rate) * share)
            else:
                group["lr"] = float(rate) * share
        seed_all(derive(seed, "noise", step), device)
        optimizer.zero_grad()
        loss = loss_of(call_model(model, x), y)
        losses[step] = float(loss.detach())
        progress(step + 1)
        if not np.isfinite(losses[step]) or has_blown(losses[: step + 1]):
            return
        loss.backward()
        optimizer.step()


@contextmanager
def _put_back(model: nn.Module, loader: Any) -> Iterator[None]:
    """Generators that the copies share go back to where they were, and so do gradients.

    A loss that holds on to the model itself would send its gradients there: that is found out,
    undone and refused.
    """
    generators = [(g, _state(g)) for g in _generators(loader)]
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    values = [(t, t.detach().clone()) for t in tensors]
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        yield
    finally:
        for generator, state in generators:
            _set_state(generator, state)
        touched = any(p.grad is not grad for p, grad in gradients)
        for p, grad in gradients:
            p.grad = grad
        for tensor, value in values:
            if not _same_bits(tensor, value):
                touched = True
                with torch.no_grad():
                    tensor.copy_(value)
    if touched:
        raise InputError(
            "the loss or the loader uses the model itself and not what it is called with, so a "
            "copy cannot be trained; let the loss be a function of (outputs, targets) alone, or "
            "sweep a steepest.Task"
        )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    one, other = (t.detach().contiguous().flatten().view(torch.uint8) for t in (a, b))
    return torch.equal(one, other)


def _generators(loader: Any) -> list[Any]:
    """Generators of random numbers that a loader, its samplers and its datasets keep."""
    found: list[Any] = []
    waiting, seen = [loader], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, _GENERATORS):
            found.append(thing)
        elif isinstance(thing, (list, tuple)):
            waiting += thing[:_MOST]
        elif not isinstance(thing, (Tensor, nn.Module, type, FunctionType, ModuleType)):
            parts = getattr(thing, "__dict__", {})
            waiting += [part for name, part in parts.items() if name != "_iterator"]
    return found


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state() if hasattr(generator, "get_state") else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.setstate(state)
