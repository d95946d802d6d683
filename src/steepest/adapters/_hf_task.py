"""A Trainer's setup as a task; imported when transformers is there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, default_data_collator

from steepest.adapters.hf import decay_names
from steepest.errors import InputError, TaskError
from steepest.train.randomness import derive, isolated, seed_all
from steepest.train.task import Metric, Task

__all__ = ["make_task"]

Collator = Callable[[list[Any]], Mapping[str, Any]]


class _Model(nn.Module):
    """The user's model, whose loss and logits come out as plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        found = self.model(**inputs)
        loss, logits = (found.get(key) for key in ("loss", "logits"))
        if loss is None:
            raise TaskError(
                f"{type(self.model).__name__} returned no loss; it was given {', '.join(inputs)}. "
                "Name the labels as its forward takes them: labels="
            )
        outputs = {"loss": loss.mean().reshape(1)}
        return outputs if logits is None else {**outputs, "logits": logits}


class _Loader:
    """Makes the DataLoader of a split; named by its content, which is what resuming compares."""

    def __init__(
        self, data: Any, size: int, collate: Callable[[list[Any]], Any], *, shuffle: bool
    ) -> None:
        self.make = functools.partial(
            DataLoader, data, batch_size=size, shuffle=shuffle, collate_fn=collate
        )
        ends = repr((len(data), data[0], data[len(data) - 1], size))
        self.__qualname__ = f"trainer-data:{sha256(ends.encode()).hexdigest()}"

    def __call__(self) -> DataLoader[Any]:
        return self.make()


def make_task(
    model_init: Callable[[], nn.Module],
    splits: Mapping[str, Any],
    *,
    name: str,
    sizes: tuple[int, int],
    collator: Collator | None,
    labels: str,
    metrics: Mapping[str, Any] | Sequence[str],
    compute_metrics: Callable[[Any], Mapping[str, float]] | None,
    describe: str,
) -> Task:
    """See `steepest.hf.task`."""
    for split, data in splits.items():
        if data is not None and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise TaskError(
                f"task '{name}': {split} must be a dataset of dicts with a length, got "
                f"{type(data).__name__}; a stream has no epochs"
            )
    cpu = torch.device("cpu")
    with isolated(cpu):
        seed_all(derive(0, "init"), cpu)
        model = model_init()
    accepted = inspect.signature(model.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    known = set(accepted) | {labels, "label", "label_ids"}
    decaying = decay_names(model)

    def collate(examples: list[Any]) -> tuple[dict[str, Any], Any]:
        if not takes_any or collator is None:
            examples = [{k: v for k, v in one.items() if k in known} for one in examples]
        batch = dict((collator or default_data_collator)(examples))
        if labels not in batch:
            raise TaskError(
                f"task '{name}': a batch has no '{labels}', only {', '.join(batch)}; say "
                "labels= what they are called"
            )
        return batch, batch[labels]

    @functools.wraps(model_init)
    def make() -> nn.Module:
        return _Model(model_init())

    def spared(parameter: str, _: nn.Parameter) -> bool:
        return parameter.removeprefix("model.") not in decaying

    train_size, eval_size = sizes
    loaders = {
        split: _Loader(
            data, train_size if split == "train" else eval_size, collate, shuffle=split == "train"
        )
        for split, data in splits.items()
        if data is not None
    }
    return Task(
        name=name,
        model=make,
        loss=_loss,
        train=loaders["train"],
        val=loaders.get("val"),
        test=loaders.get("test"),
        metrics=_metrics(metrics, compute_metrics),
        batch_size=train_size,
        eval_batch_size=eval_size,
        describe=describe,
        no_decay=spared,
    )


def _loss(outputs: Mapping[str, Tensor], _: Any) -> Tensor:
    return outputs["loss"].mean()


def _metrics(
    wanted: Mapping[str, Any] | Sequence[str], compute: Callable[[Any], Mapping[str, float]] | None
) -> dict[str, Metric]:
    if isinstance(wanted, Mapping):
        found = {}
        for name, given in wanted.items():
            metric = given if isinstance(given, Metric) else Metric(given)
            found[name] = Metric(_of_logits(metric.fn), metric.higher_is_better)
        return found
    if wanted and compute is None:
        raise InputError(
            f"metrics={list(wanted)} are names of what compute_metrics returns: give "
            "compute_metrics= too, or functions: metrics={'accuracy': fn}"
        )
    if compute is not None and not wanted:
        raise InputError("say which of the numbers of compute_metrics to take: metrics=['f1']")
    return {name: Metric(_computed(name, compute)) for name in wanted}


def _of_logits(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(fn)
    def metric(outputs: Mapping[str, Tensor], targets: Tensor) -> Any:
        return fn(outputs["logits"], targets)

    return metric


def _computed(name: str, compute: Any) -> Callable[[Any, Any], Any]:
    @functools.wraps(compute)
    def metric(outputs: Mapping[str, Tensor], targets: Tensor) -> Any:
        seen = EvalPrediction(
            predictions=outputs["logits"].numpy(force=True), label_ids=targets.numpy(force=True)
        )
        return compute(seen)[name]

    return metric
