"""The rules in the Trainer of Hugging Face's transformers, and its setups as tasks to race.

Needs ``pip install "steepest[hf]"``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from steepest.errors import InputError
from steepest.extras import need
from steepest.optim import build, from_rule
from steepest.optim._names import face_of
from steepest.racing.arm import parse
from steepest.rules import Rule, get
from steepest.train.lr_adapter import to_lambda_lr

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from steepest.adapters._hf_callback import LedgerCallback
    from steepest.train.task import Task

__all__ = ["LedgerCallback", "optimizer_cls_and_kwargs", "optimizers", "task"]

_FROM_ARGUMENTS = {
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
}
"""What TrainingArguments calls hyperparameters of the rules."""


def __getattr__(name: str) -> Any:
    if name != "LedgerCallback":
        raise AttributeError(f"module 'steepest.hf' has no attribute '{name}'")
    need("transformers", extra="hf")
    from steepest.adapters._hf_callback import LedgerCallback

    return LedgerCallback


def optimizer_cls_and_kwargs(
    rule: str, args: TrainingArguments | None = None, **values: Any
) -> tuple[Any, dict[str, Any]]:
    """What ``Trainer(optimizer_cls_and_kwargs=...)`` takes: a rule, and its values.

    The Trainer makes the parameter groups: weight decay is ``TrainingArguments(weight_decay=...)``,
    and biases and norms have none.

    Args:
        rule: A rule's name, with modifiers if wanted: ``"nadam"``, ``"cautious(adamw)"``.
        args: The Trainer's arguments: ``learning_rate``, and ``adam_beta1``, ``adam_beta2`` and
            ``adam_epsilon`` where they were set, are the rule's. Rules for matrices need it.
        values: Hyperparameters and options under torch's names (``betas``) or the rule's
            (``beta1``); they go before what ``args`` says.

    Returns:
        A `torch.optim.Optimizer` class and its keyword arguments. For rules for matrices, which
        have to know the parameters' names, and for options that torch.optim has no name for,
        what transformers calls a factory, and its arguments.

    Raises:
        InputError: For an unknown name or a value that cannot be, or if transformers is not
            installed.

    >>> cls, kwargs = optimizer_cls_and_kwargs("nadam", lr=1e-3, beta1=0.8)
    >>> cls.__name__, kwargs
    ('NAdam', {'lr': 0.001, 'betas': (0.8, 0.999)})
    """
    need("transformers", extra="hf")
    chosen = get(rule)
    if "weight_decay" in values:
        raise InputError(
            "the Trainer gives every parameter group its weight decay: say "
            f"TrainingArguments(weight_decay={values['weight_decay']}) instead"
        )
    given = {**_from_arguments(chosen, args), **values}
    build(rule, [nn.Parameter(torch.zeros(4, 4))], **given)  # refuses what cannot be
    cls = from_rule(rule)
    signature = inspect.signature(cls).parameters
    keys = {key: p.default for key, p in signature.items() if key not in ("params", "engine")}
    known = {**keys, **dict.fromkeys(chosen.options)}
    entries = face_of(chosen).entries(given, keys=known)
    if chosen.kind != "matrix" and entries.keys() <= signature.keys():
        return cls, entries
    if args is None and chosen.kind == "matrix":
        raise InputError(
            f"{rule} has to know the parameters' names, so it makes the groups itself: hand it the "
            "Trainer's arguments too, optimizer_cls_and_kwargs(rule, args, ...)"
        )
    decay = args.weight_decay if args is not None else 0.0
    return _Factory, {"rule": rule, "weight_decay": decay, "values": given}


class _Factory:
    """Called with the model: the optimizer over its named parameters, in the usual groups."""

    def __call__(
        self, model: nn.Module, *, rule: str, weight_decay: float, values: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        return build(rule, _groups(model, weight_decay), **values)


def optimizers(
    model: nn.Module, arm: str, args: TrainingArguments, *, steps: int | None = None
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR | None]:
    """What ``Trainer(optimizers=...)`` takes: an optimizer and its schedule, written as an arm.

    The groups are the Trainer's: ``args.weight_decay`` for what decays, none for biases and norms.

    Args:
        model: The model that the Trainer is given.
        arm: As in a race: ``"adamw(beta1=0.8) + cosine(warmup=0.05)"``, ``"nadam"``,
            ``"package.module:Class(lr=1e-3)"``. What is not written there is taken from ``args``,
            as in `optimizer_cls_and_kwargs`.
        args: The Trainer's arguments.
        steps: Optimizer steps of the whole run, for the schedule. Default: ``args.max_steps``.

    Returns:
        The optimizer, and the schedule; None for an arm without one, and the Trainer then makes
        the one of ``args.lr_scheduler_type``.

    Raises:
        InputError: For an arm that cannot be read or built, or a schedule whose length is not
            known.
    """
    need("transformers", extra="hf")
    bare = "(" not in arm.partition("+")[0] and ":" not in arm
    head, plus, schedule = arm.partition("+")
    read = parse(f"{head.strip()}()" + (f" + {schedule}" if plus else "") if bare else arm)
    if read.kind == "rule":
        chosen = get(read.name)
        values = {**_from_arguments(chosen, args), **read.values}
        if args.weight_decay and "weight_decay" not in chosen.hyperparameters:
            raise InputError(
                f"{chosen.name} has no weight decay, and TrainingArguments says "
                f"weight_decay={args.weight_decay}"
            )
        decay = float(values.pop("weight_decay", args.weight_decay))
        made: torch.optim.Optimizer = build(read.name, _groups(model, decay), **values)
    else:
        values = {"lr": args.learning_rate, **read.values}
        decay = float(values.pop("weight_decay", args.weight_decay))
        plain: Any = [
            {**group, "params": [p for _, p in group["params"]]} for group in _groups(model, decay)
        ]
        made = dataclasses.replace(read, values=values).factory()(plain)
    if read.schedule is None:
        return made, None
    total = args.max_steps if steps is None and args.max_steps > 0 else steps
    if total is None:
        raise InputError(
            f"the schedule {read.schedule.spec()} has to know how long the run is: give steps=, or "
            "TrainingArguments(max_steps=...). A run of E epochs has "
            "E * ceil(examples / batch size / gradient_accumulation_steps) steps"
        )
    return made, to_lambda_lr(made, read.schedule, total=total)


def task(
    model_init: Callable[[], nn.Module],
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    name: str = "trainer",
    batch_size: int = 8,
    eval_batch_size: int = 8,
    collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
    labels: str = "labels",
    metrics: Mapping[str, Any] | Sequence[str] = (),
    compute_metrics: Callable[[Any], Mapping[str, float]] | None = None,
    describe: str = "",
) -> Task:
    """A Trainer's setup as a `steepest.Task`, to race optimizers on it.

    The loss is the model's own. Batches come out of a DataLoader with the collator, as in the
    Trainer, in an order that is a function of the seed. Biases and norms do not decay, whatever the
    arm.

    Args:
        model_init: As the Trainer takes it: makes a model that returns a loss when it is given
            labels; it is called under the run's seed.
        train: A dataset of dicts: of ``datasets``, of torch, or a list.
        val: The same, for choices.
        test: The same, for the verdict.
        name: What tables and folders call it.
        batch_size: Examples per step.
        eval_batch_size: Examples per forward pass of an evaluation.
        collator: As the Trainer's ``data_collator``; default: transformers'
            ``default_data_collator``. What the model's ``forward`` does not take is left out
            before.
        labels: The name of the labels in a batch.
        metrics: By name a function ``(logits, labels) -> float`` or a `steepest.Metric` of one; or
            the names of what ``compute_metrics`` returns. The first one decides.
        compute_metrics: As the Trainer's, called with an ``EvalPrediction``.
        describe: One line for reports.

    Raises:
        InputError: If transformers is not installed; `TaskError` if the setup cannot be trained.
    """
    need("transformers", extra="hf")
    from steepest.adapters._hf_task import make_task

    return make_task(
        model_init,
        {"train": train, "val": val, "test": test},
        name=name,
        sizes=(batch_size, eval_batch_size),
        collator=collator,
        labels=labels,
        metrics=metrics,
        compute_metrics=compute_metrics,
        describe=describe,
    )


def _from_arguments(rule: Rule, args: TrainingArguments | None) -> dict[str, Any]:
    """The learning rate, and what was set of Adam's numbers and is a number of the rule."""
    if args is None:
        return {}
    usual = {field.name: field.default for field in dataclasses.fields(args)}
    return {
        "lr": args.learning_rate,
        **{
            own: getattr(args, name)
            for name, own in _FROM_ARGUMENTS.items()
            if own in rule.hyperparameters and getattr(args, name) != usual[name]
        },
    }


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The Trainer's two parameter groups, with the parameters' names."""
    decaying = decay_names(model)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [pair for pair in trained if pair[0] in decaying], "weight_decay": weight_decay},
        {"params": [pair for pair in trained if pair[0] not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def decay_names(model: nn.Module) -> set[str]:
    """The names of the parameters that the Trainer decays."""
    from transformers import Trainer

    return set(Trainer.get_decay_parameter_names(None, model))
