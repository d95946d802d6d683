"""One run, trained by itself: the plain loop, made repeatable.

What happens in step ``k`` is a function of the state before it and of (seed, k): the batch, the
dropout masks, every other random number. So a run can be cut anywhere and go on bitwise equal.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steepest.errors import InputError, SteepestError, TaskError
from steepest.optim.build import build, from_rule
from steepest.optim.routing import Routed
from steepest.train.allocator import keep_freed_memory
from steepest.train.checkpoint import RunState
from steepest.train.data import eval_batches, open_stream, tensors_of
from steepest.train.decay import spare_decay
from steepest.train.dropout import key_dropout
from steepest.train.guard import Guarded, GuardRule
from steepest.train.keyed import KEY, step_words
from steepest.train.precision import FLOAT32, Precision
from steepest.train.randomness import derive, isolated, run_key, seed_all
from steepest.train.standing import Standing
from steepest.train.strangers import asks_again, show_trained, showing_answer
from steepest.train.task import Task, build_model, hash_tensors

__all__ = [
    "Chunk",
    "OptimizerFactory",
    "Schedule",
    "SoloRun",
    "concatenate",
    "extra_state",
    "find_device",
    "make_optimizer",
    "model_state",
    "rate_of",
    "restore_optimizer",
]

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Schedule(Protocol):
    """What the learning rate is multiplied with: a function of the step."""

    def __call__(self, step: int, total: int, /) -> float:
        """The multiplier for step ``step`` (from 0) of ``total``."""
        ...


@dataclass(frozen=True)
class Chunk:
    """What happened in some consecutive steps.

    Attributes:
        first_step: Number of the first one, from 0.
        loss: Training loss of each step's batch, before its update.
        lr: Learning rate of the first parameter group in each step.
        seconds: How long they took.
        diverged_at: The step whose loss was not finite, or at which the guard ended the run, and
            whose update did not happen.
        reason: Why it ended there, in words.
    """

    first_step: int
    loss: NDArray[np.float32] = field(repr=False)
    lr: NDArray[np.float32] = field(repr=False)
    seconds: float
    diverged_at: int | None = None
    reason: str = ""


class SoloRun:
    """One run of a task, step by step.

    Args:
        task: What to train.
        optimizer: Makes the optimizer for the model's parameters.
        schedule: Multiplies every group's learning rate; None: leave it to the optimizer.
        seed: Start, order and noise are functions of it.
        steps: How long the whole run is; schedules need to know.
        batch_size: None: the task's.
        device: ``"cpu"`` or ``"cuda"``.
        guard: Ends the run when it blows up, and puts back the weights from before.
        precision: ``"float32"``, ``"tf32"`` or ``"bf16"``; see `steepest.train.precision`.

    Attributes:
        start_hash: sha256 over names, types, shapes and bytes of the initial parameters and
            buffers. Equal seeds give equal hashes, whatever the optimizer.
        position: Number of updates done.
        steps_per_epoch: Batches in an epoch.
        diverged_at: The step whose loss was not finite, or at which the guard ended the run; it
            does not go on.
        ended: It was ended with the weights of its best evaluation and does not go on.

    >>> task = Task(name="tiny", model=lambda: nn.Linear(8, 1), loss=nn.functional.mse_loss,
    ...             train=(torch.ones(64, 8), torch.ones(64, 1)))
    >>> run = SoloRun(task, optimizer=lambda p: torch.optim.SGD(p, lr=0.01), schedule=None,
    ...               seed=0, steps=20)
    >>> chunk = run.advance(20)
    >>> len(chunk.loss), run.position, bool(chunk.loss[-1] < chunk.loss[0])
    (20, 20, True)
    """

    def __init__(
        self,
        task: Task,
        *,
        optimizer: OptimizerFactory,
        schedule: Schedule | None,
        seed: int,
        steps: int,
        batch_size: int | None = None,
        device: str | torch.device = "cpu",
        guard: GuardRule | None = None,
        precision: str = FLOAT32,
    ) -> None:
        self.task = task
        self.seed = seed
        self.steps = steps
        self.schedule = schedule
        self.device = find_device(device)
        self.precision = Precision(precision, self.device)
        self.position = 0
        self.diverged_at: int | None = None
        self._guarded = None if guard is None else Guarded(guard)
        self._best: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self.ended = False
        if steps < 0:
            raise InputError(f"a run needs steps >= 0, got {steps}")
        keep_freed_memory()
        with isolated(self.device):
            self._stream = open_stream(
                task.train,
                seed=seed,
                batch_size=batch_size,
                default=task.batch_size,
                device=self.device,
                where=f"task '{task.name}': train",
            )
            if not task.checked:
                task.check(self._first_batch())
            self.model = build_model(task, seed)
            self.start_hash = hash_tensors(dict(model_state(self.model)))
            self.model.to(self.device)
            self._key = key_dropout(self.model)
            self._run_key = run_key(seed)
            seed_all(derive(seed, "optimizer"), self.device)
            self.optimizer = make_optimizer(
                optimizer,
                [(name, p) for name, p in self.model.named_parameters() if p.requires_grad],
            )
            spare_decay(self.optimizer, task.spared(self.model.named_parameters()))
            self.asks_again = asks_again(self.optimizer, optimizer)
        self.steps_per_epoch = self._stream.steps_per_epoch
        self._base_lr = [rate_of(group) for group in self.optimizer.param_groups]
        if schedule is not None and any(math.isnan(lr) for lr in self._base_lr):
            raise InputError(
                f"{type(self.optimizer).__name__} has no 'lr' in its parameter groups, so a "
                "schedule has nothing to multiply; leave the schedule out"
            )

    def _first_batch(self) -> Any:
        fresh = self._stream.digest
        batch = self._stream.batch(0)
        self._stream.restore(0, fresh)
        return batch

    @property
    def order_hash(self) -> str:
        """A hash over the numbers of the examples handed out so far (over the bytes of the batches
        where they come from a DataLoader).
        """
        return self._stream.digest.hex()

    def advance(self, n: int) -> Chunk:
        """Train ``n`` steps, or to the end of the run, or up to the first non-finite loss."""
        first = self.position
        over = self.ended or self.diverged_at is not None
        n = 0 if over else max(0, min(n, self.steps - first))
        losses, rates = np.zeros(n, np.float32), np.zeros(n, np.float32)
        done = 0
        begin = time.perf_counter()
        # a rate or a loss beyond float32 is recorded as infinite
        with isolated(self.device), self.precision.held(), np.errstate(over="ignore"):
            show_trained(self.optimizer)
            self.model.train()
            for k in range(first, first + n):
                rates[done] = self._set_rate(k)
                losses[done] = self._step(k)
                done += 1
                if self.diverged_at is not None:
                    break
                self.position = k + 1
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - begin
        reason = self._guarded.watch.reason if self._guarded is not None else ""
        return Chunk(first, losses[:done], rates[:done], seconds, self.diverged_at, reason)

    def _set_rate(self, step: int) -> float:
        groups = self.optimizer.param_groups
        if self.schedule is not None:
            factor = self.schedule(step, self.steps)
            for group, base in zip(groups, self._base_lr, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(base * factor)
                else:
                    group["lr"] = base * factor
        return rate_of(groups[0])

    def _ends(self, step: int, loss: float) -> bool:
        """Whether the run ends at this loss, before the step's update."""
        if self._guarded is None:
            ends = not math.isfinite(loss)
        else:
            own = dict(model_state(self.model))
            ends = self._guarded.see(step, loss, own)
            if ends:
                self._guarded.put_back(own)
        if ends:
            self.diverged_at = step
        return ends

    def _step(self, step: int) -> float:
        """One step; the loss before it. A step that ends the run does not update."""
        batch = self._stream.batch(step)
        noise = derive(self.seed, "noise", step)
        if self._key is not None:
            self._key.copy_(step_words(self._run_key, step))
        seed_all(noise, self.device)
        self.optimizer.zero_grad()
        loss, _ = self.precision.compute_loss(self.task, self.model, batch)
        if self.device.type == "cuda":
            # The host reads the loss while the device works on the backward pass, so the check
            # before the update is exact and costs no idle time.
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            number = loss.detach().to("cpu", non_blocking=True)
            ready.record()
            torch.autograd.backward(loss)
            ready.synchronize()
            value = float(number)
            if self._ends(step, value):
                return value
        else:
            value = loss.item()
            if self._ends(step, value):
                return value
            torch.autograd.backward(loss)
        if self.asks_again:
            self._step_closure(batch, noise)
        else:
            self.optimizer.step()
        return value

    def _step_closure(self, batch: Any, noise: int) -> None:
        """For optimizers that ask for the loss again; every asking meets the same noise."""

        def closure() -> Tensor:
            seed_all(noise, self.device)
            self.optimizer.zero_grad()
            loss, _ = self.precision.compute_loss(self.task, self.model, batch)
            torch.autograd.backward(loss)
            return loss.detach()

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, passes both

    def evaluate(
        self, split: Literal["train", "val", "test"], *, remember: bool = False
    ) -> dict[str, float]:
        """``{"loss": …, metric: …}`` over a whole split, in eval mode; training is not touched.

        The loss is the mean over the batches weighted by their examples.

        Args:
            split: Which one.
            remember: So that `keep_best` can keep what was looked at.
        """
        data = self.task.split(split)
        where = f"task '{self.task.name}': {split}"
        total, examples = 0.0, 0
        outputs, targets = [], []
        with isolated(self.device), self.precision.held(), self._evaluating(), torch.no_grad():
            seed_all(derive(self.seed, "evaluate"), self.device)
            for batch in eval_batches(
                data, batch_size=self.task.eval_batch_size, device=self.device, where=where
            ):
                loss, out = self.precision.compute_loss(self.task, self.model, batch)
                n = len(next(iter(tensors_of(batch[1]) or tensors_of(batch[0]))))
                total, examples = total + float(loss) * n, examples + n
                if self.task.metrics:
                    outputs.append(out)
                    targets.append(batch[1])
            if not examples:
                raise TaskError(f"{where} is empty: its DataLoader yields no batch")
            result = {"loss": total / examples}
            if self.task.metrics:
                result |= self.task.measure(concatenate(outputs), concatenate(targets))
            if remember:
                self._seen = {name: t.detach().clone() for name, t in model_state(self.model)}
        return result

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        shown = nullcontext() if self.ended else showing_answer(self.optimizer)
        with shown:
            self.model.eval()
            try:
                yield
            finally:
                self.model.train()

    def keep_best(self) -> None:
        """Keep the parameters and buffers as the last evaluation saw and remembered them."""
        self._best, self._seen = self._seen, {}

    def end_with_best(self) -> None:
        """End the run here, with what `keep_best` kept."""
        self.ended = True
        with torch.no_grad():
            for name, tensor in model_state(self.model):
                tensor.copy_(self._best[name])

    def weights(self) -> dict[str, Tensor]:
        """Copies of the named parameters, on the CPU."""
        with self._evaluating():
            return {
                name: p.detach().to("cpu", copy=True) for name, p in self.model.named_parameters()
            }

    def state(self) -> RunState:
        """Everything that `restore` needs, copied."""
        return Standing(
            seed=self.seed,
            steps=self.steps,
            position=self.position,
            diverged_at=self.diverged_at,
            order_hash=self.order_hash,
            start_hash=self.start_hash,
            base_lr=self._base_lr,
            model=dict(model_state(self.model)),
            extra=extra_state(self.model),
            optimizer=self.optimizer.state_dict(),
            guard=None if self._guarded is None else self._guarded.state(),
            best=self._best or None,
        ).pack()

    def restore(self, state: RunState) -> None:
        """Go to where ``state`` was taken, in a run of the same task, seed and length.

        Raises:
            InputError: If the state belongs to another run.
        """
        saved = Standing.unpack(state)
        saved.check_own(seed=self.seed, steps=self.steps, start_hash=self.start_hash)
        with torch.no_grad():
            for name, tensor in model_state(self.model):
                tensor.copy_(saved.model[name])
        for name, extra in saved.extra.items():
            self.model.get_submodule(name).set_extra_state(extra)
        restore_optimizer(self.optimizer, saved.optimizer)
        self._base_lr = list(saved.base_lr)
        self.position = saved.position
        self.diverged_at = saved.diverged_at
        handed = self.position + (self.diverged_at is not None)
        self._stream.restore(handed, bytes.fromhex(saved.order_hash))
        if self._guarded is not None:
            self._guarded.load_state(saved.guard)
        self._best = saved.best or {}


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load, then put every tensor back in the type and memory layout it had.

    ``load_state_dict`` casts state to the type of its parameter: a float32 slot of a
    bfloat16 parameter would lose its bits.
    """
    optimizer.load_state_dict(copy.deepcopy(saved))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, slots in saved["state"].items():
        if not isinstance(number, int) or not isinstance(slots, dict):
            continue
        p = parameters[number]
        live = optimizer.state[p]
        for name, value in slots.items():
            if not isinstance(value, Tensor) or not isinstance(live.get(name), Tensor):
                continue
            if value.shape == p.shape:
                live[name] = torch.empty_like(p, dtype=value.dtype).detach().copy_(value)
            elif value.dtype != live[name].dtype:
                live[name] = value.to(live[name].device, copy=True)


def model_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Named parameters and buffers, without the key of the dropout layers."""
    yield from model.named_parameters()
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] != KEY:
            yield name, buffer


