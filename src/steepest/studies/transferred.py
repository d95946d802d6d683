"""From scratch, on frozen features, or fine-tuned: over seeds, for several amounts of data.

Every seed has labelled examples of its own; the three ways of a seed see the same ones in the
same batches. Fine-tuning begins with the head that was trained on the frozen features (Kumar et
al., arXiv:2202.10054), so it cannot spoil the features before the head knows anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steepest.errors import InputError, TaskError, UnsupportedError
from steepest.racing.arm import Arm
from steepest.racing.journal import Journal, opened
from steepest.racing.observer import stop_requests
from steepest.studies.setting import Setting, Silent, Watcher
from steepest.studies.study import Study, Variant, Wish, as_spec
from steepest.train.batchnorm import freeze_batch_norm
from steepest.train.data import eval_batches, open_source, tensors_of
from steepest.train.randomness import derive
from steepest.train.solo import OptimizerFactory, SoloRun, model_state
from steepest.train.task import Task, build_model, hash_tensors
from steepest.train.transfer import (
    Features,
    find_head,
    freeze_backbone,
    head_model,
    layer_rates,
    load_backbone,
    replace_head,
    tail_of,
    with_rates,
)

__all__ = ["WAYS", "balanced", "train_source", "transfer_runs"]

WAYS = ("scratch", "frozen", "fine-tuned")
_NAMES = {
    "scratch": "training from scratch",
    "frozen": "frozen features",
    "fine-tuned": "fine-tuning",
}


def balanced(targets: Tensor, n: int, *, seed: int) -> Tensor:
    """The places of n examples, equally many of every class as far as they go round.

    A smaller n takes a part of what a larger one takes with the same seed.

    >>> y = torch.tensor([0] * 90 + [1] * 10)
    >>> y[balanced(y, 8, seed=0)].bincount()
    tensor([4, 4])
    """
    generator = torch.Generator().manual_seed(derive(seed, "subset"))
    order = torch.randperm(len(targets), generator=generator)
    turn = torch.zeros(len(targets), dtype=torch.int64)
    shuffled = targets[order]
    for number in set(shuffled.tolist()):
        mine = shuffled == number
        turn[mine] = torch.arange(int(mine.sum()))
    # by turns, and within a turn in the order of the shuffle
    return order[turn.argsort(stable=True)[:n]]


def transfer_runs(
    setting: Setting,
    folder: str | Path,
    *,
    weights: Mapping[str, Tensor],
    head: str | None,
    amounts: Sequence[int],
    least: float,
    freeze_norm: bool,
    scratch: Arm | None = None,
    fresh: bool = False,
    command: str = "",
    watcher: Watcher | None = None,
) -> Study:
    """Train every seed in all three ways with every amount of data.

    Args:
        setting: The task; its ``steps`` are those of every single training.
        folder: The study's folder.
        weights: Of the backbone.
        head: Name of the head; None: the last linear layer.
        amounts: How many labelled examples, each a study of its own.
        least: See `steepest.train.transfer.layer_rates`.
        freeze_norm: Keep batch norm as it is while fine-tuning.
        scratch: Another arm for training from scratch.
        fresh: Delete a study that lies there.
        command: What repeats it.
        watcher: Who wants to see how far it is.
    """
    task = setting.task
    known = _Known.of(setting, head, weights, freeze_norm=freeze_norm)
    sizes = _read_amounts(amounts, known.examples)
    rates = list(layer_rates(known.pretrained(setting.seeds[0]), head=known.head, least=least)
                 .values())  # fmt: skip
    lr = setting.arm.learning_rate()
    if lr is None and least != 1:
        raise InputError(
            f"the arm '{setting.arm.label}' has no learning rate of its own that layers could have "
            "parts of; give lr in the arm, or least=1 for equal rates"
        )
    about = {
        "scratch": "all layers from a random start",
        "frozen": "the head alone, on the features of the given weights",
        "fine-tuned": f"from there all layers, rates from {least:g} to 1 of the arm's"
        + (", batch norm frozen" if freeze_norm and known.has_norm else ""),
    }
    variants = [
        Variant(f"{way}/{n}", f"{_NAMES[way]} on {n:,}", about[way]) for n in sizes for way in WAYS
    ]
    wishes = [Wish(f"fine-tuned/{n}", f"{way}/{n}") for n in sizes for way in ("scratch", "frozen")]
    spec = setting.spec(
        "transfer",
        amounts=sizes, ways=list(WAYS), head=known.head, least=least, freeze_norm=freeze_norm,
        scratch_arm=(scratch or setting.arm).text, weights=hash_tensors(dict(weights)),
        **as_spec(variants, wishes),
    )  # fmt: skip
    tuned: OptimizerFactory = setting.arm.factory()
    if lr is not None:
        tuned = with_rates(setting.arm.factory(), rates, lr)
    with opened(folder, spec, meta=setting.meta(command), fresh=fresh) as journal:
        runner = _Runner(
            setting, known, sizes, Features(journal.folder / "features"), tuned,
            scratch or setting.arm, journal, watcher or Silent(),
        )  # fmt: skip
        journal.tell("features", f"'{known.head}' of {task.name} is the head; {known.after_text}")
        runner.carry_out()
    return Study(folder)


def _read_amounts(amounts: Sequence[int], most: int) -> list[int]:
    found: list[int] = []
    for n in amounts:
        given: object = n
        if isinstance(given, bool) or not isinstance(given, int) or given < 2:
            raise InputError(f"an amount of data is a number of examples >= 2, got {given!r}")
        if n > most:
            raise InputError(
                f"{n:,} labelled examples were asked for, but the task has {most:,} to train on"
            )
        found.append(n)
    if not found:
        raise InputError("give at least one amount of data, for example amounts=[100, 1000]")
    return sorted(set(found))


@dataclass(frozen=True)
class _Known:
    """What is settled about the model before anything is trained."""

    task: Task
    head: str
    weights: Mapping[str, Tensor]
    classes: int
    examples: int
    targets: Tensor
    after: str | None
    after_text: str
    freeze_norm: bool
    has_norm: bool

    @classmethod
    def of(
        cls,
        setting: Setting,
        head: str | None,
        weights: Mapping[str, Tensor],
        *,
        freeze_norm: bool,
    ) -> _Known:
        task = setting.task
        source = open_source(task.train, torch.device("cpu"), where=f"task '{task.name}': train")
        if source is None:
            raise UnsupportedError(
                f"task '{task.name}': train comes from a DataLoader, whose examples cannot be "
                "asked for by number; give tensors or a map-style Dataset to choose amounts from"
            )
        targets = _targets(task)
        model = build_model(task, setting.seeds[0])
        name = find_head(model, head)
        classes = int(targets.max()) + 1
        load_backbone(replace_head(model, name, classes), weights, head=name)
        x = source.batch(torch.arange(min(8, source.examples)))[0]
        try:
            after: str | None = tail_of(model, name, x)
            text = "it is trained on features that are computed once"
        except UnsupportedError as error:
            after, text = None, f"the whole model runs while it is trained, since {error}"
        frozen = build_model(task, setting.seeds[0])
        return cls(
            task, name, weights, classes, source.examples, targets, after, text, freeze_norm,
            bool(freeze_batch_norm(frozen)),
        )  # fmt: skip

    def fresh(self) -> nn.Module:
        """The model with a fresh head; called under a run's seed."""
        return replace_head(self.task.model(), self.head, self.classes)

    def with_backbone(self) -> nn.Module:
        """The same with the given weights in its backbone."""
        model = load_backbone(self.fresh(), self.weights, head=self.head)
        if self.freeze_norm:
            freeze_batch_norm(model)
        return model

    def pretrained(self, seed: int) -> nn.Module:
        """With the head that this seed begins with."""
        return build_model(dataclasses.replace(self.task, model=self.with_backbone), seed)


