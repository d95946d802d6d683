"""What is trained: a model factory, data, a loss, metrics."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from steepest.errors import SteepestError, TaskError
from steepest.train.data import Batch, Data, Opens, check_data, map_tensors, sample, tensors_of
from steepest.train.decay import NoDecay
from steepest.train.randomness import derive, isolated, seed_all

__all__ = ["Metric", "Task", "build_model", "call_model", "hash_tensors", "part_name"]

_CHECKED: weakref.WeakSet[Task] = weakref.WeakSet()
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is.

    Attributes:
        fn: ``(outputs, targets) -> float`` over a whole split, not per batch.
        higher_is_better: False for errors and perplexities.
    """

    fn: Callable[[Any, Any], Any]
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is trained.

    Attributes:
        name: What tables and folders call it.
        model: ``() -> nn.Module``: a freshly initialised model at every call. It is called
            under the run's seed, so it draws its weights from torch's global generator as usual.
        loss: ``(outputs, targets) -> scalar``, the mean over the batch.
        train: ``(x, y)`` tensors, a map-style Dataset, or a function that returns a DataLoader.
            ``x`` may be a tensor (``model(x)``), a tuple (``model(*x)``) or a dict
            (``model(**x)``).
        val: Held-out data for choices.
        test: Held-out data for the verdict.
        metrics: Name to `Metric`, or to a plain function where higher is better. The first one
            decides races; without metrics the loss does.
        batch_size: Examples per training step, unless a race says otherwise. The last, incomplete
            batch of a training epoch is dropped; evaluations read every example.
        eval_batch_size: Examples per forward pass of an evaluation.
        describe: One line for reports.
        no_decay: ``(name, parameter) -> bool``: parameters that no arm is to decay, for example
            `steepest.train.decay.vectors` (biases and gains). None: an optimizer decays what it
            decays.
        notes: What a person should know before a race: columns that were guessed, duplicates.
        expected_initial_loss: What the loss should be before any step, where no theory says so
            (for a softmax over C classes it is log C); `steepest.recipe` looks whether it is.

    >>> x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    >>> task = Task(name="tiny", model=lambda: nn.Linear(8, 3),
    ...             loss=nn.functional.cross_entropy, train=(x, y))
    >>> task.primary
    ('loss', False)
    >>> Task(name="tiny", model=lambda: nn.Linear(8, 3), loss=nn.functional.cross_entropy,
    ...      train=(x, y[:60]))
    Traceback (most recent call last):
        ...
    steepest.errors.TaskError: task 'tiny': train: inputs and targets must have equally many
    examples; x has 64, y has 60
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    train: Data
    val: Data | None = None
    test: Data | None = None
    metrics: Mapping[str, Metric | Callable[[Any, Any], Any]] = field(default_factory=dict)
    batch_size: int = 32
    eval_batch_size: int = 1000
    describe: str = ""
    expected_initial_loss: float | None = None
    no_decay: NoDecay | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no engine could train, before anything is spent on it."""
        name: object = self.name
        if not isinstance(name, str) or not name:
            raise TaskError(f"a task's name must be a non-empty string, got {self.name!r}")
        here = f"task '{self.name}'"
        if isinstance(self.model, nn.Module):
            raise TaskError(
                f"{here}: model is an nn.Module; give a function that makes a new one "
                "(model=make_model, not model=make_model()), so that every run starts afresh"
            )
        for attribute in ("model", "loss", "no_decay"):
            value = getattr(self, attribute)
            if not callable(value) and not (attribute == "no_decay" and value is None):
                raise TaskError(
                    f"{here}: {attribute} must be a function, got {type(value).__name__}"
                )
        for attribute in ("batch_size", "eval_batch_size"):
            value = getattr(self, attribute)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TaskError(f"{here}: {attribute} must be an integer >= 1, got {value!r}")
        first: object = self.expected_initial_loss
        if first is not None and not (isinstance(first, (int, float)) and math.isfinite(first)):
            raise TaskError(
                f"{here}: expected_initial_loss must be a finite number or None, got {first!r}"
            )
        for split in _SPLITS:
            data = getattr(self, split)
            if data is not None or split == "train":
                check_data(data, where=f"{here}: {split}")
        metrics: object = self.metrics
        if not isinstance(metrics, Mapping):
            raise TaskError(
                f"{here}: metrics must be a dict of name to function, got {type(metrics).__name__}"
            )
        wrapped: dict[str, Metric] = {}
        for name, metric in metrics.items():
            if name == "loss":
                raise TaskError(f"{here}: 'loss' is always measured; name the metric otherwise")
            fn = metric.fn if isinstance(metric, Metric) else metric
            if not isinstance(name, str) or not callable(fn):
                raise TaskError(
                    f"{here}: metric {name!r} must be a function (outputs, targets) -> float, got "
                    f"{type(fn).__name__}"
                )
            wrapped[name] = metric if isinstance(metric, Metric) else Metric(metric)
        object.__setattr__(self, "metrics", wrapped)

    @property
    def primary(self) -> tuple[str, bool]:
        """The name of what decides, and whether higher is better: the first metric, or the loss."""
        for name, metric in self._metrics.items():
            return name, metric.higher_is_better
        return "loss", False

    @property
    def _metrics(self) -> dict[str, Metric]:
        return cast("dict[str, Metric]", self.metrics)

    def split(self, name: str) -> Data:
        """The data of ``"train"``, ``"val"`` or ``"test"``; `TaskError` if the task has none."""
        if name not in _SPLITS:
            raise TaskError(f"a split is one of {', '.join(_SPLITS)}; got {name!r}")
        data: Data | None = getattr(self, name)
        if data is None:
            raise TaskError(f"task '{self.name}' has no {name} data; give {name}=(x, y)")
        return data

    def spared(self, named: Iterable[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
        """Of these parameters, those that no optimizer is to decay."""
        return [] if self.no_decay is None else [p for n, p in named if self.no_decay(n, p)]

    def measure(self, outputs: Any, targets: Any) -> dict[str, float]:
        """Every metric over a whole split's outputs and targets."""
        result: dict[str, float] = {}
        for name, metric in self._metrics.items():
            try:
                value = metric.fn(outputs, targets)
            except Exception as error:
                raise TaskError(
                    f"task '{self.name}': metric '{name}' raised {_say(error)}; outputs were "
                    f"{_shapes(outputs)}, targets {_shapes(targets)}"
                ) from error
            try:
                result[name] = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TaskError(
                    f"task '{self.name}': metric '{name}' must return one number, got "
                    f"{_describe(value)}"
                ) from error
        return result

    def compute_loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """The loss of a batch and the outputs; what user code raises: `TaskError`."""
        x, y = batch
        try:
            outputs = call_model(model, x)
        except (SteepestError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise TaskError(
                f"task '{self.name}': the model raised {_say(error)}; inputs were {_shapes(x)}"
            ) from error
        try:
            return self.loss(outputs, y), outputs
        except (SteepestError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise TaskError(
                f"task '{self.name}': the loss raised {_say(error)}; the model's outputs were "
                f"{_shapes(outputs)}, the targets {_shapes(y)}"
            ) from error

    @property
    def checked(self) -> bool:
        """Whether `check` has passed in this process."""
        return self in _CHECKED

    def check(self, batch: Batch) -> None:
        """Try everything once on throw-away models, so that a mistake costs no training.

        Two models are made (are they two, and independent?), one batch goes forward and
        backward, each metric is asked about some evenly spread examples. A task object is
        checked once per process; nothing of the caller's random state changes.

        Raises:
            TaskError: With what came, what was expected and what to do.
        """
        if self.checked:
            return
        device = next((t.device for t in tensors_of(batch)), torch.device("cpu"))
        with isolated(device):
            model, other = build_model(self, 0), build_model(self, 1)
            if model is other:
                raise TaskError(
                    f"task '{self.name}': the model factory returned the same object twice; it "
                    "must build a new model at every call (move the constructor into the function)"
                )
            self._check_independent(model, other)
            self._check_loss(model.to(device).train(), batch)
            if self.metrics:
                self._check_metrics(model.eval(), device)
        _CHECKED.add(self)

    def _check_independent(self, model: nn.Module, other: nn.Module) -> None:
        if not any(p.requires_grad for p in model.parameters()):
            raise TaskError(f"task '{self.name}': the model has no parameter that can be trained")
        mine = {
            t.untyped_storage().data_ptr(): name
            for name, t in _named_state(model)
            if t.numel() and not t.is_meta
        }
        for name, tensor in _named_state(other):
            if tensor.untyped_storage().data_ptr() in mine:
                raise TaskError(
                    f"task '{self.name}': two models made by the factory share the memory of "
                    f"'{name}', so one run would start from another's weights; make every layer "
                    "inside the function, or copy it with copy.deepcopy"
                )

    def _check_loss(self, model: nn.Module, batch: Batch) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result, outputs = self.compute_loss(model, batch)
        loss: object = result
        here, shapes = f"task '{self.name}'", f"{_shapes(outputs)}, targets {_shapes(batch[1])}"
        if any("Using a target size" in str(w.message) for w in caught):
            raise TaskError(
                f"{here}: outputs and targets differ in shape and would be broadcast: outputs "
                f"{shapes}; make them equal (often y[:, None] or outputs.squeeze(-1))"
            )
        if not isinstance(loss, Tensor) or loss.dim() > 0 or loss.is_complex():
            raise TaskError(
                f"{here}: the loss must be one real number (a 0-d tensor), got {_describe(loss)}; "
                "take .mean()"
            )
        if not loss.requires_grad:
            raise TaskError(
                f"{here}: the loss does not depend on the model's parameters (it has no "
                "gradient); leave out .item(), .detach() and torch.no_grad() on the way to it"
            )
        try:
            torch.autograd.backward(result)
        except RuntimeError as error:
            raise TaskError(f"{here}: the backward pass raised {_say(error)}") from error

    def _check_metrics(self, model: nn.Module, device: torch.device) -> None:
        name = next(s for s in ("val", "test", "train") if getattr(self, s) is not None)
        where = f"task '{self.name}': {name}"
        seed_all(0, device)
        x, y = sample(self.split(name), self.eval_batch_size, where=where)
        x, y = (map_tensors(lambda t: t.to(device), part) for part in (x, y))
        with torch.no_grad():
            _, outputs = self.compute_loss(model, (x, y))
        self.measure(outputs, y)

    @cached_property
    def _fingerprint(self) -> dict[str, str]:
        with isolated(torch.device("cpu")):
            model = build_model(self, 0)
        shapes = [(name, tuple(t.shape), str(t.dtype)) for name, t in _named_state(model)]
        return {
            "name": self.name,
            "model": _hash(repr(model), repr(shapes)),
            "model_source": _source(self.model),
            "loss": _source(self.loss),
            "metrics": _hash(*(f"{k}:{_source(m.fn)}" for k, m in self._metrics.items()))
            if self.metrics
            else "",
            "batch_size": str(self.batch_size),
            **({"no_decay": _source(self.no_decay)} if self.no_decay else {}),
            **{s: _hash_data(getattr(self, s)) for s in _SPLITS},
        }

    def fingerprint(self) -> dict[str, str]:
        """What tells this task from a changed one: hashes of data, model, and source code.

        Tensors are hashed whole; of a Dataset its class, length, first and last example; of a
        DataLoader factory its source code. Resuming compares the entries one by one.
        """
        return dict(self._fingerprint)


def part_name(part: str) -> str:
    """How messages call a part of a task, or an entry of its fingerprint.

    >>> part_name("train"), part_name("batch_size")
    ('the training data', 'its batch_size')
    """
    words = {
        "train": "the training data",
        "val": "the validation data",
        "test": "the test data",
        "model": "the model",
        "model_source": "the code of the model factory",
        "loss": "the loss",
        "metrics": "the metrics",
        "no_decay": "what is not decayed",
    }
    return words.get(part, f"its {part}")


def call_model(model: nn.Module, x: Any) -> Any:
    """``model(x)``, ``model(*x)`` for a tuple, ``model(**x)`` for a dict."""
    if isinstance(x, Tensor):
        return model(x)
    if isinstance(x, Mapping):
        return model(**x)
    if isinstance(x, (tuple, list)):
        return model(*x)
    return model(x)


def build_model(task: Task, seed: int) -> nn.Module:
    """The model that a run with this seed starts from, in train mode; a function of the seed."""
    cpu = torch.device("cpu")
    with isolated(cpu):
        seed_all(derive(seed, "init"), cpu)
        try:
            model = task.model()
        except SteepestError:
            raise
        except Exception as error:
            raise TaskError(
                f"task '{task.name}': the model factory raised {_say(error)}"
            ) from error
    if not isinstance(model, nn.Module):
        raise TaskError(
            f"task '{task.name}': the model factory must return an nn.Module, got "
            f"{type(model).__name__}" + ("; it lacks a return" if model is None else "")
        )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TaskError(
                f"task '{task.name}': parameter '{name}' has no shape yet (a lazy layer); run a "
                "batch through the model inside the factory, or state the sizes"
            )
    return model.train()


def _named_state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def hash_tensors(named: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in named.items():
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _hash_data(data: Data | None) -> str:
    if data is None:
        return ""
    if isinstance(data, (tuple, list)):
        return hash_tensors({str(i): t for i, t in enumerate(tensors_of(data))})
    if isinstance(data, Opens):
        return hash_tensors({str(i): t for i, t in enumerate(data.tensors())})
    if callable(data) and not hasattr(data, "__getitem__"):
        return _source(data)
    dataset: Any = data
    with isolated(torch.device("cpu")):
        seed_all(0, torch.device("cpu"))
        ends = tensors_of((dataset[0], dataset[len(dataset) - 1]))
    return _hash(
        type(dataset).__qualname__,
        str(len(dataset)),
        hash_tensors({str(i): t for i, t in enumerate(ends)}),
    )


def _source(fn: Any) -> str:
    """A hash of the source code; the qualified name where there is none to read."""
    if isinstance(fn, functools.partial):
        args = tuple(map(_without_address, fn.args))
        keywords = sorted((name, _without_address(value)) for name, value in fn.keywords.items())
        return _hash(_source(fn.func), repr(args), repr(keywords))
    try:
        return _hash(inspect.getsource(inspect.unwrap(fn)))
    except (TypeError, OSError):
        module = str(getattr(fn, "__module__", "")).replace("__mp_main__", "__main__")
        return f"{module}.{getattr(fn, '__qualname__', type(fn).__name__)}"


def _without_address(value: Any) -> Any:
    """What is written of it: of functions and classes their source, since repr says where in the
    memory of this process they are, or how the script is called in it.
    """
    return _source(value) if inspect.isroutine(value) or isinstance(value, type) else value


def _say(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shapes(nested: Any) -> str:
    if isinstance(nested, Tensor):
        return f"{str(nested.dtype).removeprefix('torch.')}{list(nested.shape)}"
    if isinstance(nested, Mapping):
        return "{" + ", ".join(f"{k}: {_shapes(v)}" for k, v in nested.items()) + "}"
    if isinstance(nested, (tuple, list)):
        return "(" + ", ".join(map(_shapes, nested)) + ")"
    return type(nested).__name__


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {_shapes(value)}"
    return "nan" if isinstance(value, float) and math.isnan(value) else f"{value!r:.60}"
