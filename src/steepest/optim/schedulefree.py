"""Optimizers that need no schedule: an average of the iterates is what to evaluate."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from steepest.kernels import EngineName
from steepest.optim.averaging import Averaged

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD"]


class ScheduleFreeAdamW(Averaged):
    """Schedule-free AdamW: an average of the iterates instead of a falling rate.

    Equations: `steepest.rules.schedulefree_adamw`. Arguments:
    github.com/facebookresearch/schedule_free (AdamWScheduleFree).

    Call `eval` before evaluating or saving the model and `train` before going on.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: How far the trained weights lean to the average, in (0, 1); coefficient of the
            second moment.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        warmup_steps: Steps over which the rate warms up.
        r: Exponent of the step in the average's weights.
        weight_lr_power: Exponent of the rate there.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = ScheduleFreeAdamW([weight], lr=0.1)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     weight.square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> weight.detach()
    tensor([ 0.8527, -1.8513])
    """

    rule_name = "schedulefree_adamw"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: float = 0.0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class ScheduleFreeSGD(Averaged):
    """Schedule-free SGD: an average of the iterates instead of a falling rate.

    Equations: `steepest.rules.schedulefree_sgd`. Arguments:
    github.com/facebookresearch/schedule_free (SGDScheduleFree).

    Call `eval` before evaluating or saving the model and `train` before going on.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        momentum: How far the trained weights lean to the average; in (0, 1).
        weight_decay: Weight decay λ.
        warmup_steps: Steps over which the rate warms up.
        r: Exponent of the step in the average's weights.
        weight_lr_power: Exponent of the rate there.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = ScheduleFreeSGD([weight], lr=0.1)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     weight.square().sum().backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> weight.detach()
    tensor([ 0.7200, -1.4400])
    """

    rule_name = "schedulefree_sgd"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: float = 0.0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)