def _targets(task: Task) -> Tensor:
    """The classes of all training examples."""
    data: Any = task.train
    if isinstance(data, (tuple, list)):
        found = data[1]
    else:
        found = torch.tensor([int(torch.as_tensor(data[i][1])) for i in range(len(data))])
    if not isinstance(found, Tensor) or found.is_floating_point() or found.dim() != 1:
        raise TaskError(
            f"task '{task.name}': transfer needs one class per example, an integer tensor [N]; "
            f"got {type(found).__name__}" + (
                f" {found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else "")
        )  # fmt: skip
    return found


@dataclass
class _Runner:
    """All trainings, one after the other."""

    setting: Setting
    known: _Known
    amounts: Sequence[int]
    features: Features
    tuned: OptimizerFactory
    scratch: Arm
    journal: Journal
    watcher: Watcher

    def carry_out(self) -> None:
        """Every seed that has no row yet."""
        finished = {row["seed"] for row in self.journal.rows}
        per_seed = len(self.amounts) * len(WAYS)
        total = len(self.setting.seeds) * per_seed
        done = len(finished) * per_seed
        with stop_requests(self.journal.stopped("the seeds that are finished are kept")) as stop:
            for seed in self.setting.seeds:
                if seed in finished:
                    continue
                values: dict[str, Any] = {}
                lost: list[str] = []
                for n in self.amounts:
                    for way, numbers in self._ways(seed, n):
                        if numbers is None:
                            lost.append(f"{way}/{n}")
                        else:
                            values[f"{way}/{n}"] = numbers
                        done += 1
                        self.watcher.advanced(done, total, f"seed {seed}: {way}, {n:,} examples")
                        stop.obey()
                status = "diverged" if lost else "done"
                self.journal.add({"seed": seed, "status": status, "values": values, "lost": lost})

    def _ways(self, seed: int, n: int) -> Iterator[tuple[str, dict[str, float] | None]]:
        """Each way, and what it came to; None where it diverged."""
        known, setting = self.known, self.setting
        source = open_source(known.task.train, torch.device("cpu"), where="train")
        assert source is not None  # noqa: S101 – settled before
        x, y = source.batch(balanced(known.targets, n, seed=seed))
        task = dataclasses.replace(known.task, train=(x, y), val=None)
        whole = dataclasses.replace(task, model=known.fresh)
        run = self._train(whole, self.scratch, self.scratch.factory(), seed, n)
        yield "scratch", self._numbers(run)
        head_run = self._train_head(task, seed, n)
        yield "frozen", self._numbers(head_run)
        if head_run.diverged_at is not None:
            yield "fine-tuned", None
            return
        head = {
            name.removeprefix("head.") if known.after else name.removeprefix(f"{known.head}."): t
            for name, t in head_run.weights().items()
            if known.after or name.startswith(f"{known.head}.")
        }

        def begin() -> nn.Module:
            model = known.with_backbone()
            model.get_submodule(known.head).load_state_dict(head)
            return model

        tuning = dataclasses.replace(task, model=begin)
        yield "fine-tuned", self._numbers(self._train(tuning, setting.arm, self.tuned, seed, n))

    def _train_head(self, task: Task, seed: int, n: int) -> SoloRun:
        """The head alone: on features if that is possible, else inside the frozen model."""
        known, setting = self.known, self.setting
        after = known.after
        if after is None:

            def frozen() -> nn.Module:
                return freeze_backbone(known.with_backbone(), known.head)

            whole = dataclasses.replace(task, model=frozen)
            return self._train(whole, setting.arm, setting.arm.factory(), seed, n)

        def only_head() -> nn.Module:
            return head_model(known.fresh(), known.head, after)

        model = known.pretrained(seed).to(setting.device)
        splits: dict[str, Any] = {
            split: (self._features(model, task, split), _targets_of(task, split))
            for split in ("train", setting.decides)
        }
        small = dataclasses.replace(task, model=only_head, **splits)
        return self._train(small, setting.arm, setting.arm.factory(), seed, n)

    def _features(self, model: nn.Module, task: Task, split: str) -> Tensor:
        device = torch.device(self.setting.device)
        batches = eval_batches(
            task.split(split),
            batch_size=task.eval_batch_size,
            device=torch.device("cpu"),
            where=f"task '{task.name}': {split}",
        )
        inputs = [x for x, _ in batches]
        return self.features.of(model, inputs, head=self.known.head, device=device)

    def _train(
        self, task: Task, arm: Arm, optimizer: OptimizerFactory, seed: int, n: int
    ) -> SoloRun:
        run = SoloRun(
            task,
            optimizer=optimizer,
            schedule=arm.schedule,
            seed=seed,
            steps=self.setting.steps,
            batch_size=min(self.setting.batch_size, n),
            device=self.setting.device,
        )
        run.advance(self.setting.steps)
        return run

    def _numbers(self, run: SoloRun) -> dict[str, float] | None:
        if run.diverged_at is not None:
            return None
        split: Any = self.setting.decides
        return {f"{split}_{name}": value for name, value in run.evaluate(split).items()}


def _targets_of(task: Task, split: str) -> Tensor:
    batches = eval_batches(
        task.split(split), batch_size=task.eval_batch_size, device=torch.device("cpu"), where=split
    )
    return torch.cat([tensors_of(y)[0] for _, y in batches])


def train_source(task: Task, arm: Arm, *, epochs: float, device: str) -> dict[str, Tensor]:
    """The weights and buffers of one run on another task, to be transferred.

    Raises:
        InputError: If the run diverges.
    """
    probe = SoloRun(task, optimizer=arm.factory(), schedule=None, seed=0, steps=1, device=device)
    steps = max(1, round(epochs * probe.steps_per_epoch))
    run = SoloRun(
        task, optimizer=arm.factory(), schedule=arm.schedule, seed=0, steps=steps, device=device
    )
    run.advance(steps)
    if run.diverged_at is not None:
        raise InputError(
            f"training on the source task '{task.name}' diverged at step {run.diverged_at + 1}; "
            "give another arm"
        )
    weights = run.weights()
    return {
        name: weights.get(name, tensor.detach().cpu().clone())
        for name, tensor in model_state(run.model)
    }
