"""Optimizers that torch does not have and that see single elements: Lion, ADOPT, Adan, ..."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from steepest.kernels import EngineName
from steepest.optim.facade import Facade

__all__ = ["ADOPT", "AdEMAMix", "AdaBelief", "Adan", "Lion", "Signum"]


class ADOPT(Facade):
    """ADOPT: Adam that converges with any β₂; the first step only measures.

    Equations: `steepest.rules.adopt`. Arguments: github.com/iShohei220/adopt.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of the two moments.
        eps: Smallest root of the second moment.
        weight_decay: Weight decay λ.
        decouple: Decay beside the step instead of an L2 penalty.
        clip: Clip the normalised gradient (algorithm 2).
        clip_exponent: At the number of the step to this power; there it is a function,
            ``clip_lambda``.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = ADOPT([weight], lr=0.1)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     weight.square().sum().backward()
    ...     optimizer.step()
    >>> weight.detach()
    tensor([ 0.9900, -1.9900])
    """

    rule_name = "adopt"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decouple: bool = False,
        *,
        clip: bool = True,
        clip_exponent: float = 0.25,
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
            "decouple": decouple,
            "clip": clip,
            "clip_exponent": clip_exponent,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class AdEMAMix(Facade):
    """AdEMAMix: Adam with a second, very slow average of the gradients.

    Equations: `steepest.rules.ademamix`. Arguments: github.com/apple/ml-ademamix.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of the fast average, the second moment, the slow one.
        alpha: Weight of the slow average.
        beta3_warmup: Steps over which its coefficient warms up; None: none.
        alpha_warmup: Steps over which its weight warms up; None: none.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = AdEMAMix([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.9000, -1.9000])
    """

    rule_name = "ademamix"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        beta3_warmup: float | None = None,
        alpha_warmup: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
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
            "alpha": alpha,
            "beta3_warmup": beta3_warmup,
            "alpha_warmup": alpha_warmup,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class AdaBelief(Facade):
    """AdaBelief: divides by how far a gradient lies from its own average.

    Equations: `steepest.rules.adabelief`. Arguments: github.com/juntang-zhuang/Adabelief-
    Optimizer.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of the two moments.
        eps: Added inside of the average and outside of the root.
        weight_decay: Weight decay λ.
        amsgrad: Divide by the largest second moment so far.
        weight_decouple: Decay beside the step instead of an L2 penalty.
        rectify: RAdam's factor; on by default in the authors' package, and not in the paper.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = AdaBelief([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.8889, -1.8889])
    """

    rule_name = "adabelief"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        weight_decouple: bool = True,
        rectify: bool = False,
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
            "amsgrad": amsgrad,
            "weight_decouple": weight_decouple,
            "rectify": rectify,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class Adan(Facade):
    """Adan: Nesterov's momentum by the differences of gradients.

    Equations: `steepest.rules.adan`. Arguments: github.com/sail-sg/Adan.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of gradient, difference and second moment.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        no_prox: Decoupled decay instead of the implicit step.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Adan([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.9000, -1.9000])
    """

    rule_name = "adan"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_prox: bool = False,
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
            "no_prox": no_prox,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class Lion(Facade):
    """Lion: every element moves by the learning rate, along the sign of a momentum.

    Equations: `steepest.rules.lion`. Arguments: github.com/google/automl/tree/master/lion.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate; a third to a tenth of AdamW's.
        betas: Coefficients of the step's and of the memory's average.
        weight_decay: Weight decay λ.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Lion([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.9000, -1.9000])
    """

    rule_name = "lion"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
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
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class Signum(Facade):
    """Signum: the sign of the momentum; with ``momentum=0`` signSGD.

    Equations: `steepest.rules.signum`. Arguments: arXiv:1802.04434, algorithm 2.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate: how far every element moves.
        momentum: Coefficient of the average of the gradients.
        weight_decay: Weight decay λ.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Signum([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.9000, -1.9000])
    """

    rule_name = "signum"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
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
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)