def extra_state(model: nn.Module) -> dict[str, Any]:
    """What modules with ``get_extra_state`` keep beside parameters and buffers."""
    return {
        name: module.get_extra_state()
        for name, module in model.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name; `InputError` if there is none."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}; use 'cpu' or 'cuda'") from error
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu' or 'cuda', got {str(device)!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device 'cuda' was asked for, but this torch sees no CUDA device; use 'cpu'"
        )
    return found


def make_optimizer(
    factory: OptimizerFactory, named: Sequence[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """The factory's optimizer for some parameters; `InputError` if it makes none.

    Our rules for matrices are told the names, by which they know embeddings and the last layer.
    """
    given: Any = list(named) if _wants_names(factory) else [p for _, p in named]
    try:
        optimizer: object = factory(given)
    except SteepestError:
        raise
    except Exception as error:
        raise InputError(
            f"the optimizer could not be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            "an optimizer factory must return a torch.optim.Optimizer, got "
            f"{type(optimizer).__name__}"
        )
    return optimizer


def _wants_names(factory: OptimizerFactory) -> bool:
    made: Any = factory.func if isinstance(factory, functools.partial) else factory
    if made is build and isinstance(factory, functools.partial):
        made = from_rule(factory.args[0])
    return isinstance(made, type) and issubclass(made, Routed)


def rate_of(group: dict[str, Any]) -> float:
    """The learning rate of a parameter group; NaN where it has none."""
    return float(group.get("lr", math.nan))


def concatenate(parts: list[Any], *, dim: int = 0) -> Any:
    """Batches of outputs put together: tensors along a dimension, structure kept."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts, dim)
    if hasattr(first, "items"):
        return {name: concatenate([part[name] for part in parts], dim=dim) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(concatenate(list(column), dim=dim) for column in zip(*parts, strict=True))
    raise TaskError(
        f"the model's outputs must be tensors, or tuples or dicts of them, for metrics over a "
        f"whole split; got {type(first).__name__}"
    )
