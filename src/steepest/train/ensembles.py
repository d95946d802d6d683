"""Several models as one predictor: the mean of their probabilities, and how sure it is.

K    members
B    examples; N of a whole split
C    classes, dimension 1 of a model's outputs as in `torch.nn.functional.cross_entropy`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap  # type: ignore[attr-defined,unused-ignore]

from steepest.errors import InputError, SteepestError, TaskError
from steepest.train.data import eval_batches, map_tensors
from steepest.train.mapped import quiet, without_shortcut
from steepest.train.population import why_not
from steepest.train.randomness import derive, isolated, seed_all
from steepest.train.solo import concatenate
from steepest.train.task import call_model

if TYPE_CHECKING:
    from steepest.train.task import Task

__all__ = [
    "Ensemble",
    "Uncertainty",
    "check_classes",
    "mean_log_probabilities",
    "predict",
    "score",
    "uncertainty",
]

Kind = Literal["scores", "probabilities"]
_TRIED = 8  # examples on which mapping is compared with asking one by one
_AGREE = 1e-4  # of probabilities


class Ensemble(nn.Module):
    r"""Models that answer together: :math:`p(c \mid x) = \frac{1}{K} \sum_k p_k(c \mid x)`.

    Members may give logits, log-probabilities or probabilities. What comes out is of the same
    kind and goes into the same loss and metrics: the logarithm of the mean (which is a
    log-probability, and so a logit too), or the mean itself.

    Members of one kind are asked all at once through `torch.func.vmap`; members that differ in
    more than their weights, or that cannot be mapped, one by one. `how` says which, and why.

    Args:
        models: At least two; they are used as they are, and put into eval mode to be asked.
        engine: ``auto``, or ``loop``: one by one.

    Attributes:
        members: The models.
        how: ``vmap``, or ``loop: `` and the reason; ``not asked yet`` before the first question.

    Raises:
        InputError: For fewer than two models.

    >>> _ = torch.manual_seed(0)
    >>> models = [nn.Linear(4, 3) for _ in range(5)]
    >>> ensemble, x = Ensemble(models), torch.randn(2, 4)
    >>> mean = torch.stack([m(x).softmax(1) for m in models]).mean(0)
    >>> ensemble(x).exp().allclose(mean), ensemble.how
    (True, 'vmap')
    """

    def __init__(
        self, models: Sequence[nn.Module], *, engine: Literal["auto", "loop"] = "auto"
    ) -> None:
        super().__init__()
        if engine not in ("auto", "loop"):
            raise InputError(f"engine must be 'auto' or 'loop', got {engine!r}")
        models = list(models)
        if len(models) < 2:
            raise InputError(f"an ensemble needs at least 2 members, got {len(models)}")
        for model in models:
            given: object = model
            if not isinstance(given, nn.Module):
                raise InputError(f"a member must be an nn.Module, got {type(given).__name__}")
        self.members = nn.ModuleList(models)
        self.how = "not asked yet" if engine == "auto" else "loop: as asked for"
        self._kind: Kind | None = None
        self._stacks: tuple[Any, dict[str, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.members)

    @property
    def kind(self) -> Kind:
        """What the members give, after the first question: ``scores`` (logits or logarithms) or
        ``probabilities``.
        """
        if self._kind is None:
            raise InputError("nothing was asked of this ensemble yet; call it on a batch first")
        return self._kind

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The mean of the members' probabilities, in the kind of their own outputs, [B, C]."""
        logs_KBC = self.log_probabilities(*args, **kwargs)
        return self.like_members(mean_log_probabilities(logs_KBC))

    def like_members(self, logs: Tensor) -> Tensor:
        """Log-probabilities as what the members themselves would have given."""
        return logs.exp() if self.kind == "probabilities" else logs

    def log_probabilities(self, *args: Any, **kwargs: Any) -> Tensor:
        """Every member's log-probabilities, [K, B, C].

        Raises:
            TaskError: If the members' outputs are not scores of classes.
        """
        modes = [(module, module.training) for module in self.members.modules()]
        try:
            self.members.eval()
            with quiet(), without_shortcut():
                outputs = self._ask(args, kwargs)
        finally:
            for module, mode in modes:
                module.training = mode
        if self._kind is None:
            self._kind = _kind(outputs)
        if self._kind == "probabilities":
            tiny = torch.finfo(outputs.dtype).tiny
            return outputs.clamp_min(tiny).log()
        return outputs.float().log_softmax(2)

    def _ask(self, args: Any, kwargs: Any) -> Tensor:
        if self.how == "not asked yet":
            self.how = self._try(args, kwargs)
        return self._mapped(args, kwargs) if self.how == "vmap" else self._looped(args, kwargs)

    def _try(self, args: Any, kwargs: Any) -> str:
        """``vmap`` if it gives what asking one by one gives; else the loop and its reason."""
        few_args, few_kwargs = map_tensors(_few, args), map_tensors(_few, kwargs)
        expected = self._looped(few_args, few_kwargs)
        try:
            mapped = self._mapped(few_args, few_kwargs)
        except Exception as error:  # noqa: BLE001  a stranger's model; one by one it works
            return f"loop: {why_not(error)}"
        off = (mapped.float() - expected.float()).abs().amax(dim=tuple(range(1, mapped.dim())))
        scale = expected.float().abs().max().clamp_min(1.0)
        if not bool((off <= _AGREE * scale).all()):
            worst = int(off.argmax())
            return (
                f"loop: mapped, member {worst} answers otherwise than alone (by "
                f"{float(off[worst]):.2g}); members differ in more than their weights"
            )
        return "vmap"

    def _looped(self, args: Any, kwargs: Any) -> Tensor:
        outputs = []
        for number, member in enumerate(self.members):
            outputs.append(_check_scores(member(*args, **kwargs), f"member {number}"))
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1:
            raise TaskError(
                f"the members of an ensemble must know the same classes; their outputs have shapes "
                f"{', '.join(map(str, sorted(shapes)))}"
            )
        return torch.stack(outputs)

    def _mapped(self, args: Any, kwargs: Any) -> Tensor:
        stacks, template = self._stacked(), self.members[0]

        def one(weights: dict[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(template, weights, args, kwargs)
            return result

        return _check_scores(vmap(one)(stacks), "vmap", dim=2)

    def _stacked(self) -> dict[str, Tensor]:
        """All weights and buffers, [K, ...], stacked again only when one of them has changed."""
        columns: dict[str, list[Tensor]] = {}
        for member in self.members:
            for name, tensor in (*member.named_parameters(), *member.named_buffers()):
                columns.setdefault(name, []).append(tensor.detach())
        uneven = [name for name, column in columns.items() if len(column) != len(self)]
        if uneven:
            raise InputError(f"only some members have '{uneven[0]}'")
        # _version counts changes in place; inference tensors have none, and cannot be changed
        key = [
            (t.data_ptr(), 0 if t.is_inference() else t._version, t.device)
            for column in columns.values()
            for t in column
        ]
        if self._stacks is None or self._stacks[0] != key:
            self._stacks = key, {n: torch.stack(column) for n, column in columns.items()}
        return self._stacks[1]


def _few(tensor: Tensor) -> Tensor:
    return tensor[:_TRIED] if tensor.dim() else tensor


def _check_scores(outputs: object, who: str, *, dim: int = 1) -> Tensor:
    if not isinstance(outputs, Tensor):
        came = type(outputs).__name__
    elif not outputs.is_floating_point() or outputs.dim() <= dim or outputs.shape[dim] < 2:
        came = f"{str(outputs.dtype).removeprefix('torch.')}{list(outputs.shape)}"
    else:
        return outputs
    raise TaskError(
        "an ensemble averages probabilities of classes, so a model's outputs must be scores of at "
        f"least two classes, a float tensor [B, C]; {who} gave {came}. For another kind of model "
        "average the weights instead (steepest average)"
    )


def _kind(outputs: Tensor) -> Kind:
    """Numbers that are nowhere negative and add up to one over the classes are probabilities."""
    total = outputs.float().sum(2)
    together = torch.allclose(total, torch.ones_like(total), atol=1e-3)
    return "probabilities" if together and bool((outputs >= 0).all()) else "scores"


def mean_log_probabilities(logs_KBC: Tensor) -> Tensor:
    r"""The logarithm of the mean of probabilities, :math:`\log \frac{1}{K} \sum_k e^{l_k}`.

    >>> logs = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).log()
    >>> mean_log_probabilities(logs).exp()
    tensor([[0.7000, 0.3000]])
    """
    return logs_KBC.logsumexp(0) - math.log(len(logs_KBC))


@dataclass(frozen=True)
class Uncertainty:
    r"""How sure an ensemble is, per example [B], in nats where it is an entropy.

    Attributes:
        entropy: Of the mean prediction, :math:`H[\bar p]`: all there is to be unsure about.
        mutual_information: :math:`H[\bar p] - \frac{1}{K} \sum_k H[p_k]`: the part that is there
            because members differ, which more data would remove (Houlsby et al.,
            arXiv:1112.5745).
        disagreement: Share of the pairs of members that name different classes.
        confidence: Probability of the class that is named.
    """

    entropy: Tensor
    mutual_information: Tensor
    disagreement: Tensor
    confidence: Tensor

    def means(self) -> dict[str, float]:
        """Over all examples."""
        return {name: float(value.mean()) for name, value in vars(self).items()}


def uncertainty(logs_KBC: Tensor) -> Uncertainty:
    """How sure the members are, together and of each other.

    Args:
        logs_KBC: Their log-probabilities, as `Ensemble.log_probabilities` gives them.

    >>> sure_but_different = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()
    >>> found = uncertainty(sure_but_different)
    >>> found.entropy, found.mutual_information, found.disagreement     # log 2 = 0.6931
    (tensor([0.6931]), tensor([0.6931]), tensor([1.]))
    """
    K = len(logs_KBC)
    if K < 2:
        raise InputError(f"disagreement needs at least 2 members, got {K}")
    logs = logs_KBC.double()
    mean = mean_log_probabilities(logs)
    total = torch.special.entr(mean.exp()).sum(1)
    each = torch.special.entr(logs.exp()).sum(2).mean(0)
    named = torch.nn.functional.one_hot(logs.argmax(2), logs.shape[2]).sum(0)
    agreeing = (named * (named - 1)).sum(-1) / (K * (K - 1))
    return Uncertainty(
        entropy=total.float(),
        mutual_information=(total - each).clamp_min(0.0).float(),
        disagreement=(1 - agreeing).float(),
        confidence=mean.exp().amax(1).float(),
    )


def check_classes(outputs: Any, targets: Any, *, where: str) -> None:
    """Raise `TaskError` unless these are scores of classes, and the classes that were right."""
    scores = _check_scores(outputs, where)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.is_complex():
        kind = str(targets.dtype) if isinstance(targets, Tensor) else type(targets).__name__
        raise TaskError(
            f"{where}: an ensemble averages probabilities of classes, so targets must be "
            f"numbers of classes, an integer tensor; got {kind}"
        )
    expected = (scores.shape[0], *scores.shape[2:])
    if tuple(targets.shape) != expected:
        raise TaskError(
            f"{where}: outputs of shape {list(scores.shape)} are scores of {scores.shape[1]} "
            f"classes for targets of shape {list(expected)}, but targets have "
            f"{list(targets.shape)}"
        )
    low, high = (int(targets.min()), int(targets.max())) if targets.numel() else (0, 0)
    if low < 0 or high >= scores.shape[1]:
        raise TaskError(
            f"{where}: targets must be classes from 0 to {scores.shape[1] - 1}, since the model "
            f"has so many outputs; found {low} to {high}"
        )


def predict(
    task: Task,
    split: str,
    ask: Callable[..., Tensor] | nn.Module,
    *,
    device: torch.device,
    dim: int = 0,
) -> tuple[Any, Any]:
    """The answers to every example of a split, and what was right, on the CPU.

    Nothing of the caller's random state is changed, and no gradient is kept.

    Args:
        task: Whose data; with ``(x, y)`` the ``x`` is put through ``ask`` as through its model.
        split: ``train``, ``val`` or ``test``.
        ask: A model in eval mode, or a method such as `Ensemble.log_probabilities`.
        device: Where the model is.
        dim: The dimension of the examples in the answers; 1 behind that of members.
    """
    where = f"task '{task.name}': {split}"
    outputs, targets = [], []
    with isolated(device), torch.no_grad():
        seed_all(derive(0, "evaluate"), device)
        for x, y in eval_batches(
            task.split(split), batch_size=task.eval_batch_size, device=device, where=where
        ):
            try:
                answer = call_model(ask, x)  # type: ignore[arg-type]
            except (SteepestError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                first = str(error).strip().split("\n")[0]
                raise TaskError(f"{where}: the model raised {type(error).__name__}: {first}") from (
                    error
                )
            outputs.append(map_tensors(lambda t: t.cpu(), answer))
            targets.append(map_tensors(lambda t: t.cpu(), y))
    if not outputs:
        raise TaskError(f"{where} is empty: its DataLoader yields no batch")
    return concatenate(outputs, dim=dim), concatenate(targets)


def score(task: Task, outputs: Any, targets: Any) -> Mapping[str, float]:
    """``{"loss": …, metric: …}`` of answers to a whole split.

    The loss is the task's own over all examples at once, so for a loss that is a mean over its
    batch it is what an evaluation in batches gives.
    """
    with torch.no_grad():
        loss = float(task.loss(outputs, targets))
    return {"loss": loss, **task.measure(outputs, targets)}
